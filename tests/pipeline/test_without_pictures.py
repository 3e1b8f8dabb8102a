"""Ranges from batch norms against drawn values, numerical integration by hand, and refusals."""

import math

import numpy as np
import pytest
import torch
from networks import make, pictures
from torch import nn

import qlearn as ql
from qlearn.errors import CalibrationError, GraphError
from qlearn.pipeline.without_pictures import _normal_points, calibrate_without_pictures

DRAWN = 400_000
INPUT = ql.ClipRange(-1.0, 1.0)


def minmax(bits=8):
    return ql.Recipe(activations=ql.TensorRecipe(scheme="affine", bits=bits, calibrator="minmax"))


class Residual(nn.Module):
    """Two normalized layers, a normalized shortcut, and a layer without a batch norm; pixels stand alone."""

    def __init__(self):
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6)
        self.b, self.norm_b = nn.Conv2d(6, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.c, self.norm_c = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x):
        y = torch.nn.functional.relu6(self.norm_a(self.a(x)))
        return self.head(torch.relu(self.norm_b(self.b(y)) + self.norm_c(self.c(x))))


@pytest.fixture(scope="module")
def drawn():
    """The network, its batch norms trained on Gaussian input, and that input."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Residual()
    for norm in (module.norm_a, module.norm_b, module.norm_c):
        norm.weight.data.uniform_(0.5, 1.5, generator=generator)
        norm.bias.data.normal_(generator=generator)
        norm.momentum = 1.0
    x = torch.randn(DRAWN // 100, 3, 10, 10, generator=generator)
    with torch.no_grad():
        module.train()(x)
    network = ql.fold_batch_norm(ql.trace(module.eval().requires_grad_(False), torch.zeros(1, 3, 10, 10)))
    values = {}
    network(x, lambda node, value: values.update({node.name: value.double().transpose(0, 1).flatten(1)}))
    return network, values


@pytest.mark.parametrize("sigmas", [2.0, 4.0, 6.0])
def test_ranges_are_the_moments_of_drawn_values(drawn, sigmas):
    """Before the clamp: mean ± n std of each channel by drawing; the branches of the sum share the input."""
    network, values = drawn
    table = calibrate_without_pictures(network, minmax(), sigmas=sigmas, input_range=INPUT)
    assert table.images == 0
    assert set(table) == {"input", "a", "b", "c", "add", "head"}
    for site, low, high in [("a", 0.0, 6.0), ("b", -math.inf, math.inf), ("c", -math.inf, math.inf)]:
        mean, std = values[site].mean(1), values[site].std(1)
        expected = np.clip([float((mean - sigmas * std).min()), float((mean + sigmas * std).max())], low, high)
        assert float(table[site].lo) == pytest.approx(min(0.0, expected[0]), abs=0.01)
        assert float(table[site].hi) == pytest.approx(expected[1], rel=0.01)
    mean = values["b"].mean(1) + values["c"].mean(1)
    std = (values["b"].var(1) + values["c"].var(1)).sqrt()
    assert float(table["add"].hi) == pytest.approx(float((mean + sigmas * std).max()), rel=0.01)
    assert float(table["add"].lo) == 0.0


def test_a_layer_without_batch_norm_by_drawing(drawn):
    """Its terms are taken as independent: draw them so."""
    network, _ = drawn
    generator = torch.Generator().manual_seed(1)
    b, c = (network.node(name).attrs["bn"] for name in ("b", "c"))
    std = (b.std**2 + c.std**2).sqrt()
    y = torch.relu(torch.randn(DRAWN, 6, generator=generator) * std + b.mean + c.mean)
    head = network.node("head").params
    z = y @ head["weight"][:, :, 0, 0].T + head["bias"]
    table = calibrate_without_pictures(network, minmax(), sigmas=5.0, input_range=INPUT)
    assert float(table["head"].lo) == pytest.approx(float((z.mean(0) - 5 * z.std(0)).min()), rel=0.02)
    assert float(table["head"].hi) == pytest.approx(float((z.mean(0) + 5 * z.std(0)).max()), rel=0.02)


def test_points_are_equally_probable():
    z = _normal_points(3.0, 101)
    probability = 0.5 * (1 + torch.special.erf(z / math.sqrt(2)))
    steps = probability.diff()
    assert float(steps.max() - steps.min()) < 1e-12
    assert (float(z[0]), float(z[50]), float(z[-1])) == (-3.0, 0.0, 3.0)
    assert torch.equal(z, -z.flip(0))
    assert len(_normal_points(6.0, 8)) == 8


def test_the_calibrator_of_the_recipe_decides(drawn):
    network, _ = drawn
    for bits in (4, 8):
        mse = ql.Recipe(activations=ql.TensorRecipe(scheme="affine", bits=bits, calibrator="mse"))
        wide, best = (calibrate_without_pictures(network, recipe, input_range=INPUT) for recipe in (minmax(bits), mse))
        assert best["b"].hi - best["b"].lo < wide["b"].hi - wide["b"].lo
        if bits == 4:
            assert best["b"].hi - best["b"].lo < 0.75 * (wide["b"].hi - wide["b"].lo)


def test_the_table_quantizes_the_network_and_is_near_that_of_pictures():
    network, data = ql.load("tiny_mobilenet")
    network = ql.fold_batch_norm(network)
    before = [value.clone() for node in network.nodes for value in node.params.values()]
    recipe = ql.Recipe().with_layer("linear", activations=None)  # logits in float: they have no batch norm
    table = calibrate_without_pictures(network, recipe)
    assert "linear" not in table
    assert calibrate_without_pictures(network, recipe).ranges == table.ranges
    assert all(torch.equal(*pair) for pair in
               zip(before, (v for node in network.nodes for v in node.params.values()), strict=True))  # fmt: skip
    assert (float(table["input"].lo), float(table["input"].hi)) == pytest.approx(
        (-2.0, 2.0), abs=0.02
    )  # pixels of 0 and of 255
    evaluation = data.evaluation.subset(100)
    blind = ql.evaluate(ql.quantize_model(network, recipe, table), evaluation, reference=network)
    seen = ql.calibrate(network, data.calibration, recipe)
    shown = ql.evaluate(ql.quantize_model(network, recipe, seen), evaluation, reference=network)
    assert blind.sqnr_db > shown.sqnr_db - 6
    assert blind.agreement > 0.95


def test_tables_and_dead_channels():
    """A SiLU is the function of its input's values; a channel that never moves is a constant."""
    layers = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.SiLU()
    layers[1].weight.data.copy_(torch.tensor([1.0, 0.0]))
    layers[1].bias.data.copy_(torch.tensor([0.0, 3.0]))
    network = ql.fold_batch_norm(ql.trace(nn.Sequential(*layers).eval(), torch.zeros(1, 1, 4, 4)))
    table = calibrate_without_pictures(network, minmax(), sigmas=2.0, input_range=INPUT)
    assert float(table["0"].lo) == pytest.approx(-2.0, rel=1e-4)
    assert float(table["0"].hi) == pytest.approx(3.0, rel=1e-4)
    assert float(table["2"].lo) == pytest.approx(-0.278465, abs=1e-4)
    assert float(table["2"].hi) == pytest.approx(3 / (1 + math.exp(-3)), rel=1e-4)


def test_what_cannot_be_known_is_refused(drawn):
    network, _ = drawn
    raw = ql.trace(make("depthwise"), pictures(1))
    bare = ql.trace(make("mixed"), pictures(1))
    for error, message, call in [
        (GraphError, r"fold_batch_norm\(\) first", lambda: calibrate_without_pictures(raw, minmax())),
        (GraphError, r"calibrate\(\) with pictures", lambda: calibrate_without_pictures(bare, minmax())),
        (GraphError, "takes a traced network", lambda: calibrate_without_pictures(Residual(), minmax())),
        (CalibrationError, "what its input is", lambda: calibrate_without_pictures(network, minmax())),
    ]:
        with pytest.raises(error, match=message):
            call()
    for wrong in ({"sigmas": 0.0}, {"sigmas": 31}, {"sigmas": math.nan}, {"points": 1}, {"points": 2.5}):
        with pytest.raises(CalibrationError, match=next(iter(wrong))):
            calibrate_without_pictures(network, minmax(), input_range=INPUT, **wrong)
    broken = network.with_nodes(
        node.with_attrs(bn=(node.attrs["bn"].mean * math.nan, node.attrs["bn"].std)) if node.name == "b" else node
        for node in network.nodes
    )
    with pytest.raises(CalibrationError, match="NaN") as caught:
        calibrate_without_pictures(broken, minmax(), input_range=INPUT)
    assert "at site 'b'" in caught.value.__notes__[0]
