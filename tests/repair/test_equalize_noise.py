"""Noise equalization: the expected noise is the noise that is measured, and it gets less."""

import numpy as np
import pytest
import torch
from networks import make, pictures
from random_floats import random_float_model

import qlearn as ql
from qlearn.errors import CalibrationError
from qlearn.graph.channels import channel_classes
from qlearn.graph.dead import zero_dead_inputs
from qlearn.graph.equalize import cross_layer_equalize, equalizing_factors
from qlearn.graph.fuse import fuse_activations
from qlearn.repair.correct_bias import correct_bias
from qlearn.repair.equalize_noise import NoiseObjective, equalize_noise, measure_sensitivity

PER_TENSOR = ql.Recipe(weights=ql.TensorRecipe(scheme="symmetric_restricted"))


def folded(name="depthwise", seed=0):
    return ql.fold_batch_norm(ql.trace(make(name, seed), pictures(1)))


@pytest.mark.parametrize("seed", range(12))
def test_the_function_stays(seed):
    network, x = random_float_model(seed)
    other = equalize_noise(network, PER_TENSOR, [x], steps=20)
    expected = network(x)
    assert float((other(x) - expected).abs().max()) <= 1e-5 * float(expected.max() - expected.min())


def test_derivatives_are_those_of_finite_differences():
    """Moving a channel's bias by a little moves the logits by the summed derivative; here one position, so no sum."""
    network = fuse_activations(folded())
    x = pictures(1, seed=5)
    seen = measure_sensitivity(network, [x], seed=3)
    signs = torch.randint(0, 2, (1, 10), generator=torch.Generator().manual_seed(3)) * 2.0 - 1.0
    node = network.node(network.output)  # a mean over positions: d logit / d value = 1 / positions
    source = node.inputs[0]
    values = {}
    network(x, lambda n, value: values.update({n.name: value}))
    positions = values[source][0, 0].numel()
    expected = (signs[0] / positions) ** 2 * positions
    assert torch.allclose(seen.by_output[source], expected.double(), rtol=1e-5)
    assert torch.allclose(seen.low["stem"], values["stem"].amin((0, 2, 3)).double())
    assert torch.allclose(seen.variance["stem"], values["stem"].double().var((0, 2, 3), correction=0), rtol=1e-4)


@pytest.mark.parametrize("name", ["depthwise", "residual"])
@pytest.mark.parametrize("part", ["weights", "activations"])
def test_the_expected_noise_is_near_the_measured_one(name, part, capsys):
    """First order, and roundings taken as independent: within a factor of three."""
    network = folded(name)
    activations = ql.TensorRecipe(scheme="affine", calibrator="minmax") if part == "activations" else None
    weights = ql.TensorRecipe(scheme="symmetric_restricted") if part == "weights" else None
    recipe = ql.Recipe(activations=activations, weights=weights)
    x = pictures(64, seed=7)
    table = ql.calibrate(network, [x], recipe)
    corrected = correct_bias(network, recipe, table, [x])
    difference = (ql.quantize_model(corrected, recipe, table)(x) - network(x)).double()
    measured = float((difference - difference.mean(0)).square().sum(1).mean())
    fused = fuse_activations(network)
    objective = NoiseObjective(fused, recipe, measure_sensitivity(fused, x.split(16)))
    expected = float(objective(torch.ones(channel_classes(fused).count, dtype=torch.float64)))
    with capsys.disabled():
        print(f"\n{name}, {part}: expected noise {expected:.3g}, measured {measured:.3g}")
    assert 1 / 3 < expected / measured < 3


def hardly_moving(seed):
    """A channel with small weights and a large bias: equal ranges of weights make its activations huge."""
    module = make("depthwise", seed)
    module.norm1.weight[0], module.norm1.bias[0] = 0.003, 4.0
    return ql.fold_batch_norm(ql.trace(module, pictures(1)))


def test_the_noise_gets_less_than_by_ranges():
    network = zero_dead_inputs(hardly_moving(4))
    fused, x = fuse_activations(network), pictures(32, seed=8)
    objective = NoiseObjective(fused, PER_TENSOR, measure_sensitivity(fused, [x]))
    start = equalizing_factors(fused)
    found = objective.minimized(start, 100)
    assert float(objective(found)) < 0.5 * float(objective(start))
    assert bool((found[:2] == 1).all())
    assert torch.equal(found, objective.minimized(start, 100))  # nothing is left to chance


def test_it_beats_ranges_where_activations_pay(capsys):
    """SQNR of the quantized logits, biases corrected alike."""
    gains = []
    for seed in range(4):
        network, x = hardly_moving(seed), pictures(64, seed=9)
        expected = network(x)
        quality = []
        for model in (cross_layer_equalize(network), equalize_noise(network, PER_TENSOR, [x])):
            table = ql.calibrate(model, [x], PER_TENSOR)
            corrected = correct_bias(model, PER_TENSOR, table, [x])
            quality.append(ql.sqnr_db(expected, ql.quantize_model(corrected, PER_TENSOR, table)(x)))
        gains.append(quality[1] - quality[0])
    with capsys.disabled():
        print("\nnoise equalized against equalized: " + ", ".join(f"{gain:+.1f} dB" for gain in gains))
    assert np.mean(gains) > 1.0


def test_nothing_to_quantize_changes_nothing_and_no_pictures_are_refused():
    network, x = folded(), pictures(4)
    nothing = ql.Recipe(weights=None, activations=None)
    other = equalize_noise(network, nothing, [x], steps=3)
    assert torch.allclose(other(x), network(x), atol=1e-5)
    with pytest.raises(CalibrationError, match="no batches"):
        equalize_noise(network, PER_TENSOR, [])
