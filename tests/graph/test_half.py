"""Weights in float16 against NumPy's own."""

import numpy as np
import pytest
import torch
from networks import make, pictures

import qlearn as ql
from qlearn.errors import GraphError
from qlearn.graph.half import round_to_float16


def test_numbers_are_numpys_halves_and_nothing_else_changes():
    network = ql.fold_batch_norm(ql.trace(make("residual"), pictures(1)))
    chosen = next(node.name for node in network.nodes if node.op == "conv2d")
    half = round_to_float16(network, [chosen])
    for before, after in zip(network.nodes, half.nodes, strict=True):
        for key, value in before.params.items():
            wanted = value.numpy().astype(np.float16).astype(np.float32) if before.name == chosen else value.numpy()
            assert np.array_equal(after.params[key].numpy(), wanted)
    everywhere = round_to_float16(network)
    assert ql.sqnr_db(network(pictures(4)).numpy(), everywhere(pictures(4)).numpy()) > 55


def test_a_layer_in_float16_among_integer_layers():
    network = ql.fold_batch_norm(ql.trace(make("residual"), pictures(1)))
    names = [node.name for node in network.nodes if node.op == "conv2d"]
    recipe = ql.Recipe().with_layer(names[0], weights=None, activations=None)
    half = round_to_float16(network, names[:1])
    quantized = ql.quantize_model(half, recipe, ql.calibrate(half, [pictures(8)], recipe))
    layer = next(one for one in quantized.layers if one.node.name == names[0])
    assert layer.weight is None
    assert torch.equal(layer.node.params["weight"], half.node(names[0]).params["weight"])
    assert torch.isfinite(quantized(pictures(4))).all()


@pytest.mark.parametrize("value", [1e5, float("inf"), float("nan")])
def test_what_does_not_fit_is_refused_by_name(value):
    network = ql.trace(torch.nn.Sequential(torch.nn.Linear(1, 1)), torch.zeros(1, 1))
    network = network.with_nodes(
        node.with_params(weight=torch.full((1, 1), value)) if node.name == "0" else node for node in network.nodes
    )
    with pytest.raises(GraphError, match="weight of '0'"):
        round_to_float16(network)
    with pytest.raises(GraphError, match="no node 'nope'"):
        round_to_float16(network, ["nope"])
