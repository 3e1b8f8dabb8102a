"""Bias correction against plain loops, and what it promises: equal means, layer by layer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import make, pictures
from torch import nn

import qlearn as ql
from qlearn.errors import CalibrationError
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.moments import expected_moments
from qlearn.numbers.affine import dequantize
from qlearn.repair.correct_bias import correct_bias

COARSE = ql.TensorRecipe(scheme="symmetric_restricted", bits=4)


def prepared(name="residual", weights=COARSE, activations="affine"):
    network = ql.fold_batch_norm(ql.trace(make(name), pictures(1)))
    chosen = None if activations is None else ql.TensorRecipe(scheme=activations)
    recipe = ql.Recipe(weights=weights, activations=chosen)
    batches = [pictures(8, seed=2), pictures(8, seed=3)]
    return network, recipe, ql.calibrate(network, batches, recipe), batches


def conv_mean_by_loops(x, weight, bias, node):
    """Mean of every output channel over pictures and positions, one product after the other."""
    top, bottom, left, right = node.attrs["padding"]
    x = np.pad(x.numpy().astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    (sh, sw), (dh, dw), groups = node.attrs["stride"], node.attrs["dilation"], node.attrs["groups"]
    outputs, per_group, kh, kw = weight.shape
    rows = range(0, x.shape[2] - dh * (kh - 1), sh)
    columns = range(0, x.shape[3] - dw * (kw - 1), sw)
    means = []
    for o in range(outputs):
        first = o // (outputs // groups) * per_group
        total = 0.0
        for r in rows:
            for c in columns:
                window = x[:, first : first + per_group, r : r + dh * (kh - 1) + 1 : dh, c : c + dw * (kw - 1) + 1 : dw]
                total += float((window * weight[o].numpy().astype(np.float64)).sum())
        means.append(total / (len(x) * len(rows) * len(columns)) + float(bias[o]))
    return np.array(means)


@pytest.mark.parametrize("name", ["depthwise", "residual"])
def test_the_first_layer_by_loops(name):
    """Its inputs are the pictures: in float, and as codes."""
    network, recipe, table, batches = prepared(name)
    corrected = correct_bias(network, recipe, table, batches)
    quantized = ql.quantize_model(network, recipe, table)
    fused = fuse_activations(network)
    index = next(i for i, node in enumerate(fused.nodes) if node.op == "conv2d")
    node, layer, x = fused.nodes[index], quantized.layers[index], torch.cat(batches)
    values = {}
    quantized(x, lambda n, value: values.update({n.name: value}))
    source = node.inputs[0]
    inputs = x if source == "input" else nn.functional.pad(x, (0, 1, 0, 1))
    bias = node.params["bias"]
    exact = conv_mean_by_loops(inputs, node.params["weight"], bias, node)
    rounded = conv_mean_by_loops(values[source], dequantize(layer.weight, layer.weight_qparams), bias, node)
    shift = (corrected.node(node.name).params["bias"] - bias).numpy()
    assert shift == pytest.approx(exact - rounded, rel=1e-3, abs=1e-5)
    assert np.abs(shift).max() > 1e-3


@pytest.mark.parametrize("name", ["depthwise", "residual", "mixed"])
@pytest.mark.filterwarnings("ignore::qlearn.errors.FallbackWarning")
def test_after_correction_the_mean_of_the_logits_is_that_of_float(name):
    network, recipe, table, batches = prepared(name)
    x = torch.cat(batches)
    expected = network(x).mean(0)
    steps = ql.quantize_model(network, recipe, table).layers[-1].output.scale
    before = ql.quantize_model(network, recipe, table)(x).mean(0) - expected
    corrected = correct_bias(network, recipe, table, batches)
    after = ql.quantize_model(corrected, recipe, table)(x).mean(0) - expected
    assert float(after.abs().max()) < float(before.abs().max())
    assert float(after.abs().max()) <= 1.5 * float(steps)  # what rounding leaves


def test_weights_alone_are_corrected_exactly():
    network, recipe, table, batches = prepared(activations=None)
    x = torch.cat(batches)
    corrected = correct_bias(network, recipe, table, batches)
    after = ql.quantize_model(corrected, recipe, table)(x).mean(0)
    assert torch.allclose(after, network(x).mean(0), atol=1e-4)


def test_the_analytic_shift_follows_the_formula():
    """−Σ ε E[x], by loops over output channel, input channel and kernel; a 1 x 1 kernel has no borders."""
    network, recipe, table, _ = prepared("depthwise")
    corrected, fused = correct_bias(network, recipe, table), fuse_activations(network)
    layers = {layer.node.name: layer for layer in ql.quantize_model(network, recipe, table).layers}
    node, layer = fused.node("pointwise"), layers["pointwise"]
    mean = expected_moments(fused)[node.inputs[0]].mean
    rounded = dequantize(layer.weight, layer.weight_qparams)
    for o in range(10):
        shift = 0.0
        for i in range(6):
            shift -= float(rounded[o, i, 0, 0] - node.params["weight"][o, i, 0, 0]) * float(mean[0, i].mean())
        found = corrected.node("pointwise").params["bias"][o]
        assert float(found) == pytest.approx(shift, rel=1e-3, abs=1e-6)  # the layer had no bias before
    assert corrected.node("pointwise").params["bias"].abs().max() > 1e-3


def test_the_analytic_correction_counts_the_padding():
    """With an input that is just its expectation, the mean of the depthwise layer's sum is right, borders included."""
    network, recipe, table, _ = prepared("depthwise", activations=None)
    fused = fuse_activations(network)
    node = fused.node("depthwise")
    layer = next(x for x in ql.quantize_model(network, recipe, table).layers if x.node.name == "depthwise")
    mean = expected_moments(fused)[node.inputs[0]].mean.float()
    bias = correct_bias(network, recipe, table).node("depthwise").params["bias"]
    rounded = dequantize(layer.weight, layer.weight_qparams)
    exact = conv_mean_by_loops(mean, node.params["weight"], node.params["bias"], node)
    assert conv_mean_by_loops(mean, rounded, bias, node) == pytest.approx(exact, rel=1e-4, abs=1e-4)


def test_correction_improves_a_trained_network():
    network, data = ql.load("tiny_mobilenet")
    network = ql.fold_batch_norm(network)
    recipe = ql.Recipe(weights=replace(COARSE, granularity="per_channel"))
    batches = [images for images, _ in data.calibration.subset(100)]
    table = ql.calibrate(network, batches, recipe)
    x = torch.cat([images for images, _ in data.evaluation.subset(200)])
    expected = network(x)
    models = (network, correct_bias(network, recipe, table), correct_bias(network, recipe, table, batches))
    quality = [ql.sqnr_db(expected, ql.quantize_model(model, recipe, table)(x)) for model in models]
    assert quality[2] > quality[0] + 1.0
    assert quality[1] > quality[0]


def test_the_corrected_model_runs_on_integers_with_equal_codes():
    network, recipe, table, batches = prepared("residual")
    model = ql.quantize_model(correct_bias(network, recipe, table, batches), recipe, table)
    x = pictures(8, seed=9)
    expected, integers = model.codes(x), model.to_integer("float32").codes(x.numpy())
    assert all(np.array_equal(expected[site].numpy(), codes) for site, codes in integers.items())


def test_the_network_is_not_changed_and_bad_input_is_refused():
    network, recipe, table, batches = prepared()
    before = {node.name: node.params["bias"].clone() for node in network.nodes if "bias" in node.params}
    correct_bias(network, recipe, table, batches)
    assert all(torch.equal(network.node(name).params["bias"], value) for name, value in before.items())
    with pytest.raises(CalibrationError, match="no batches"):
        correct_bias(network, recipe, table, iter([]))
    with pytest.raises(CalibrationError, match="has no site"):
        correct_bias(network, recipe, {}, batches)


def test_a_generator_and_batches_of_two_sizes_are_the_same_pictures():
    network, recipe, table, batches = prepared()
    x = torch.cat(batches)
    one = correct_bias(network, recipe, table, (part for part in (x[:3], x[3:])))
    other = correct_bias(network, recipe, table, batches)
    for node in one.nodes:
        if "bias" in node.params:
            assert torch.allclose(node.params["bias"], other.node(node.name).params["bias"], atol=1e-5)
