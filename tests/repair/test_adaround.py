"""AdaRound of whole networks: codes on the grid, never worse than nearest, deterministic, bad input named."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from networks import NETWORKS, make, pictures
from torch import nn

import qlearn as ql
from qlearn.errors import CalibrationError, FallbackWarning, GraphError, RecipeError

FAST = {"iterations": 20, "samples": 300}
CHOICES = [
    ("symmetric_restricted", "per_channel", 4, "mse"),
    ("symmetric", "per_tensor", 4, "minmax"),
    ("affine", "per_channel", 3, "minmax"),
    ("affine", "per_tensor", 8, "mse"),
]


def recipe_of(choice):
    scheme, granularity, bits, calibrator = choice
    return ql.Recipe(weights=ql.TensorRecipe(scheme=scheme, granularity=granularity, bits=bits, calibrator=calibrator))


def prepared(name, recipe, seed=0):
    network = ql.fold_batch_norm(ql.trace(make(name, seed), pictures(1)))
    return network, ql.calibrate(network, [pictures(16)], recipe)


def quiet_quantize(network, recipe, table):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        return ql.quantize_model(network, recipe, table)


def quiet_adaround(network, recipe, table, batches, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        return ql.adaround(network, recipe, table, batches, **(FAST | settings))


def weighted(model):
    return {layer.node.name: layer for layer in model.layers if layer.weight is not None}


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_codes_are_one_of_the_two_next_to_the_weight_and_stay_pinned(name, choice):
    recipe = recipe_of(choice)
    network, table = prepared(name, recipe)
    before = {(n.name, key): value.clone() for n in network.nodes for key, value in n.params.items()}
    rounded = quiet_adaround(network, recipe, table, [pictures(16)])
    assert [(n.name, n.op, n.inputs) for n in rounded.nodes] == [(n.name, n.op, n.inputs) for n in network.nodes]
    nearest, learned = (weighted(quiet_quantize(n, recipe, table)) for n in (network, rounded))
    changed = 0
    for site, layer in learned.items():
        qparams = layer.weight_qparams
        assert qparams == nearest[site].weight_qparams
        assert rounded.node(site).attrs["weight_qparams"] == qparams
        assert torch.equal(ql.dequantize(layer.weight, qparams), rounded.node(site).params["weight"])
        axes = (-1, *[1] * (layer.weight.ndim - 1))
        steps = network.node(site).params["weight"].double().numpy() / qparams.scale.reshape(axes)
        steps += qparams.zero_point.reshape(axes)
        inside = np.clip(steps, qparams.qmin, qparams.qmax)
        assert np.abs(layer.weight - inside).max() < 1 + 1e-4
        assert layer.weight.min() >= qparams.qmin
        assert layer.weight.max() <= qparams.qmax
        assert np.array_equal(layer.bias, nearest[site].bias) if layer.bias is not None else nearest[site].bias is None
        changed += int((layer.weight != nearest[site].weight).sum())
    assert changed > 0
    for n in network.nodes:
        assert all(torch.equal(value, before[n.name, key]) for key, value in n.params.items())


@pytest.mark.parametrize("name", ["depthwise", "residual"])
def test_the_codes_are_those_of_the_integer_model(name):
    recipe = recipe_of(CHOICES[0])
    network, table = prepared(name, recipe)
    rounded = ql.adaround(network, recipe, table, [pictures(16)], **FAST)
    model, x = ql.quantize_model(rounded, recipe, table), pictures(8, seed=3)
    integer = model.to_integer("float32")
    assert np.array_equal(model(x).numpy(), integer(x.numpy()))
    for site, layer in weighted(model).items():
        assert np.array_equal(integer.layer(site).weight, layer.weight)


@pytest.mark.parametrize(("name", "bits"), [("tiny_resnet", 3), ("tiny_mobilenet", 4)])
def test_trained_networks_gain(name, bits):
    network, data = ql.load(name)
    network = ql.fold_batch_norm(network)
    recipe = recipe_of(("symmetric_restricted", "per_channel", bits, "mse"))
    table = ql.calibrate(network, data.calibration, recipe)
    rounded = ql.adaround(network, recipe, table, data.calibration.subset(100), iterations=60, samples=4000)
    x = torch.cat([images for images, _ in data.evaluation.subset(100)])
    nearest, learned = (ql.sqnr_db(network(x), ql.quantize_model(n, recipe, table)(x)) for n in (network, rounded))
    assert learned > nearest + 3


def test_every_layer_answers_to_what_the_layers_before_it_became():
    """Asymmetric: a layer's error is measured on its quantized input, so it makes up for those before it."""
    recipe = recipe_of(("symmetric_restricted", "per_channel", 3, "minmax"))
    network, table = prepared("residual", recipe)
    x = pictures(16)
    rounded = ql.adaround(network, recipe, table, [x], iterations=100, samples=4000)
    seen = [{}, {}, {}]
    ql.fuse_activations(network)(x, lambda node, value: seen[0].update({node.name: value}))
    for i, n in ((1, network), (2, rounded)):
        ql.quantize_model(n, recipe, table)(x, lambda node, value, i=i: seen[i].update({node.name: value}))
    for site in ("conv1", "conv2", "head"):
        nearest, learned = (float((seen[i][site] - seen[0][site]).square().mean()) for i in (1, 2))
        assert learned < nearest, site


def test_the_seed_decides():
    recipe = recipe_of(CHOICES[0])
    network, table = prepared("residual", recipe)
    settings = {"iterations": 60, "samples": 64}
    first, again, other = (
        ql.adaround(network, recipe, table, [pictures(16)], seed=seed, **settings) for seed in (1, 1, 2)
    )
    for site in ("conv1", "conv2", "head"):
        assert torch.equal(first.node(site).params["weight"], again.node(site).params["weight"])
    assert any(
        not torch.equal(first.node(s).params["weight"], other.node(s).params["weight"]) for s in ("conv1", "conv2")
    )


def test_no_iterations_only_turn_weights_round():
    recipe = recipe_of(CHOICES[0])
    network, table = prepared("residual", recipe)
    x = pictures(16)
    rounded = ql.adaround(network, recipe, table, [x], iterations=0)
    nearest, flipped = (ql.sqnr_db(network(x), ql.quantize_model(n, recipe, table)(x)) for n in (network, rounded))
    assert flipped > nearest


def test_splits_labels_and_arrays_make_no_difference_to_what_is_accepted():
    recipe = recipe_of(CHOICES[0])
    network, table = prepared("residual", recipe)
    x = pictures(12)
    expected = ql.adaround(network, recipe, table, [x], **FAST).node("conv2").params["weight"]
    for batches in ([(x, None)], [x.numpy()], iter([x])):
        found = ql.adaround(network, recipe, table, batches, **FAST).node("conv2").params["weight"]
        assert torch.equal(found, expected)
    ql.adaround(network, recipe, table, x.split(5), **FAST)


def test_layers_in_float_stay_and_weights_alone_can_be_rounded():
    recipe = recipe_of(CHOICES[0]).with_layer("conv1", weights=None)
    network, table = prepared("residual", recipe)
    rounded = ql.adaround(network, recipe, table, [pictures(8)], **FAST)
    assert rounded.node("conv1") is network.node("conv1")
    assert "weight_qparams" in rounded.node("conv2").attrs
    alone = ql.Recipe(activations=None, weights=recipe.weights)
    rounded = ql.adaround(network, alone, ql.calibrate(network, [pictures(8)], alone), [pictures(8)], **FAST)
    x = pictures(8)
    assert ql.sqnr_db(network(x), rounded(x)) > 5
    assert torch.equal(rounded(x), ql.quantize_model(rounded, alone, {})(x))


def test_a_second_time_starts_from_the_first():
    recipe = recipe_of(CHOICES[0])
    network, table = prepared("residual", recipe)
    once = ql.adaround(network, recipe, table, [pictures(8)], **FAST)
    twice = ql.adaround(once, recipe, table, [pictures(8)], **FAST)
    for site in ("conv1", "conv2"):
        assert twice.node(site).attrs["weight_qparams"] == once.node(site).attrs["weight_qparams"]


class Dead(nn.Module):
    """A layer that reads only zeros, one whose weights are all zero, and one picture-sized linear layer."""

    def __init__(self):
        super().__init__()
        self.off, self.reads_zeros, self.silent = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 3), nn.Conv2d(2, 2, 1)
        nn.init.zeros_(self.off.weight)
        nn.init.constant_(self.off.bias, -1.0)
        nn.init.zeros_(self.silent.weight)

    def forward(self, x):
        return self.silent(self.reads_zeros(torch.relu(self.off(x)))).flatten(1)


def test_dead_layers_are_left_as_they_are():
    network, recipe = ql.trace(Dead().requires_grad_(False), pictures(1)), recipe_of(CHOICES[0])
    table = ql.calibrate(network, [pictures(8)], recipe)
    rounded = ql.adaround(network, recipe, table, [pictures(8)], **FAST)
    nearest, learned = (weighted(ql.quantize_model(n, recipe, table)) for n in (network, rounded))
    for site, layer in learned.items():
        assert np.array_equal(layer.weight, nearest[site].weight)


def test_bad_input_is_named():
    recipe = recipe_of(CHOICES[0])
    network, table = prepared("residual", recipe)
    x = pictures(4)
    with pytest.raises(CalibrationError, match="no batches to learn on"):
        ql.adaround(network, recipe, table, [])
    for bad in (float("nan"), float("inf")):
        spoilt = x.clone()
        spoilt[1, 2, 3, 4] = bad
        with pytest.raises(CalibrationError, match="1 of 2700 values of batch 1 are NaN or Inf"):
            ql.adaround(network, recipe, table, [x, spoilt])
    with pytest.raises(RecipeError, match="leaves all weights in float, so there is nothing to round"):
        ql.adaround(network, ql.Recipe(weights=None), table, [x])
    with pytest.raises(CalibrationError, match="has no site 'conv2'"):
        ql.adaround(network, recipe, {site: r for site, r in table.items() if site != "conv2"}, [x])
    with pytest.raises(GraphError, match="takes a traced network, got Residual"):
        ql.adaround(make("residual"), recipe, table, [x])
    with pytest.raises(GraphError, match=r"takes a batch of shape \(N, 3, 15, 15\)"):
        ql.adaround(network, recipe, table, [x[:, :2]])
    with pytest.raises(CalibrationError, match="got str"):
        ql.adaround(network, recipe, table, ["pictures"])


@pytest.mark.parametrize(
    "setting",
    [{"iterations": -1}, {"iterations": 1.5}, {"samples": 0}, {"regularization": -1.0},
     {"regularization": float("nan")}, {"learning_rate": 0.0}, {"learning_rate": float("inf")}],
    ids=str,
)  # fmt: skip
def test_settings_out_of_range_are_refused(setting):
    recipe = recipe_of(CHOICES[0])
    network, table = prepared("residual", recipe)
    with pytest.raises(RecipeError, match=next(iter(setting)).replace("_", " ")):
        ql.adaround(network, recipe, table, [pictures(2)], **setting)


def test_a_network_that_explodes_names_the_layer():
    recipe = recipe_of(CHOICES[0])
    network, table = prepared("residual", recipe)
    node = network.node("conv2")
    huge = network.with_nodes(
        n.with_params(weight=torch.full_like(n.params["weight"], 3e38)) if n is node else n for n in network.nodes
    )
    with pytest.raises(CalibrationError, match="layer 'conv2' makes NaN or Inf in the float network"):
        ql.adaround(huge, recipe, table, [pictures(2)], **FAST)


@pytest.mark.parametrize(("relu", "bound"), [(False, 1.02), (True, 1.2)])
def test_the_whole_way_against_all_roundings_of_a_tiny_layer(relu, bound):
    """Twelve weights: the networks of all roundings, built with pinned grids, run as anyone would run them."""
    g = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 2), *([nn.ReLU()] if relu else [])).requires_grad_(False)
    module[0].weight.copy_(torch.randn(2, 6, generator=g))
    network = ql.trace(module, torch.zeros(1, 6))
    x = torch.relu(torch.randn(500, 6, generator=g) @ torch.randn(6, 6, generator=g))
    weights = ql.TensorRecipe(scheme="symmetric_restricted", granularity="per_channel", bits=3)
    recipe = ql.Recipe(weights=weights, activations=ql.TensorRecipe(scheme="affine", bits=16, calibrator="minmax"))
    table = ql.calibrate(network, [x], recipe)
    nearest = weighted(ql.quantize_model(network, recipe, table))["0"]

    def errors(n):
        return (ql.quantize_model(n, recipe, table)(x) - network(x)).square().mean(dim=0)

    qparams, best = nearest.weight_qparams, torch.full((2,), torch.inf)
    floor = np.floor(network.node("0").params["weight"].numpy() / qparams.scale[:, None])
    for choice in itertools.product((0, 1), repeat=6):
        codes = np.clip(floor + np.array(choice), qparams.qmin, qparams.qmax).astype(int)
        node = network.node("0").with_params(weight=ql.dequantize(codes, qparams)).with_attrs(weight_qparams=qparams)
        best = torch.minimum(best, errors(network.with_nodes(node if n.name == "0" else n for n in network.nodes)))
    found = errors(ql.adaround(network, recipe, table, [x]))
    assert (found >= best * 0.999).all()
    assert found.sum() <= bound * best.sum()
    assert (found <= errors(network) * 1.001).all()
    assert found.sum() < 0.9 * errors(network).sum()
