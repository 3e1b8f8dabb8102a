"""Distilled pictures: the distance by loops, that it falls, determinism, limits, refusals."""

import math
from dataclasses import replace

import pytest
import torch
from networks import make, pictures
from torch import nn

import qlearn as ql
from qlearn.errors import CalibrationError, GraphError
from qlearn.pipeline.distill import batch_norm_targets, distill_pictures, statistics_distance


@pytest.fixture(scope="module")
def network():
    return ql.load("tiny_mobilenet")[0]


def test_the_distance_by_loops():
    network, x = ql.trace(make("depthwise"), pictures(1)), pictures(3)
    seen = {}
    network(x, lambda node, value: seen.update({node.name: value.double()}))
    total = 0.0
    for node in network.nodes:
        if node.op != "batch_norm":
            continue
        value, p = seen[node.inputs[0]], node.params
        channels = value.shape[1]
        for c in range(channels):
            numbers = value[:, c].flatten().tolist()
            mean = sum(numbers) / len(numbers)
            std = math.sqrt(sum((v - mean) ** 2 for v in numbers) / len(numbers))
            running, variance = float(p["running_mean"][c]), float(p["running_var"][c])
            gap = (mean - running) ** 2 + (std - math.sqrt(variance)) ** 2
            total += gap / (variance + float(node.attrs["eps"])) / channels
    assert float(statistics_distance(network, batch_norm_targets(network), x)) == pytest.approx(total, rel=1e-4)


def test_descent_comes_nearer_than_noise_and_is_repeatable(network):
    before = [value.clone() for node in network.nodes for value in node.params.values()]
    first = distill_pictures(network, 4, iterations=10, learning_rate=0.1, seed=1)
    with torch.no_grad():  # as in a notebook that switched gradients off
        again = distill_pictures(network, 4, iterations=10, learning_rate=0.1, seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, distill_pictures(network, 4, iterations=1, seed=2))
    assert first.shape == (4, *network.input_shape)
    assert first.dtype == torch.float32
    assert not first.requires_grad
    assert -2.0 <= float(first.min()) < float(first.max()) <= 2.0  # pixels of 0 and of 255
    targets = batch_norm_targets(network)
    noise = torch.rand(4, *network.input_shape, generator=torch.Generator().manual_seed(0)) * 4 - 2
    assert float(statistics_distance(network, targets, first)) < 0.5 * float(
        statistics_distance(network, targets, noise)
    )
    after = [value for node in network.nodes for value in node.params.values()]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_pictures_are_made_batch_by_batch(network):
    assert len(distill_pictures(network, 5, iterations=1, batch_size=2)) == 5


def test_a_folded_network_has_the_statistics_too(network):
    folded = ql.fold_batch_norm(network)
    fused = ql.fuse_activations(folded)
    x = pictures(4, size=32)
    distances = [float(statistics_distance(one, batch_norm_targets(one), x)) for one in (folded, fused)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-5)  # before the fused clamp
    made = distill_pictures(folded, 4, iterations=8, learning_rate=0.1)
    assert float(statistics_distance(folded, batch_norm_targets(folded), made)) < distances[0]


def test_what_cannot_be_distilled_is_refused(network):
    bare = ql.trace(make("mixed"), pictures(1))
    with pytest.raises(GraphError, match="nothing says what pictures should look like"):
        distill_pictures(bare, 2)
    with pytest.raises(GraphError, match="takes a traced network"):
        distill_pictures(nn.ReLU(), 2)
    for name in ("count", "iterations", "batch_size"):
        for wrong in (0, 1.5, True):
            with pytest.raises(CalibrationError, match=f"{name} is a whole number"):
                distill_pictures(network, **({"count": 2} | {name: wrong}))
    with pytest.raises(CalibrationError, match="learning_rate"):
        distill_pictures(network, 2, learning_rate=-1.0)
    conv = network.nodes[1]
    broken = network.with_nodes(
        replace(node, params={"weight": node.params["weight"] * math.nan}) if node is conv else node
        for node in network.nodes
    )
    with pytest.raises(CalibrationError, match="a weight or a statistic is NaN"):
        distill_pictures(broken, 2, iterations=2)
