"""The passes that promise the same function keep it, whatever the network; and they change what they should."""

import os

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from random_floats import random_float_model
from torch import nn

import qlearn as ql
from qlearn.errors import GraphError
from qlearn.graph.bounds import value_bounds
from qlearn.graph.channels import channel_classes
from qlearn.graph.dead import dead_channels, dead_inputs, zero_dead_inputs
from qlearn.graph.equalize import cross_layer_equalize, equalizing_factors, scale_channels, weight_ranges

needs_data = pytest.mark.skipif("QLEARN_DATA" not in os.environ, reason="QLEARN_DATA is not set")
REAL = [pytest.param(name, marks=[pytest.mark.realdata, needs_data]) for name in ("mobilenet_v1_0.25", "resnet20")]


def error(network, other, x):
    """Largest difference, as a share of the output's range."""
    expected = network(x)
    return float((other(x) - expected).abs().max() / (expected.max() - expected.min()))


def preserving(network):
    return {
        "zeroed": zero_dead_inputs(network),
        "equalized": cross_layer_equalize(network),
        "both": cross_layer_equalize(zero_dead_inputs(network)),
    }


@pytest.mark.parametrize("name", ["tiny_resnet", "tiny_mobilenet", *REAL])
def test_the_zoo_keeps_its_function(name, capsys):
    network, data = ql.load(name)
    network = ql.fold_batch_norm(network)
    before = [{key: value.clone() for key, value in node.params.items()} for node in network.nodes]
    x = torch.cat([images for images, _ in data.evaluation.subset(20)])
    errors = {label: error(network, other, x) for label, other in preserving(network).items()}
    with capsys.disabled():
        print(f"\n{name}: " + ", ".join(f"{label} {value:.1e} of the range" for label, value in errors.items()))
    assert max(errors.values()) <= 1e-5
    for node, params in zip(network.nodes, before, strict=True):
        assert all(torch.equal(node.params[key], value) for key, value in params.items())


@settings(deadline=None, max_examples=80)
@given(seed=st.integers(0, 2**20))
def test_random_networks_keep_their_function(seed):
    network, x = random_float_model(seed)
    for label, other in preserving(network).items():
        assert error(network, other, x) <= 1e-5, label


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**20))
def test_any_factors_keep_the_function(seed):
    network, x = random_float_model(seed)
    classes = channel_classes(network)
    factors = torch.exp(torch.randn(classes.count, generator=torch.Generator().manual_seed(seed)))
    factors[:2] = 1.0
    assert error(network, scale_channels(network, factors), x) <= 1e-5


def ranges_by_loops(network, classes):
    """r1 and r2 of every class, one weight after the other."""
    written, read = [0.0] * classes.count, [0.0] * classes.count
    for node in network.nodes:
        if node.op not in ("conv2d", "linear"):
            continue
        weight, groups = node.params["weight"].double(), node.attrs.get("groups", 1)
        per_group = len(weight) // groups
        for o in range(len(weight)):
            for i in range(weight.shape[1]):
                size = float(weight[o, i].abs().max())
                out, into = classes.writes[node.name][o], classes.reads[node.name][o // per_group * weight.shape[1] + i]
                written[out], read[into] = max(written[out], size), max(read[into], size)
    return written, read


@settings(deadline=None, max_examples=30)
@example(seed=400)  # a residual block whose factors swung back and forth
@given(seed=st.integers(0, 2**20))
def test_equalized_ranges_are_equal_class_by_class(seed):
    network, _ = random_float_model(seed, steps=4)
    equal = cross_layer_equalize(network, sweeps=500, tolerance=1e-9)
    written, read = ranges_by_loops(equal, channel_classes(equal))
    for r1, r2 in list(zip(written, read, strict=True))[2:]:
        if r1 > 0 and r2 > 0:
            assert r1 == pytest.approx(r2, rel=1e-3)


def chain(*layers):
    module = nn.Sequential(*layers).requires_grad_(False)
    for layer in module:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.normal_(generator=torch.Generator().manual_seed(layer.weight.numel()))
            layer.weight.mul_(torch.logspace(-2, 1, len(layer.weight)).reshape(-1, *[1] * (layer.weight.ndim - 1)))
    return module


def row_ranges(node):
    return node.params["weight"].abs().flatten(1).amax(1)


def test_weight_ranges_are_those_of_the_rows():
    network, _ = random_float_model(1)
    for name, ranges in weight_ranges(network).items():
        weight = network.node(name).params["weight"]
        assert ranges.tolist() == [max(abs(v) for v in row.flatten().tolist()) for row in weight]


def column_ranges(node):
    return node.params["weight"].abs().transpose(0, 1).flatten(1).amax(1)


def test_a_pair_follows_the_formula():
    network = ql.trace(chain(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 1)), torch.zeros(1, 3, 8, 8))
    first, second = network.node("0"), network.node("2")
    s = (row_ranges(first) / column_ranges(second)).sqrt()
    equal = cross_layer_equalize(network, tolerance=1e-9)
    assert torch.allclose(equal.node("0").params["weight"], first.params["weight"] / s.reshape(-1, 1, 1, 1))
    assert torch.allclose(equal.node("0").params["bias"], first.params["bias"] / s)
    assert torch.allclose(equal.node("2").params["weight"], second.params["weight"] * s.reshape(1, -1, 1, 1))


def test_a_depthwise_triple_ends_at_the_cube_root():
    layers = nn.Conv2d(3, 6, 1), nn.ReLU6(), nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.ReLU6(), nn.Conv2d(6, 4, 1)
    network = ql.trace(chain(*layers), torch.zeros(1, 3, 8, 8))
    r1, r2, r3 = row_ranges(network.node("0")), row_ranges(network.node("2")), column_ranges(network.node("4"))
    mean = (r1 * r2 * r3) ** (1 / 3)
    equal = cross_layer_equalize(network, tolerance=1e-12)
    s12, s23 = r1 / mean, mean / r3
    assert torch.allclose(
        equal.node("0").params["weight"], network.node("0").params["weight"] / s12[:, None, None, None]
    )
    assert torch.allclose(equal.node("1").attrs["clamp"][1], 6.0 / s12)
    assert torch.allclose(equal.node("3").attrs["clamp"][1], 6.0 / s23)
    for found in (row_ranges(equal.node("0")), row_ranges(equal.node("2")), column_ranges(equal.node("4"))):
        assert torch.allclose(found, mean)


def test_before_a_linear_layer_a_channel_owns_a_block_of_columns():
    network = ql.trace(
        chain(nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.Flatten(), nn.Linear(4 * 9, 5)), torch.zeros(1, 3, 3, 3)
    )
    equal = cross_layer_equalize(network, tolerance=1e-9)
    block = equal.node("3").params["weight"].abs().reshape(5, 4, 9).amax((0, 2))
    assert torch.allclose(row_ranges(equal.node("0")), block)
    factors = network.node("0").params["bias"] / equal.node("0").params["bias"]
    expected = network.node("3").params["weight"].reshape(5, 4, 9) * factors.reshape(1, 4, 1)
    assert torch.allclose(equal.node("3").params["weight"], expected.reshape(5, 36), rtol=1e-4)


class Shared(nn.Module):
    """Two convolutions write into a sum, and two read it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        y = torch.relu(self.a(x) + self.b(x))
        return self.d(torch.relu(self.c(y)) + y).mean((2, 3))


def test_channels_that_meet_in_a_sum_share_a_factor():
    torch.manual_seed(0)
    network = ql.trace(Shared(), torch.zeros(1, 3, 4, 4))
    classes = channel_classes(network)
    assert torch.equal(classes.writes["a"], classes.writes["b"])
    assert torch.equal(classes.writes["a"], classes.writes["c"])  # by the second sum
    assert torch.equal(classes.writes["a"], classes.reads["d"])
    assert classes.writes["d"].tolist() == [1] * 4
    assert classes.reads["a"].tolist() == [1] * 3
    assert error(network, cross_layer_equalize(network), torch.randn(4, 3, 4, 4)) <= 1e-5


class Shuffled(nn.Module):
    """Channels go to other places before they are read."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        y = torch.relu(self.first(x))
        y = y.reshape(y.shape[0], 2, 3, 4, 4).transpose(1, 2).reshape(y.shape[0], 6, 4, 4)
        return self.second(y[:, 1:5])


def test_classes_follow_channels_through_moves():
    classes = channel_classes(ql.trace(Shuffled(), torch.zeros(1, 3, 4, 4)))
    first = classes.writes["first"].tolist()
    assert classes.reads["second"].tolist() == [first[i] for i in (3, 1, 4, 2)]


@pytest.mark.parametrize("act", [nn.SiLU(), nn.Sigmoid(), nn.PReLU(), nn.GroupNorm(2, 4), nn.Softmax(-1)], ids=str)
def test_what_does_not_scale_stays(act):
    with torch.no_grad():
        network = ql.trace(
            nn.Sequential(nn.Conv2d(3, 4, 1), act, nn.Conv2d(4, 2, 1)).requires_grad_(False), torch.zeros(1, 3, 4, 4)
        )
    factors = equalizing_factors(network)
    assert bool((factors == 1).all())


def test_zero_and_broken_channels_keep_their_factor():
    module = chain(nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.Conv2d(4, 2, 1))
    module[0].weight[0], module[2].weight[:, 1] = 0.0, 0.0
    network = ql.trace(module, torch.zeros(1, 3, 4, 4))
    broken = network.node("0").params["weight"].clone()
    broken[2] = float("nan")
    equal = cross_layer_equalize(
        network.with_nodes(node.with_params(weight=broken) if node.name == "0" else node for node in network.nodes)
    )
    assert equal.node("1").attrs["clamp"][1][:3].tolist() == [6.0, 6.0, 6.0]
    assert equal.node("1").attrs["clamp"][1][3] != 6.0


def test_wrong_factors_are_refused():
    network, _ = random_float_model(0)
    count = channel_classes(network).count
    for bad in (
        torch.ones(count + 1),
        torch.zeros(count),
        torch.full((count,), 2.0),
        torch.full((count,), float("nan")),
    ):
        with pytest.raises(GraphError, match="factors"):
            scale_channels(network, bad)
    with pytest.raises(GraphError, match="must be positive"):
        cross_layer_equalize(network, sweeps=0)


def test_batch_norm_statistics_are_scaled_along():
    network = ql.fold_batch_norm(ql.load("tiny_mobilenet")[0])
    equal = cross_layer_equalize(network)
    name = next(node.name for node in network.nodes if "bn" in node.attrs)
    s = network.node(name).params["bias"] / equal.node(name).params["bias"]
    for before, after in zip(network.node(name).attrs["bn"], equal.node(name).attrs["bn"], strict=True):
        assert torch.allclose(before / s, after, rtol=1e-4)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**20))
def test_values_lie_within_their_bounds(seed):
    network, x = random_float_model(seed)
    bounds, seen = value_bounds(network), {}
    network(x, lambda node, value: seen.update({node.name: value.double()}))
    for name, value in seen.items():
        slack = 1e-5 * (1 + value.abs().max())
        assert (value >= bounds[name].low - slack).all(), name
        assert (value <= bounds[name].high + slack).all(), name


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**20))
def test_dead_channels_are_constant_on_pictures(seed):
    network, x = random_float_model(seed)
    fused, seen = ql.fuse_activations(network), {}
    fused(x * 3, lambda node, value: seen.update({node.name: value}))
    for name, constants in dead_channels(network).items():
        for channel, constant in constants.items():
            values = seen[name][:, channel].reshape(len(x), -1)
            assert torch.allclose(values, values[:1], atol=1e-5 * max(1.0, abs(constant)))
            assert float(values[0].median()) == pytest.approx(constant, rel=1e-4, abs=1e-5)


def with_constant(constant, kernel, padding):
    """Channel 1 of the first layer is dead; the second layer reads it with weights of 20."""
    module = chain(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, kernel, padding=padding))
    module[0].weight[1], module[0].bias[1], module[2].weight[:, 1] = 0.0, constant, 20.0
    return ql.trace(module, torch.zeros(1, 3, 6, 6))


@pytest.mark.parametrize("constant", [-1.0, 0.0, 2.5])
@pytest.mark.parametrize("padding", [0, 1])
def test_a_constant_goes_into_the_next_bias_where_that_is_exact(constant, padding):
    network = with_constant(constant, 3, padding)
    kept = max(constant, 0.0)
    assert dead_channels(network) == {"0": {1: kept}}
    (found,) = dead_inputs(network)
    exact = kept == 0 or padding == 0
    assert (found.layer, found.channel, found.constant, found.exact) == ("2", 1, kept, exact)
    assert found.weight_share == pytest.approx(20 / float(network.node("2").params["weight"][:, 0].abs().max()))
    mended, x = zero_dead_inputs(network), torch.randn(4, 3, 6, 6)
    assert error(network, mended, x) <= 3e-5  # the sum is some twenty times as large as the range
    assert bool((mended.node("2").params["weight"][:, 1] == 0).all()) == exact


def test_the_border_error_is_what_is_stated():
    network = with_constant(2.0, 3, 1)
    forced, x = zero_dead_inputs(network, at_borders=True), torch.randn(4, 3, 6, 6)
    difference = (forced(x) - network(x)).abs()
    assert float(difference[:, :, 1:-1, 1:-1].max()) <= 1e-3  # exact inside
    assert float(difference.max()) == pytest.approx(dead_inputs(network)[0].border_error, rel=1e-4)
    assert float(difference[:, :, 0, 0].max()) == pytest.approx(
        5 * 2.0 * 20.0, rel=1e-4
    )  # five of nine weights read zeros


def test_a_channel_that_the_relu_always_cuts_is_dead():
    module = chain(nn.Hardtanh(0, 1), nn.Conv2d(3, 2, 1), nn.ReLU6())
    module[1].weight[1], module[1].bias[1] = torch.tensor([1.0, -2.0, 0.5]).reshape(3, 1, 1), -1.5
    module[1].bias[0] = 0.0
    assert dead_channels(ql.trace(module, torch.zeros(1, 3, 4, 4))) == {"1": {1: 0.0}}  # at most 1 + 0.5 - 1.5
    module[1].bias[1] = -1.4
    assert dead_channels(ql.trace(module, torch.zeros(1, 3, 4, 4))) == {}
    module[1].bias[1] = 8.0
    assert dead_channels(ql.trace(module, torch.zeros(1, 3, 4, 4))) == {"1": {1: 6.0}}


@pytest.mark.realdata
@needs_data
def test_the_dead_channels_of_mobilenet():
    """Ten feed depthwise layers and are zero; three that pointwise layers read are constants, and exact: no padding."""
    network = ql.fold_batch_norm(ql.load("mobilenet_v1_0.25")[0])
    found = dead_inputs(network)
    depthwise = [one for one in found if network.node(one.layer).attrs["groups"] > 1]
    assert (len(depthwise), {one.constant for one in depthwise}) == (10, {0.0})
    assert sorted(round(one.constant, 2) for one in found if one.constant) == [0.13, 5.23, 5.25]
    assert all(one.exact for one in found)
    assert sum(one.weight_share > 1 for one in depthwise) >= 5  # they own the range of their layers
