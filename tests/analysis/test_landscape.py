"""The loss landscape against losses that are computed point by point with the user's own module."""

import copy
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import make, pictures
from quantized_networks import FOUR_BITS, quantized_network

import qlearn as ql
from qlearn.analysis.directions import random_direction
from qlearn.errors import DataError, GraphError

X = pictures(12, seed=3)
LABELS = torch.arange(12) % 5
DATA = [(X[:5], LABELS[:5]), (X[5:], LABELS[5:])]


def loss_of(network):
    return float(F.cross_entropy(network(X).double(), LABELS))


def shifted(net, directions, amounts):
    """The network with weights moved by hand, in float64 sums of float32 tensors."""
    nodes = []
    for node in net.nodes:
        params = dict(node.params)
        if "weight" in params:
            for direction, amount in zip(directions, amounts, strict=True):
                params["weight"] = params["weight"] + amount * direction[node.name]
        new = copy.copy(node)
        object.__setattr__(new, "params", params)
        nodes.append(new)
    return net.with_nodes(nodes)


def test_every_point_by_hand():
    net, quantized = quantized_network("residual", FOUR_BITS)
    before = {node.name: node.params.get("weight", torch.zeros(1)).clone() for node in net.nodes}
    plane = ql.loss_landscape(net, DATA, quantized=quantized, points=3, span=0.5, seed=7)
    generator = torch.Generator().manual_seed(7)
    centre = {node.name: node.params["weight"] for node in net.nodes if "weight" in node.params}
    directions = [random_direction(centre, generator), random_direction(centre, generator)]
    for i, first in enumerate((-0.5, 0.0, 0.5)):
        for j, second in enumerate((-0.5, 0.0, 0.5)):
            assert plane.loss[i, j] == pytest.approx(loss_of(shifted(net, directions, (first, second))), rel=1e-4)
    assert plane.images == 12
    assert plane.float_loss == plane.loss[1, 1] == pytest.approx(loss_of(net))
    assert plane.quantized_loss == pytest.approx(loss_of(quantized), rel=1e-4)
    assert all(torch.equal(node.params.get("weight", torch.zeros(1)), before[node.name]) for node in net.nodes)


def test_the_direction_of_quantization_ends_at_the_quantized_weights():
    net, quantized = quantized_network("residual", FOUR_BITS)
    line = ql.loss_landscape(net, DATA, quantized=quantized, first="quantization", dimensions=1, points=5)
    weights_only = ql.quantize_model(net, ql.Recipe(activations=None, weights=FOUR_BITS.weights), {})
    assert line.loss[-1] == pytest.approx(loss_of(weights_only), rel=1e-3)
    assert line.loss[2] == line.float_loss
    assert line.quantized_at == pytest.approx((1.0,))
    assert line.quantized_in_plane == pytest.approx(1.0)
    random = ql.loss_landscape(net, DATA, quantized=quantized, points=2)
    assert random.quantized_in_plane < 0.2  # a random plane hardly sees it
    difference = {
        layer.node.name: ql.dequantize(layer.weight, layer.weight_qparams) - layer.node.params["weight"]
        for layer in quantized.layers
        if layer.weight is not None
    }
    target = torch.cat([d.flatten() for d in difference.values()]).double()
    generator = torch.Generator().manual_seed(0)
    centre = {layer.node.name: layer.node.params["weight"] for layer in quantized.layers if layer.weight is not None}
    rows = [torch.cat([d.flatten() for d in random_direction(centre, generator).values()]).double() for _ in range(2)]
    gram = torch.tensor([[float(a @ b) for b in rows] for a in rows], dtype=torch.float64)
    expected = torch.linalg.solve(gram, torch.stack([row @ target for row in rows]))
    assert random.quantized_at == pytest.approx(expected.tolist())


def test_quantized_weights_at_every_point():
    net, _ = quantized_network("residual")
    recipe = ql.TensorRecipe(scheme="symmetric_restricted", bits=2)
    line = ql.loss_landscape(net, DATA, dimensions=1, points=3, weights=recipe)
    weights_only = ql.quantize_model(net, ql.Recipe(activations=None, weights=recipe), {})
    assert line.loss[1] == pytest.approx(loss_of(weights_only), rel=1e-3)
    assert line.float_loss == pytest.approx(loss_of(net))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(4, 3, 3, 3), (5, 1, 3, 3), (3, 7), (1, 1)]))
def test_directions_are_as_large_as_the_filters(seed, shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    weight[0] = 0.0
    direction = random_direction({"a": weight}, torch.Generator().manual_seed(seed + 1))["a"]
    for mine, theirs in zip(direction, weight, strict=True):
        assert float(mine.norm()) == pytest.approx(float(theirs.norm()), rel=1e-5)
    again = random_direction({"a": weight}, torch.Generator().manual_seed(seed + 1))["a"]
    assert torch.equal(direction, again)


def test_a_seed_gives_the_same_landscape_and_another_seed_another():
    net, _ = quantized_network("depthwise")
    maps = [ql.loss_landscape(net, DATA, dimensions=1, points=3, seed=seed).loss for seed in (1, 1, 2)]
    assert np.array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])


def test_what_overflows_is_infinite():
    net, _ = quantized_network("residual")
    line = ql.loss_landscape(net, DATA, dimensions=1, points=3, span=1e25)
    assert line.loss[0] == line.loss[2] == math.inf
    fields = json.loads(json.dumps(line.to_dict(), allow_nan=False))
    assert fields["loss"][0] is None
    assert fields["loss"][1] == line.float_loss
    assert "Landscape of residual: 3 points" in repr(line)
    plane = ql.loss_landscape(net, DATA, points=2).to_dict()
    assert [len(row) for row in plane["loss"]] == [2, 2]


def test_what_does_not_fit_is_refused():
    net, quantized = quantized_network("residual")
    for wrong, message in {
        "dimensions": (3, "dimensions is 1"),
        "points": (1, "points must be at least 2"),
        "span": (0.0, "span must be finite"),
        "first": ("up", "first is 'random' or"),
    }.items():
        with pytest.raises(DataError, match=message[1]):
            ql.loss_landscape(net, DATA, **{wrong: message[0]})
    with pytest.raises(DataError, match="span must be finite"):
        ql.loss_landscape(net, DATA, span=math.nan)
    with pytest.raises(DataError, match="needs quantized="):
        ql.loss_landscape(net, DATA, first="quantization")
    with pytest.raises(DataError, match="a loss needs labels"):
        ql.loss_landscape(net, [X])
    with pytest.raises(DataError, match="no pictures"):
        ql.loss_landscape(net, [])
    with pytest.raises(DataError, match=r"labels of shape \(3,\)"):
        ql.loss_landscape(net, [(X, LABELS[:3])])
    with pytest.raises(DataError, match="labels 99 to 99"):
        ql.loss_landscape(net, [(X[:1], torch.tensor([99]))])
    with pytest.raises(GraphError, match="fold its batch norms"):
        ql.loss_landscape(ql.trace(make("residual"), X[:1]), DATA)
    with pytest.raises(GraphError, match="no weights to move"):
        ql.loss_landscape(ql.trace(torch.nn.Flatten(), X[:1]), DATA)
    other, _ = quantized_network("depthwise")
    with pytest.raises(GraphError, match="has other layers"):
        ql.loss_landscape(other, DATA, quantized=quantized)
