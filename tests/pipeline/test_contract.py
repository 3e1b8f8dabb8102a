"""The contract: simulation and integers agree at every site, and the two policies stay within one code.

Every site is compared, for every recipe that an integer model can run.
"""

import itertools
import warnings

import numpy as np
import pytest
import torch
from networks import NETWORKS, make, pictures

import qlearn as ql
from qlearn import errors as ql_errors
from qlearn.errors import FallbackWarning
from qlearn.integer.layers import run_layer
from qlearn.integer.profiles import profile_named

ACTIVATIONS = [
    ("affine", 8, True),
    ("affine", 8, False),
    ("symmetric", 8, True),
    ("affine", 4, True),
    ("affine", 16, True),
]
WEIGHTS = [
    ("symmetric_restricted", "per_channel", 8),
    ("symmetric", "per_tensor", 8),
    ("affine", "per_channel", 8),
    ("affine", "per_tensor", 5),
]


def quantized(name, activation, weight, seed=0):
    network = ql.fold_batch_norm(ql.trace(make(name, seed), pictures(1)))
    recipe = ql.Recipe(
        activations=ql.TensorRecipe(scheme=activation[0], bits=activation[1], signed=activation[2]),
        weights=ql.TensorRecipe(scheme=weight[0], granularity=weight[1], bits=weight[2]),
    )
    table = ql.calibrate(network, [pictures(8, seed=2), pictures(8, seed=3)], recipe)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        return ql.quantize_model(network, recipe, table)


@pytest.mark.parametrize(("activation", "weight"), list(itertools.product(ACTIVATIONS, WEIGHTS)), ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_simulation_equals_integers_at_every_site(name, activation, weight):
    simulated = quantized(name, activation, weight)
    x = pictures(16, seed=4) * 1.5  # beyond the calibrated range: saturation is part of the contract
    expected, integers = simulated.codes(x), simulated.to_integer("float32").codes(x.numpy())
    assert list(expected) == list(integers)
    for site, codes in integers.items():
        assert np.array_equal(expected[site].numpy(), codes), site
    assert np.array_equal(simulated(x).numpy(), simulated.to_integer("float32")(x.numpy()))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_policies_differ_by_at_most_one_code_given_the_same_input_codes(name, activation):
    model = quantized(name, activation, WEIGHTS[0]).to_integer("fixed")
    codes = model.codes(pictures(16, seed=4).numpy())
    qparams = {layer.name: layer.output for layer in model.layers}
    for layer in model.layers[1:]:
        inputs = [(codes[site], qparams[site]) for site in layer.inputs]
        fixed, float32 = (
            run_layer(layer, inputs, profile_named(policy)).astype(int) for policy in ("fixed", "float32")
        )
        assert np.abs(fixed - float32).max() <= 1, layer.name


def test_codes_stay_inside_their_limits_and_dtypes():
    model = quantized("depthwise", ("affine", 4, False), WEIGHTS[0]).to_integer()
    for site, codes in model.codes(pictures(8).numpy() * 100).items():
        layer = model.layer(site)
        assert codes.dtype == layer.output.dtype == np.int8  # [0, 15] fits
        assert layer.limits[0] <= codes.min() <= codes.max() <= layer.limits[1], site


def test_relu6_never_exceeds_six():
    model = quantized("depthwise", ACTIVATIONS[0], WEIGHTS[0])
    seen = []
    model(pictures(8) * 100, watch=lambda node, value: seen.append((node.attrs.get("clamp"), value)))
    clamped = [value for clamp, value in seen if clamp is not None]
    assert len(clamped) == 2
    assert all(value.min() >= 0 and value.max() <= 6.0 + 0.02 for value in clamped)


def test_more_bits_come_closer_to_float():
    network = make("residual")
    x = pictures(16, seed=5)
    quality = [
        ql.sqnr_db(network(x), quantized("residual", ("affine", b, True), (*WEIGHTS[0][:2], b))(x))
        for b in (3, 4, 6, 8)
    ]
    assert quality == sorted(quality)
    assert quality[-1] > 25


def test_weights_or_activations_alone():
    network = ql.fold_batch_norm(ql.trace(make("residual"), pictures(1)))
    x = pictures(16, seed=5)
    for recipe, sites in ((ql.Recipe(weights=None), 10), (ql.Recipe(activations=None), 0)):
        table = ql.calibrate(network, [x], recipe)
        model = ql.quantize_model(network, recipe, table)
        assert len(model.codes(x)) == sites
        assert 30 < ql.sqnr_db(network(x), model(x)) < 60
        with pytest.raises(ql_errors.GraphError, match=r"leaves the (weights of 'conv1'|output of 'input') in float"):
            model.to_integer()


def test_a_dead_channel_with_a_constant_keeps_it():
    module = make("depthwise")
    module.stem.weight[2] = 0.0
    module.norm1.running_var[2] = 0.0
    module.norm1.bias[2], module.norm1.running_mean[2] = 5.25, 0.0
    network = ql.fold_batch_norm(ql.trace(module, pictures(1)))
    recipe = ql.Recipe()
    model = ql.quantize_model(network, recipe, ql.calibrate(network, [pictures(8)], recipe)).to_integer()
    layer = model.layer("stem")
    constant = (
        model.codes(pictures(4).numpy())["stem"][:, 2].astype(int) - layer.output.zero_point
    ) * layer.output.scale
    assert np.abs(constant - 5.25).max() <= layer.output.scale / 2
    assert np.abs(layer.bias).max() <= 2**30


class DeadBranch(torch.nn.Module):
    """A residual connection whose one branch is always zero."""

    def __init__(self):
        super().__init__()
        self.dead = torch.nn.Conv2d(3, 3, 1)
        torch.nn.init.zeros_(self.dead.weight)
        torch.nn.init.constant_(self.dead.bias, -1.0)

    def forward(self, x):
        return x + torch.relu(self.dead(x))


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("bits", [8, 10, 16])
def test_a_branch_that_is_always_zero_does_not_drown_the_other(bits, size):
    network = ql.trace(DeadBranch().requires_grad_(False), pictures(1))
    x = pictures(8) * size
    recipe = ql.Recipe(activations=ql.TensorRecipe(scheme="affine", bits=bits))
    model = ql.quantize_model(network, recipe, ql.calibrate(network, [x], recipe)).to_integer("fixed")
    codes, add = model.codes(x.numpy()), model.layer("add")
    inputs = [(codes[site], model.layer(site).output) for site in add.inputs]
    other = run_layer(add, inputs, profile_named("float32")).astype(int)
    assert np.abs(codes["add"] - other).max() <= 1
    assert ql.sqnr_db(x, model(x.numpy())) > 35


def test_bad_input_to_either_model_gets_our_error():
    simulated = quantized("residual", ACTIVATIONS[0], WEIGHTS[0])
    integer = simulated.to_integer()
    good = pictures(2)
    for bad in (float("nan"), float("inf")):
        x = good.clone()
        x[1, 2, 3, 4] = bad
        with pytest.raises(ql_errors.GraphError, match="NaN or Inf"):
            simulated(x)
        with pytest.raises(ql_errors.KernelError, match="NaN or Inf"):
            integer(x.numpy())
    for x in (good[:, :2], good[:0], good[0]):
        with pytest.raises(ql_errors.GraphError, match=r"takes a batch of shape \(N, 3, 15, 15\)"):
            simulated(x)
        with pytest.raises(ql_errors.KernelError, match=r"takes a batch of shape \(N, 3, 15, 15\)"):
            integer(x.numpy())
    with pytest.raises(ql_errors.KernelError, match="takes real numbers, got int64"):
        integer(np.zeros((1, 3, 15, 15), np.int64))
    with pytest.raises(ql_errors.KernelError, match="no preprocessing stored"):
        integer.predict(np.zeros((1, 15, 15, 3), np.uint8))
    with pytest.raises(ql_errors.KernelError, match="no layer 'nope'"):
        integer.layer("nope")


def test_an_accumulator_that_could_overflow_is_refused_by_name():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 200 * 200, 2))
    network = ql.trace(module, torch.zeros(1, 3, 200, 200))
    recipe = ql.Recipe()
    torch.nn.init.constant_(module[1].weight, 1.0)
    network = ql.trace(module, torch.zeros(1, 3, 200, 200))
    table = ql.calibrate(network, [torch.rand(2, 3, 200, 200)], recipe)
    with pytest.raises(ql_errors.AccumulatorOverflowError, match="layer '1': the accumulator can reach"):
        ql.quantize_model(network, recipe, table).to_integer()
