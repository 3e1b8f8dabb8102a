"""Clipped normals against numerical integration and against drawing; moments against pictures."""

import math

import numpy as np
import pytest
import torch

import qlearn as ql
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.moments import clipped_normal, expected_moments

ENDS = [(0.0, math.inf), (0.0, 6.0), (-math.inf, math.inf), (-0.5, 3.0), (0.0, 0.25), (-math.inf, 1.0)]
NORMALS = [(0.0, 1.0), (2.0, 1.0), (-3.0, 0.7), (6.5, 2.0), (100.0, 3.0), (-100.0, 3.0), (1.0, 1e-3), (0.0, 50.0)]


def integrated(mean, std, low, high):
    """Mean and variance by the midpoint rule over ±12 deviations."""
    edges = np.linspace(mean - 12 * std, mean + 12 * std, 400_001)
    z = (edges[1:] + edges[:-1]) / 2
    density = np.exp(-(((z - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))
    weight = density * (edges[1] - edges[0])
    y = np.clip(z, low, high)
    first = float((y * weight).sum())
    return first, float(((y - first) ** 2 * weight).sum())


@pytest.mark.parametrize(("low", "high"), ENDS)
@pytest.mark.parametrize(("mean", "std"), NORMALS)
def test_a_clipped_normal_by_integration(mean, std, low, high):
    first, variance = clipped_normal(torch.tensor(mean), torch.tensor(std), low, high)
    expected = integrated(mean, std, low, high)
    assert float(first) == pytest.approx(expected[0], rel=1e-6, abs=1e-7)
    assert float(variance) == pytest.approx(expected[1], rel=1e-5, abs=1e-6 * max(1.0, mean**2))


@pytest.mark.parametrize(("low", "high"), [(0.0, math.inf), (0.0, 6.0)])
def test_relu_and_relu6_by_drawing(low, high):
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.tensor([-1.0, 0.0, 2.0, 5.0, 9.0]), torch.tensor([1.0, 2.0, 3.0, 1.5, 2.0])
    drawn = (torch.randn(1_000_000, 5, generator=generator) * std + mean).clamp(low, high).double()
    first, variance = clipped_normal(mean, std, low, high)
    standard_error = 5 * variance.sqrt() / 1000
    assert bool(((drawn.mean(0) - first).abs() <= standard_error).all())
    assert torch.allclose(drawn.var(0), variance, rtol=0.02)


def test_a_channel_that_never_moves_is_its_clamped_mean():
    first, variance = clipped_normal(torch.tensor([-1.0, 3.0, 9.0]), torch.zeros(3), 0.0, 6.0)
    assert first.tolist() == [0.0, 3.0, 6.0]
    assert variance.tolist() == [0.0, 0.0, 0.0]


def test_one_pair_of_ends_per_channel():
    high = torch.tensor([1.0, 6.0])
    first, _ = clipped_normal(torch.tensor([2.0, 2.0]), torch.ones(2), 0.0, high)
    for value, end in zip(first.tolist(), high.tolist(), strict=True):
        assert value == pytest.approx(integrated(2.0, 1.0, 0.0, end)[0], rel=1e-6)


@pytest.mark.parametrize("name", ["tiny_resnet", "tiny_mobilenet"])
def test_expected_means_are_near_those_of_pictures(name):
    network, data = ql.load(name)
    fused = fuse_activations(ql.fold_batch_norm(network))
    moments, seen = expected_moments(fused), {}
    x = torch.cat([images for images, _ in data.calibration])
    fused(x, lambda node, value: seen.update({node.name: value.double()}))
    for node in fused.nodes:
        if "bn" not in node.attrs:
            continue
        channels = (0, *range(2, seen[node.name].ndim))
        found, expected = seen[node.name].mean(channels), moments[node.name].mean.mean(channels)
        assert float((found - expected).abs().mean()) < 0.25 * float(seen[node.name].std()), node.name


def test_sums_add_means_and_variances():
    network, _ = ql.load("tiny_resnet")
    fused = fuse_activations(ql.fold_batch_norm(network))
    moments = expected_moments(fused)
    node = next(node for node in fused.nodes if node.op == "add")
    left, right = (moments[name] for name in node.inputs)
    mean, variance = clipped_normal(
        left.mean + right.mean, (left.variance + right.variance).sqrt(), *node.attrs["clamp"]
    )
    assert torch.allclose(moments[node.name].mean, mean)
    assert torch.allclose(moments[node.name].variance, variance)
