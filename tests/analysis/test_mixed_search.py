"""Searches over bits against trying everything, and against each other."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qlearn.analysis.mixed_precision import Choice, Resource, Term, pareto_front, search_bits
from qlearn.errors import MissingDependencyError, RecipeError

pytest.importorskip("scipy")


def everything(costs, resource):
    """All allocations: (usage, cost, choices)."""
    slots = {}
    for choice in costs:
        slots.setdefault((choice.layer, choice.tensor), []).append(choice)
    for chosen in itertools.product(*slots.values()):
        yield resource.usage(chosen), math.fsum(costs[choice] for choice in chosen), chosen


def bytes_problem(sizes, bits, cost_of):
    costs = {Choice(f"l{i}", "weights", b): cost_of(i, b) for i in range(len(sizes)) for b in bits}
    terms = tuple(Term(size, ((f"l{i}", "weights"),), 8) for i, size in enumerate(sizes))
    base = {(f"l{i}", "weights"): 8 for i in range(len(sizes))}
    return costs, Resource("weight bytes", "bytes", terms, base, fixed=17)


problems = st.tuples(
    st.lists(st.integers(1, 5000), min_size=1, max_size=8),
    st.sampled_from([(2, 4, 8), (2, 3, 8), (4, 8)]),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["falling", "any", "ties", "negative"]),
)


def drawn(problem):
    sizes, bits, level, seed, kind = problem
    rng = np.random.default_rng(seed)
    costs, resource = bytes_problem(sizes, bits, lambda i, b: 0.0)
    for choice in costs:
        falling = 10 ** rng.uniform(-3, 1) * 4.0**-choice.bits
        made = {"falling": falling, "any": rng.uniform(), "ties": float(rng.integers(0, 3)), "negative": rng.normal()}
        costs[choice] = float(made[kind])
    used = [usage for usage, _, _ in everything(costs, resource)]
    return costs, resource, int(min(used) + level * (max(used) - min(used)))


@settings(max_examples=60, deadline=None)
@given(problems)
def test_the_program_is_as_good_as_trying_everything(problem):
    costs, resource, budget = drawn(problem)
    found = search_bits(costs, resource, budget)
    within = [(cost, -usage) for usage, cost, _ in everything(costs, resource) if usage <= budget]
    best, fullest = min(within)
    largest = max(abs(cost) for cost in costs.values()) or 1.0
    assert found.usage <= budget
    assert found.usage == resource.usage(found.choices)
    assert found.cost == math.fsum(costs[choice] for choice in found.choices)
    assert found.cost <= best + 1e-9 * largest
    if all(cost == int(cost) for cost in costs.values()):  # exact ties: the fullest of them
        assert found.usage == -fullest


@settings(max_examples=60, deadline=None)
@given(problems)
def test_the_front_is_what_is_left_of_everything(problem):
    costs, resource, _ = drawn(problem)
    front = pareto_front(costs, resource)
    points = sorted({(usage, cost) for usage, cost, _ in everything(costs, resource)})
    kept, lowest = [], math.inf
    for usage, cost in points:
        if cost < lowest - 1e-12:
            kept.append((usage, cost))
            lowest = cost
    assert front.usage.tolist() == [usage for usage, _ in kept]
    np.testing.assert_allclose(front.cost, [cost for _, cost in kept], rtol=1e-9, atol=1e-12)
    for place in (0, len(front) - 1):
        assert resource.usage(front[place].choices) == front[place].usage


@settings(max_examples=40, deadline=None)
@given(problems)
def test_greedy_stays_within_the_budget_and_never_beats_the_program(problem):
    costs, resource, budget = drawn(problem)
    greedy = search_bits(costs, resource, budget, method="greedy")
    assert greedy.usage <= budget
    assert sorted(choice.layer for choice in greedy.choices) == sorted({choice.layer for choice in costs})
    largest = max(abs(cost) for cost in costs.values())
    assert search_bits(costs, resource, budget).cost <= greedy.cost + 1e-9 * (largest or 1.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.floats(0, 1), st.integers(0, 2**32 - 1))
@example(2, 0.9999999999999999, 1)  # HiGHS gives up with its presolve
@example(2, 0.9999999999999999, 168)  # ... and calls the second program infeasible, one byte below the largest usage
@example(3, 0.9999999999999999, 253)
@example(2, 0.9999999999999999, 59)  # HiGHS calls a poor answer optimal where z may be continuous
def test_bits_that_multiply(layers, level, seed):
    """Bit-operations with both weights and activations to choose; two layers read the first output."""
    rng = np.random.default_rng(seed)
    source = [0, *rng.integers(0, np.arange(1, layers)).tolist()]
    costs, base, terms = {}, {}, []
    for i in range(layers):
        for tensor, widths in (("weights", (2, 4, 8)), ("activations", (4, 8, 16)[: rng.integers(1, 4)])):
            base[f"l{i}", tensor] = 8
            for b in widths:
                costs[Choice(f"l{i}", tensor, b)] = float(rng.uniform() * 2.0**-b)
        slots = ((f"l{i}", "weights"), (f"l{source[i]}", "activations"))
        terms.append(Term(int(rng.integers(1, 10**7)), slots))
    base["x", "activations"] = base["w", "weights"] = 8
    terms.append(Term(1000, (("w", "weights"), ("x", "activations"))))  # not chosen: fixed
    resource = Resource("bit-operations", "BOPs", tuple(terms), base)
    used = [usage for usage, _, _ in everything(costs, resource)]
    budget = int(min(used) + level * (max(used) - min(used)))
    found = search_bits(costs, resource, budget)
    best = min(cost for usage, cost, _ in everything(costs, resource) if usage <= budget)
    assert found.usage <= budget
    assert found.cost <= best + 1e-9
    assert search_bits(costs, resource, budget, method="greedy").usage <= budget
    with pytest.raises(RecipeError, match="their bits multiply"):
        pareto_front(costs, resource)


@pytest.mark.parametrize("seed", range(6))
def test_program_and_front_agree_on_a_large_network(seed):
    """22 layers of 7 widths cannot be tried out; two ways that share nothing find the same number."""
    rng = np.random.default_rng(seed)
    hurts = 10 ** rng.uniform(-2, 1, 22)
    costs, resource = bytes_problem(
        rng.integers(100, 40000, 22).tolist(),
        range(2, 9),
        lambda i, b: float(hurts[i] * 4.0**-b * rng.uniform(0.7, 1.3)),
    )
    front = pareto_front(costs, resource)
    assert len(front) > 300
    assert (np.diff(front.usage) > 0).all()
    assert (np.diff(front.cost) < 0).all()
    for share in (0.1, 0.3, 0.6, 0.9):
        budget = int(front.usage[0] + share * (front.usage[-1] - front.usage[0]))
        best = front[int(np.searchsorted(front.usage, budget, side="right")) - 1]
        assert search_bits(costs, resource, budget).cost == pytest.approx(best.cost, rel=1e-9)
    some = front.thinned(10)
    assert len(some) == 10
    assert (some[0].usage, some[-1].usage) == (front.usage[0], front.usage[-1])


COSTS, RESOURCE = bytes_problem([100, 300], (2, 4, 8), lambda i, b: (i + 1) / b)


@pytest.mark.parametrize("method", ["program", "greedy"])
def test_a_budget_that_cannot_be_met_names_the_smallest(method):
    smallest = 17 + 100 * 2 // 8 + 300 * 2 // 8
    with pytest.raises(RecipeError, match=f"it takes {smallest} bytes"):
        search_bits(COSTS, RESOURCE, smallest - 1, method=method)
    assert search_bits(COSTS, RESOURCE, smallest, method=method).bits() == {"l0": 2, "l1": 2}
    assert search_bits(COSTS, RESOURCE, 10**12, method=method).bits() == {"l0": 8, "l1": 8}


def test_greedy_takes_the_most_bits_of_what_costs_the_same():
    """Where no choice of the widths hurts, steps of one bit are enough; the first layer is not starved."""
    free, resource = bytes_problem([800, 800], range(2, 9), lambda i, b: 0.0)
    for budget in range(resource.usage(Choice(f"l{i}", "weights", 2) for i in (0, 1)), 1700, 100):
        found = search_bits(free, resource, budget, method="greedy")
        fullest = max(usage for usage, _, _ in everything(free, resource) if usage <= budget)
        assert found.usage == fullest
        first, second = found.bits().values()
        assert abs(first - second) <= 1
    assert search_bits(free, resource, 10**6, method="greedy").bits() == {"l0": 8, "l1": 8}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_costs_are_refused(bad):
    with pytest.raises(RecipeError, match="finite"):
        search_bits({**COSTS, Choice("l0", "weights", 3): bad}, RESOURCE, 10**6)
    with pytest.raises(RecipeError, match="nothing to choose"):
        search_bits({}, RESOURCE, 10**6)
    with pytest.raises(RecipeError, match="no weights of 'l7'"):
        search_bits({Choice("l7", "weights", 3): 1.0}, RESOURCE, 10**6)
    with pytest.raises(RecipeError, match="no search 'magic'"):
        search_bits(COSTS, RESOURCE, 10**6, method="magic")
    with pytest.raises(RecipeError, match="the budget is"):
        search_bits(COSTS, RESOURCE, abs(bad), method="greedy")  # type: ignore[arg-type]


def test_without_scipy_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MissingDependencyError, match=r"qlearn\[mixed\]"):
        search_bits(COSTS, RESOURCE, 10**6)
    assert search_bits(COSTS, RESOURCE, 10**6, method="greedy").usage > 0


def test_the_solver_prints_nothing():
    """HiGHS now and then writes a line for its developers to file 1; it must not reach a JSON document."""
    program = (
        "import ctypes, os, sys\n"
        "import scipy.optimize\n"
        "from qlearn.analysis.mixed_precision import Choice, Resource, Term, search_bits\n"
        "solve = scipy.optimize.milp\n"
        "def noisy(*args, **kwargs):\n"
        "    os.write(1, b'from a system call')\n"
        "    if sys.platform != 'win32':\n"
        "        ctypes.CDLL(None).puts(b'from a buffer of C')\n"
        "    return solve(*args, **kwargs)\n"
        "scipy.optimize.milp = noisy\n"
        "print('before')\n"
        "resource = Resource('w', 'bytes', (Term(8, (('a', 'weights'),), 8),), {('a', 'weights'): 8})\n"
        "found = search_bits({Choice('a', 'weights', bits): 1 / bits for bits in (2, 4)}, resource, 3)\n"
        "print(found.bits())\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "before\n{'a': 2}\n"
