"""Which bits for which tensor: least cost within a budget, by an integer program, greedily, and for all budgets.

Nothing here looks at a network: costs come from any measure, as numbers per `Choice`, and a `Resource` says what the
choices use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qlearn.analysis.mixed_precision.choices import Allocation, Choice, options_of
from qlearn.analysis.mixed_precision.program import solve
from qlearn.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from qlearn.analysis.mixed_precision.choices import Slot
    from qlearn.analysis.mixed_precision.resources import Resource

METHODS = ("program", "greedy")
LARGEST_FRONT = 2**24
"""Most candidates for the whole front that are held at once."""


def search_bits(
    costs: Mapping[Choice, float], resource: Resource, budget: int, *, method: str = "program"
) -> Allocation:
    """Choose bits for every tensor, so that the costs add up to as little as possible within a budget.

    Parameters
    ----------
    costs : mapping of Choice to float
        What each choice costs: `ChoiceLogits.costs`, `hessian_costs`, or your own. All choices for one tensor exclude
        each other; one of them is taken.
    resource : Resource
        `weight_bytes` or `bit_operations` of the network.
    budget : int
        Most that may be used, in the unit of the resource.
    method : str
        ``"program"``: an integer program, solved exactly by HiGHS (extra ``mixed``). Of allocations that cost the
        same, it takes one that uses most.
        ``"greedy"``: from the cheapest choices down, always the change that costs least per unit that it saves; of
        changes that cost the same, the one that leaves most bits.

    Returns
    -------
    Allocation

    Raises
    ------
    RecipeError
        If the budget is smaller than the smallest possible usage, which the message names, or not finite;
        or if costs are missing, not finite, or about tensors that the resource does not know.
    MissingDependencyError
        If scipy is not installed.

    References
    ----------
    Paper §7.3. Z. Yao et al., "HAWQ-V3: dyadic neural network quantization", ICML 2021 (the integer program).

    Examples
    --------
    >>> from qlearn.analysis.mixed_precision.resources import Resource, Term
    >>> hurts = {"a": 1, "b": 9}
    >>> costs = {Choice(name, "weights", bits): hurt / 4**bits for name, hurt in hurts.items() for bits in (2, 4)}
    >>> terms = tuple(Term(100, ((name, "weights"),), 8) for name in "ab")
    >>> resource = Resource("weight bytes", "bytes", terms, {("a", "weights"): 8, ("b", "weights"): 8})
    >>> search_bits(costs, resource, budget=75).bits()
    {'a': 2, 'b': 4}
    """
    options = checked_options(costs, resource)
    check_budget(options, resource, budget)
    if method not in METHODS:
        raise RecipeError(f"no search {method!r}: there are {', '.join(METHODS)}")
    chosen = (
        solve(costs, options, resource, budget) if method == "program" else _greedy(costs, options, resource, budget)
    )
    return Allocation(tuple(chosen), math.fsum(costs[choice] for choice in chosen), resource.usage(chosen))


def checked_options(costs: Mapping[Choice, float], resource: Resource) -> dict[Slot, tuple[Choice, ...]]:
    """Return the choices by tensor, or refuse what no search can use."""
    if not costs:
        raise RecipeError("no costs: there is nothing to choose")
    for choice, cost in costs.items():
        if not math.isfinite(cost):
            raise RecipeError(f"the cost of {tuple(choice)} is {cost}: costs must be finite numbers")
        if choice.slot not in resource.base:
            raise RecipeError(f"{resource.name}: the network has no {choice.tensor} of {choice.layer!r} to count")
    return options_of(costs)


def check_budget(options: Mapping[Slot, Sequence[Choice]], resource: Resource, budget: float) -> None:
    """Raise RecipeError if not even the fewest bits of every tensor keep the budget. Needs no costs.

    `options` are the choices by tensor, fewest bits first (`options_of`).
    """
    if not math.isfinite(budget):
        raise RecipeError(f"the budget is {budget}: a finite number of {resource.unit} is wanted")
    smallest = resource.usage(found[0] for found in options.values())
    if budget < smallest:
        raise RecipeError(
            f"a budget of {budget:,} {resource.unit} cannot be met: with the fewest bits of every tensor it takes "
            f"{smallest:,} {resource.unit}. Allow fewer bits, or raise the budget"
        )


def _greedy(
    costs: Mapping[Choice, float], options: Mapping[Slot, Sequence[Choice]], resource: Resource, budget: int
) -> list[Choice]:
    """Start with the cheapest choices; step down where a unit saved costs least, until the budget is met."""
    chosen = {slot: min(found, key=lambda choice: (costs[choice], -choice.bits)) for slot, found in options.items()}
    usage = resource.usage(chosen.values())
    while usage > budget:
        best: tuple[float, int, Choice, int] | None = None
        for slot, now in chosen.items():
            for choice in options[slot]:
                less = resource.usage((chosen | {slot: choice}).values()) if choice.bits < now.bits else usage
                if less < usage:
                    price = (costs[choice] - costs[now]) / (usage - less)
                    if best is None or (price, -choice.bits) < best[:2]:
                        best = price, -choice.bits, choice, less
        assert best is not None, "the budget is above the smallest usage, so something can still shrink"
        chosen[best[2].slot], usage = best[2], best[3]
    return list(chosen.values())


@dataclass(frozen=True, eq=False)
class ParetoFront:
    """All allocations that no other beats: none costs less and uses no more.

    Parameters
    ----------
    usage : ndarray, shape (P,), int64
        Rising.
    cost : ndarray, shape (P,), float64
        Falling.
    options : tuple of tuple of Choice
        For each tensor, what can be chosen.
    picks : ndarray, shape (P, tensors), uint8
        Which of them each allocation takes.
    """

    usage: NDArray[np.int64]
    cost: NDArray[np.float64]
    options: tuple[tuple[Choice, ...], ...]
    picks: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.usage)

    def __getitem__(self, place: int) -> Allocation:
        """Return one allocation; 0 uses least."""
        chosen = tuple(found[pick] for found, pick in zip(self.options, self.picks[place], strict=True))
        return Allocation(chosen, float(self.cost[place]), int(self.usage[place]))

    def thinned(self, points: int) -> list[Allocation]:
        """Return at most so many allocations, spread evenly over the usage, both ends included."""
        wanted = np.linspace(self.usage[0], self.usage[-1], points)
        places = np.unique(np.searchsorted(self.usage, wanted, side="right") - 1)
        return [self[int(place)] for place in places]


def pareto_front(costs: Mapping[Choice, float], resource: Resource) -> ParetoFront:
    """Return the whole Pareto front: the best allocation for every budget there is, exactly.

    Tensor by tensor, every allocation so far is joined with every choice for the next one, and what another beats is
    dropped. That is exact where each tensor uses its share whatever the others do.

    Parameters
    ----------
    costs, resource
        As for `search_bits`.

    Raises
    ------
    RecipeError
        If two chosen tensors share a term (bit-operations, when both weights and activations are chosen), or the front
        grows beyond `LARGEST_FRONT`. Then ask `search_bits` for the budgets of interest.

    References
    ----------
    G. Nemhauser, Z. Ullmann, "Discrete dynamic programming and capital allocation", Management Science 15, 1969.
    """
    options = checked_options(costs, resource)
    if any(len(set(term.slots).intersection(options)) > 1 for term in resource.terms):
        raise RecipeError(
            f"the front of {resource.name} for weights and activations together is not computed: their bits multiply. "
            "Choose one of them, or ask search_bits() for the budgets of interest"
        )
    start = resource.usage(found[0] for found in options.values())
    usage, cost, picks = np.array([start], np.int64), np.zeros(1), np.zeros((1, 0), np.uint8)
    for found in options.values():
        if len(usage) * len(found) > LARGEST_FRONT:
            raise RecipeError(f"the front has more than {LARGEST_FRONT // len(found):,} points: use search_bits()")
        more = np.array([resource.usage([choice]) - resource.usage([found[0]]) for choice in found], np.int64)
        price = np.array([costs[choice] for choice in found])
        used, paid = (usage[:, None] + more).ravel(), (cost[:, None] + price).ravel()
        order = np.lexsort((paid, used))
        cheapest = np.minimum.accumulate(paid[order])
        kept = order[np.concatenate([[True], cheapest[1:] < cheapest[:-1]])]
        before, pick = np.divmod(kept, len(found))
        usage, cost = used[kept], paid[kept]
        picks = np.column_stack([picks[before], pick.astype(np.uint8)])
    return ParetoFront(usage, cost, tuple(options.values()), picks)
