"""The rounding of one layer: against brute force over all roundings, and against plain loops."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlearn.repair.rounding import BETAS, WARM_UP, RoundingProblem, _push, few_enough, flip, learn, least, try_all

RELU = (0.0, float("inf"))
RELU6 = (0.0, 6.0)
SETTINGS = {"iterations": 200, "regularization": 0.3, "learning_rate": 0.1}


def problem(seed=0, groups=1, outputs=2, inputs=6, positions=400, clamp=None, correlated=True, shrinkage=0.0):
    """A random layer, its inputs correlated as those of a network are, and quantized inputs that are a little off."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(groups, inputs, inputs, generator=g) if correlated else torch.eye(inputs).repeat(groups, 1, 1)
    exact = torch.relu(torch.randn(groups, positions, inputs, generator=g) @ mix)
    weight = torch.randn(groups, outputs, inputs, generator=g)
    bias = 0.2 * torch.randn(groups, 1, outputs, generator=g)
    scale = weight.abs().amax(dim=2, keepdim=True) / 3
    steps = weight / scale
    floor = torch.floor(steps).clamp(-3, 3)
    freedom = (torch.floor(steps) + 1).clamp(-3, 3) - floor
    limits = None if clamp is None else tuple(torch.full_like(bias, limit) for limit in clamp)
    return RoundingProblem(
        inputs=exact + 0.02 * torch.randn(exact.shape, generator=g),
        targets=torch.baddbmm(bias, exact, weight.transpose(1, 2)),
        bias=bias,
        limits=limits,
        scale=scale,
        floor=floor,
        freedom=freedom,
        fraction=(steps - floor).clamp(0, 1),
        nearest=((steps - floor).round() * freedom).clamp(0, 1),
        shrinkage=shrinkage,
    )


def solved(p):
    """What `adaround` does with a problem that is too large to try all roundings."""
    learned = learn(p, **SETTINGS)
    return least(p, [p.nearest, learned, flip(p, p.nearest), flip(p, learned)])


def brute_force(p):
    """The least error of every channel over all roundings, in float64 and plain loops, shape (G, M)."""
    groups, outputs = p.floor.shape[:2]
    best = np.full((groups, outputs), np.inf)
    for g, m in itertools.product(range(groups), range(outputs)):
        x, target = p.inputs[g].double().numpy(), p.targets[g, :, m].double().numpy()
        low, high = (-np.inf, np.inf) if p.limits is None else (float(limit[g, 0, m]) for limit in p.limits)
        free = np.flatnonzero(p.freedom[g, m].numpy())
        for choice in itertools.product((0.0, 1.0), repeat=len(free)):
            codes = p.floor[g, m].double().numpy().copy()
            codes[free] += choice
            made = x @ (codes * float(p.scale[g, m, 0])) + float(p.bias[g, 0, m])
            error = np.mean((np.clip(made, low, high) - np.clip(target, low, high)) ** 2)
            best[g, m] = min(best[g, m], error)
    return best


SIZES = [(1, 1, 12), (1, 2, 6), (4, 1, 3), (2, 2, 3)]


@pytest.mark.parametrize("clamp", [None, RELU, RELU6])
def test_the_error_is_close_to_the_best_of_all_roundings(clamp):
    """The bound: on average at most 1.15 times the optimum, never over 2 times; and below nearest rounding."""
    ratios, below_nearest = [], []
    for size, seed in itertools.product(SIZES, range(6)):
        p = problem(seed, *size, clamp=clamp)
        found, best = float(p.error(solved(p)).sum()), float(brute_force(p).sum())
        ratios.append(found / best)
        below_nearest.append(found / float(p.error(p.nearest).sum()))
    assert min(ratios) >= 1 - 1e-4  # brute force is a bound
    assert max(ratios) <= 2
    assert np.mean(ratios) <= 1.15
    assert max(below_nearest) <= 1
    assert np.mean(below_nearest) <= 0.9


@pytest.mark.parametrize("size", [*SIZES, (3, 1, 1), (1, 1, 9)], ids=str)
def test_trying_all_finds_the_best_before_the_clamp(size):
    for seed in range(4):
        p = problem(seed, *size)
        assert few_enough(p)
        assert float(p.error(try_all(p)).sum()) == pytest.approx(float(brute_force(p).sum()), rel=1e-3)


def test_large_layers_are_not_tried():
    assert not few_enough(problem(0, 1, 1, 13, 4))
    assert few_enough(problem(0, 1024, 1, 9, 2))
    assert not few_enough(problem(0, 1, 400, 12, 2))


@pytest.mark.parametrize("clamp", [None, RELU6])
def test_learning_alone_beats_rounding_to_nearest(clamp):
    errors = [(p.error(learn(p, **SETTINGS)).sum(), p.error(p.nearest).sum()) for p in
              (problem(seed, 1, 4, 24, 2000, clamp) for seed in range(3))]  # fmt: skip
    assert all(learned < nearest for learned, nearest in errors)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    groups=st.integers(1, 3),
    outputs=st.integers(1, 3),
    inputs=st.integers(1, 9),
    positions=st.integers(1, 60),
    clamp=st.sampled_from([None, RELU, RELU6]),
    shrinkage=st.sampled_from([0.0, 0.5, 10.0]),
)
def test_no_channel_is_worse_than_rounded_to_nearest(seed, groups, outputs, inputs, positions, clamp, shrinkage):
    p = problem(seed, groups, outputs, inputs, positions, clamp, shrinkage=shrinkage)
    up = solved(p)
    assert set(up.unique().tolist()) <= {0.0, 1.0}
    assert (p.error(up) <= p.error(p.nearest)).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), inputs=st.integers(1, 10), start=st.integers(0, 1))
def test_after_the_flips_no_single_flip_lowers_the_error(seed, inputs, start):
    p = problem(seed, 2, 2, inputs)
    up = flip(p, torch.full_like(p.floor, start))
    error = p.error(up)
    for k in range(inputs):
        other = up.clone()
        other[..., k] = 1 - other[..., k]
        assert (p.error(other) >= error * (1 - 1e-3)).all()
    assert (error <= p.error(torch.full_like(p.floor, start)) * (1 + 1e-5)).all()


@pytest.mark.parametrize("shrinkage", [0.0, 0.5])
@pytest.mark.parametrize("clamp", [None, RELU, RELU6])
def test_the_gradient_is_that_of_the_cost(clamp, shrinkage):
    p = problem(3, 2, 3, 5, 64, clamp, shrinkage=shrinkage)
    weight = p.weight(torch.rand(p.floor.shape, generator=torch.Generator().manual_seed(1))).double().requires_grad_()
    made = torch.baddbmm(p.bias.double(), p.inputs.double(), weight.transpose(1, 2))
    target = p.targets.double()
    if clamp is not None:
        made, target = made.clamp(*clamp), target.clamp(*clamp)
    power = p.inputs.double().square().mean(dim=(1, 2))[:, None, None]
    pull = shrinkage * 5 / 64 * power * (weight - p.weight(p.fraction).double()).square()
    cost = (made - target).square().mean(dim=1) + pull.sum(dim=2)
    assert torch.allclose(p.error(p.nearest), p.cost(p.nearest)) == (shrinkage == 0)
    cost.sum().backward()
    found = p.gradient(weight.detach().float(), slice(None))
    assert torch.allclose(found.double(), weight.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("done", [0.0, 0.1, 0.2, 0.5, 0.9, 1.0])
def test_the_regularization_is_the_gradient_of_the_paper_formula(done):
    h = torch.linspace(0.01, 0.99, 25, dtype=torch.float64, requires_grad=True)
    if done < WARM_UP:
        assert _push(h, done) == 0
        return
    beta = BETAS[0] - (BETAS[0] - BETAS[1]) * (done - WARM_UP) / (1 - WARM_UP)
    (1 - (2 * h - 1).abs() ** beta).sum().backward()
    assert torch.allclose(_push(h.detach(), done), h.grad, atol=1e-9)


def test_rounding_does_not_depend_on_the_size_of_the_numbers():
    p = problem(5, 1, 4, 20, 2000, RELU)
    factor = 2.0**20
    big = replace(p, inputs=p.inputs * factor, targets=p.targets * factor, bias=p.bias * factor)
    assert torch.equal(learn(p, **SETTINGS), learn(big, **SETTINGS))
    assert torch.equal(flip(p, p.nearest), flip(big, p.nearest))


def test_weights_at_the_border_never_leave_it():
    p = problem(1, 1, 3, 12)
    top = replace(p, floor=torch.where(p.floor > 1, 3.0, p.floor), freedom=torch.where(p.floor > 1, 0.0, p.freedom))
    assert (top.freedom == 0).any()
    for up in solved(top), try_all(top):
        steps = top.floor + top.freedom * up
        assert steps.max() == 3
    steps = p.floor + p.freedom * solved(p)
    assert steps.min() >= -3
    assert steps.max() <= 3


def test_uncorrelated_inputs_leave_little_to_gain():
    """Without correlations and with mean 0, errors do not add up: nearest is the optimum, and is kept."""
    p = problem(2, 1, 2, 5, 20_000, correlated=False)
    centred = torch.randn(1, 20_000, 5, generator=torch.Generator().manual_seed(3))
    weight = p.scale * (p.floor + p.fraction)
    p = replace(p, inputs=centred, targets=torch.baddbmm(p.bias, centred, weight.transpose(1, 2)))
    assert torch.equal(flip(p, p.nearest), p.nearest)


@pytest.mark.parametrize("clamp", [None, RELU])
def test_few_positions_are_not_learned_by_heart(clamp):
    """With fewer positions than weights the error there says little about others: shrinkage keeps that in check."""
    held_out = {}
    for shrinkage in (0.0, 0.5):
        many = problem(0, 1, 16, 64, 3000, clamp, shrinkage=shrinkage)
        few = replace(many, inputs=many.inputs[:, :50], targets=many.targets[:, :50])
        others = replace(many, inputs=many.inputs[:, 50:], targets=many.targets[:, 50:])
        held_out[shrinkage] = float(others.error(solved(few)).sum() / others.error(others.nearest).sum())
    assert held_out[0.5] < held_out[0.0]
    assert held_out[0.5] < 0.95
