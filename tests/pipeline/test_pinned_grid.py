"""Weights that were learned on a grid keep it: the codes are those that were learned, or someone is told."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import make, pictures
from torch import nn

import qlearn as ql
from qlearn.errors import GraphError, GridWarning, RecipeError

PER_CHANNEL = ql.TensorRecipe(scheme="symmetric_restricted", granularity="per_channel", bits=4)


def pin(network, name, codes, qparams):
    """Return the network with the weights of one layer on a grid."""
    weight = ql.dequantize(codes, qparams)
    return network.with_nodes(
        node.with_params(weight=weight).with_attrs(weight_qparams=qparams) if node.name == name else node
        for node in network.nodes
    )


def pinned_network(weights, seed=0, name="conv1"):
    """A network whose convolution has random codes of the grid that a recipe asks for, far from the calibrated one."""
    network = ql.fold_batch_norm(ql.trace(make("residual"), pictures(1)))
    target = ql.scheme(weights.scheme, bits=weights.bits, signed=weights.signed)
    shape = network.node(name).params["weight"].shape
    rng = np.random.default_rng(seed)
    size = () if weights.granularity == "per_tensor" else shape[:1]
    scale = rng.uniform(0.01, 0.03, size)
    zero = np.zeros(size, int) if target.symmetric else rng.integers(target.qmin, target.qmax + 1, size)
    qparams = ql.QParams(scale, zero, target.qmin, target.qmax, 0 if size else None)
    codes = rng.integers(target.qmin, target.qmax + 1, shape)
    return pin(network, name, codes, qparams), codes, qparams


@settings(max_examples=40, deadline=None)
@given(
    scheme=st.sampled_from(["symmetric", "symmetric_restricted", "affine"]),
    granularity=st.sampled_from(["per_tensor", "per_channel"]),
    bits=st.integers(2, 16),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_codes_are_exactly_those_that_were_learned(scheme, granularity, bits, seed):
    weights = ql.TensorRecipe(scheme=scheme, granularity=granularity, bits=bits)
    recipe = ql.Recipe(weights=weights)
    network, codes, qparams = pinned_network(weights, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = ql.quantize_model(network, recipe, ql.calibrate(network, [pictures(4)], recipe))
    layer = next(layer for layer in model.layers if layer.node.name == "conv1")
    assert layer.weight_qparams == qparams
    assert np.array_equal(layer.weight, codes)
    calibrated = next(layer for layer in model.layers if layer.node.name == "conv2")
    assert calibrated.weight_qparams != qparams


def test_a_pinned_network_goes_through_integers_and_files():
    network, codes, qparams = pinned_network(PER_CHANNEL)
    recipe, x = ql.Recipe(weights=PER_CHANNEL), pictures(4)
    model = ql.quantize_model(network, recipe, ql.calibrate(network, [x], recipe))
    integer = model.to_integer("float32")
    assert "weight_qparams" not in integer.layer("conv1").attrs
    assert np.array_equal(integer.layer("conv1").weight, codes)
    assert integer.layer("conv1").weight_qparams == qparams
    assert np.array_equal(model(x).numpy(), integer(x.numpy()))


def test_a_file_of_a_pinned_network_gives_the_same_integers(tmp_path):
    network, codes, _ = pinned_network(PER_CHANNEL)
    recipe, x = ql.Recipe(weights=PER_CHANNEL), pictures(4).numpy()
    integer = ql.quantize_model(network, recipe, ql.calibrate(network, [pictures(4)], recipe)).to_integer()
    integer.save(tmp_path / "net.qlearn")
    loaded = ql.IntegerModel.load(tmp_path / "net.qlearn")
    assert np.array_equal(loaded.layer("conv1").weight, codes)
    assert np.array_equal(loaded(x), integer(x))


def test_float_weights_stay_the_real_numbers_of_the_grid():
    network, codes, qparams = pinned_network(PER_CHANNEL)
    recipe, x = ql.Recipe(weights=None), pictures(4)
    model = ql.quantize_model(network, recipe, ql.calibrate(network, [x], recipe))
    layer = next(layer for layer in model.layers if layer.node.name == "conv1")
    assert layer.weight is None
    assert torch.equal(layer.node.params["weight"], ql.dequantize(codes, qparams))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"bits": 8}, r"pinned grid of integers -7 to 7, per_channel, but the recipe asks for -127 to 127"),
        ({"granularity": "per_tensor"}, r"asks for -7 to 7, per_tensor with zero point 0 \(symmetric_restricted, 4"),
        ({"scheme": "symmetric"}, r"asks for -8 to 7, per_channel"),
    ],
)
def test_a_recipe_that_contradicts_the_grid_is_refused_with_the_layer(other, message):
    network, _, _ = pinned_network(PER_CHANNEL)
    choice = {"scheme": "symmetric_restricted", "granularity": "per_channel", "bits": 4} | other
    recipe = ql.Recipe(weights=ql.TensorRecipe(**choice))
    table = ql.calibrate(network, [pictures(4)], recipe)
    with pytest.raises(RecipeError, match=message) as caught:
        ql.quantize_model(network, recipe, table)
    assert "layer 'conv1'" in " ".join(caught.value.__notes__)


def quantized(network, weights=PER_CHANNEL):
    recipe = ql.Recipe(weights=weights)
    return ql.quantize_model(network, recipe, ql.calibrate(network, [pictures(4)], recipe))


def test_zero_points_wrong_shapes_and_wrong_types_are_refused():
    affine = ql.TensorRecipe(scheme="affine", granularity="per_channel", bits=4)
    network, _, qparams = pinned_network(affine)
    with pytest.raises(RecipeError, match="with zero point 0"):
        quantized(network, ql.TensorRecipe(scheme="symmetric", granularity="per_channel", bits=4))
    short = ql.QParams(qparams.scale[:3], qparams.zero_point[:3], -8, 7, 0)
    sideways = ql.QParams(qparams.scale[:3], qparams.zero_point[:3], -8, 7, 1)
    for wrong in (short, sideways):
        nodes = [node.with_attrs(weight_qparams=wrong) if node.name == "conv1" else node for node in network.nodes]
        with pytest.raises(RecipeError, match=r"3 scales along axis [01], the weights have 7"):
            quantized(network.with_nodes(nodes), affine)
    nodes = [node.with_attrs(weight_qparams=0.1) if node.name == "conv1" else node for node in network.nodes]
    with pytest.raises(RecipeError, match="by QParams, got float"):
        quantized(network.with_nodes(nodes), affine)


@pytest.mark.parametrize("change", [0.4, 100.0, float("nan"), float("inf")])
def test_weights_that_left_their_grid_are_noticed(change):
    network, _, qparams = pinned_network(PER_CHANNEL)
    weight = network.node("conv1").params["weight"].clone()
    weight[0, 0, 0, 0] += change * float(qparams.scale[0])
    params = {**network.node("conv1").params, "weight": weight}
    nodes = [
        type(node)(node.name, node.op, node.inputs, node.attrs, params) if node.name == "conv1" else node
        for node in network.nodes
    ]
    recipe = ql.Recipe(weights=PER_CHANNEL)
    table = ql.calibrate(network, [pictures(4)], recipe)
    with pytest.raises(GraphError, match="1 of 189 weights do not lie on the grid that is pinned"):
        ql.quantize_model(network.with_nodes(nodes), recipe, table)


def test_a_bias_that_would_leave_int32_raises_the_step_and_says_so():
    network, codes, qparams = pinned_network(PER_CHANNEL)
    tiny = ql.QParams(qparams.scale * np.float32(1e-9), qparams.zero_point, -7, 7, 0)
    tiny_network = pin(network, "conv1", codes, tiny)
    with pytest.warns(GridWarning, match="layer 'conv1'.*pinned step of the weights of output channels 0, 1, 2, 3, 4"):
        model = quantized(tiny_network)
    layer = next(layer for layer in model.layers if layer.node.name == "conv1")
    assert np.abs(layer.bias).max() <= 2**30
    assert (layer.weight_qparams.scale >= tiny.scale).all()
    assert not np.array_equal(layer.weight, codes)


def test_weights_that_are_all_zero_lie_on_any_grid():
    network, codes, qparams = pinned_network(PER_CHANNEL)
    codes[2] = 0
    scale = qparams.scale.copy()
    scale[2] = 1e-30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = quantized(pin(network, "conv1", codes, ql.QParams(scale, qparams.zero_point, -7, 7, 0)))
    layer = next(layer for layer in model.layers if layer.node.name == "conv1")
    assert np.array_equal(layer.weight, codes)
    assert np.abs(layer.bias).max() <= 2**30


def test_folding_drops_the_grid_of_the_weights_that_it_changes():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    module.append(nn.Conv2d(2, 2, 1)).eval().requires_grad_(False)
    module[1].running_mean.fill_(0.3)
    network = ql.trace(module, torch.zeros(1, 3, 8, 8))
    grid = ql.QParams(0.1, 0, -7, 7)
    pinned = network.with_nodes(
        node.with_attrs(weight_qparams=grid) if node.op == "conv2d" else node for node in network.nodes
    )
    folded = {node.name: node for node in ql.fold_batch_norm(pinned).nodes}
    assert "weight_qparams" not in folded["0"].attrs  # took in the batch norm behind it
    assert "weight_qparams" not in folded["4"].attrs  # took in the one before it
    assert folded["5"].attrs["weight_qparams"] == grid
    assert all("weight_qparams" in node.attrs for node in pinned.nodes if node.op == "conv2d")


def test_fusing_keeps_it():
    network, _, qparams = pinned_network(PER_CHANNEL)
    assert ql.fuse_activations(network).node("conv1").attrs["weight_qparams"] == qparams
