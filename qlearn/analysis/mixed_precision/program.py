"""The integer program behind `search_bits`: 0/1 variables, solved exactly by HiGHS through scipy."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import MissingDependencyError, QLearnError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from qlearn.analysis.mixed_precision.choices import Choice, Slot
    from qlearn.analysis.mixed_precision.resources import Resource

    Options = Mapping[Slot, Sequence[Choice]]
    Pair = tuple[Choice, Choice]
    Columns = dict[Choice | Pair, int]
    Row = tuple[NDArray[np.float64], Any, Any]

LARGEST_COST = 1e4
"""Costs are scaled so that the largest is this: HiGHS compares objectives with an absolute tolerance of 1e-6."""


def solve(costs: Mapping[Choice, float], options: Options, resource: Resource, budget: int) -> list[Choice]:
    """Return the choices that the integer program takes.

    One variable x of 0 or 1 per choice. Minimise the sum of cost * x, so that each tensor takes one choice and the
    usage stays within the budget. Where the bits of two chosen tensors multiply, one more variable z stands for each
    pair of their choices, and its row and column sums are the x: z is 1 for the pair that is taken, else 0.
    A second program asks which of the allocations of that cost uses most: bits that are free are not left out.

    Raises
    ------
    MissingDependencyError
        If scipy is not installed.
    QLearnError
        If HiGHS finds no answer.
    """
    singles = [choice for found in options.values() for choice in found]
    uses, shared, fixed = _linear_terms(options, resource)
    column: Columns = dict(zip((*singles, *shared), range(len(singles) + len(shared)), strict=True))
    amounts = [uses[choice] for choice in singles] + list(shared.values())
    unit = math.gcd(*amounts) or 1
    used = np.array([amount // unit for amount in amounts], np.float64)
    scale = 2.0 ** -math.frexp(used.max())[1]  # a power of two, so still exact: HiGHS loses its way in rows of 1e9
    largest = max(abs(costs[choice]) for choice in singles) or 1.0
    objective = np.zeros(len(column))
    objective[: len(singles)] = [LARGEST_COST * costs[choice] / largest for choice in singles]
    rows, totals = _equalities(options, list(shared), column)
    limits: list[Row] = [(rows, totals, totals), (scale * used[None, :], -np.inf, scale * ((budget - fixed) // unit))]

    def fits(chosen: list[Choice]) -> bool:
        return resource.usage(chosen) <= budget

    cheapest = _choose(objective, limits, options, column, fits)
    best = math.fsum(objective[column[choice]] for choice in cheapest)
    try:
        bound: Row = (objective[None, :], -np.inf, best)
        fullest = _choose(-LARGEST_COST * scale * used, [*limits, bound], options, column, fits)
    except QLearnError:  # the solver's tolerance at the edge of the budget: what was found keeps the least cost
        return cheapest
    return fullest if math.fsum(objective[column[choice]] for choice in fullest) <= best else cheapest


def _choose(
    objective: NDArray[np.float64],
    limits: Sequence[Row],
    options: Options,
    column: Columns,
    fits: Callable[[list[Choice]], bool],
) -> list[Choice]:
    """Solve once; again, without that allocation, if the solver's tolerance hid that it does not fit."""
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
    except ImportError as error:
        raise MissingDependencyError(
            "the integer program is solved by scipy: pip install 'qlearn[mixed]', or use method='greedy'"
        ) from error
    constraints = [LinearConstraint(*limit) for limit in limits]
    while True:
        with _silenced():
            result = milp(
                objective,
                constraints=constraints,
                integrality=np.ones(len(column)),  # z too: HiGHS 1.12 was wrong now and then where z was continuous
                bounds=Bounds(0, 1),
                options={"mip_rel_gap": 0.0},
            )
        if result.x is None:
            raise QLearnError(f"the integer program was not solved: {result.message}")
        chosen = [max(found, key=lambda choice: float(result.x[column[choice]])) for found in options.values()]
        if fits(chosen):
            return chosen
        taken = np.zeros((1, len(column)))
        taken[0, [column[choice] for choice in chosen]] = 1.0
        constraints.append(LinearConstraint(taken, -np.inf, len(chosen) - 1.0))


def _linear_terms(options: Options, resource: Resource) -> tuple[dict[Choice, int], dict[Pair, int], int]:
    """What each choice uses by itself, what each pair of choices uses together, and what is used anyway."""
    uses = dict.fromkeys((choice for found in options.values() for choice in found), 0)
    shared: dict[Pair, int] = {}
    fixed = resource.fixed
    for term in resource.terms:
        chosen = [slot for slot in dict.fromkeys(term.slots) if slot in options]
        if not chosen:
            fixed += term.amount(resource.base)
        elif len(chosen) == 1:
            for choice in options[chosen[0]]:
                uses[choice] += term.amount({**resource.base, choice.slot: choice.bits})
        else:
            for a in options[chosen[0]]:
                for b in options[chosen[1]]:
                    both = term.amount({**resource.base, a.slot: a.bits, b.slot: b.bits})
                    shared[a, b] = shared.get((a, b), 0) + both
    return uses, shared, fixed


def _equalities(
    options: Options, pairs: Sequence[Pair], column: Columns
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows that make each tensor take one choice, and each z the product of its two x."""
    rows, totals = [], []
    for found in options.values():
        rows.append({column[choice]: 1.0 for choice in found})
        totals.append(1.0)
    partners: dict[tuple[Choice, Slot], list[Pair]] = {}
    for a, b in pairs:
        partners.setdefault((a, b.slot), []).append((a, b))
        partners.setdefault((b, a.slot), []).append((a, b))
    for (choice, _), mine in partners.items():
        rows.append({column[choice]: -1.0, **{column[pair]: 1.0 for pair in mine}})
        totals.append(0.0)
    matrix = np.zeros((len(rows), len(column)))
    for place, row in enumerate(rows):
        matrix[place, list(row)] = list(row.values())
    return matrix, np.array(totals)


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Send to nowhere what C code prints: HiGHS 1.12 now and then writes a line for its developers to file 1.

    In the output of ``--json`` that line would be an error.
    """
    sys.stdout.flush()
    _flush_c()
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            yield
            _flush_c()
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _flush_c() -> None:
    """Flush the buffers of C, where they can be reached; elsewhere (Windows) a line may come late."""
    with contextlib.suppress(TypeError, OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)
