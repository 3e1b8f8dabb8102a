"""The error budget against NumPy: every part switched on by hand, and the sum against the whole."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import pictures
from quantized_networks import FOUR_BITS, PER_TENSOR, layer_of, quantized_network

import qlearn as ql
from qlearn.analysis.budget import PARTS, BudgetRow
from qlearn.errors import DataError, GraphError

X = pictures(6, seed=5)


def convolved(x, weight, bias, attrs, clamp):
    """A convolution in float64, with torch, and its clamp."""
    top, bottom, left, right = attrs["padding"]
    padded = F.pad(x.double(), (left, right, top, bottom))
    y = F.conv2d(padded, weight.double(), bias.double(), attrs["stride"], 0, attrs["dilation"], attrs["groups"])
    return y.clamp(*clamp).numpy()


@pytest.mark.parametrize("recipe", [PER_TENSOR, FOUR_BITS, ql.Recipe()], ids=["8 bits", "4 bits", "per channel"])
@pytest.mark.parametrize("inherited", [True, False])
def test_every_part_by_hand(recipe, inherited):
    _, quantized = quantized_network("depthwise", recipe)
    layer = layer_of(quantized, "depthwise")
    source = layer_of(quantized, layer.node.inputs[0])
    floats = {}
    quantized.model(X, lambda node, value: floats.update({node.name: value}))
    x, weight, bias = floats[source.node.name], layer.node.params["weight"], layer.node.params["bias"]
    codes = quantized.codes(X)
    read = codes[source.node.name] if inherited else ql.quantize(x, source.output)
    s_x, s_w, s_y = (q.scale.astype(np.float64) for q in (source.output, layer.weight_qparams, layer.output))
    w_hat = torch.from_numpy(
        (layer.weight.astype(float) - np.reshape(layer.weight_qparams.zero_point, (-1, 1, 1, 1)))
        * np.reshape(s_w, (-1, 1, 1, 1))
    )
    b_hat = torch.from_numpy(layer.bias * s_x * s_w)
    x_hat = (read.double() - int(source.output.zero_point)) * float(s_x)
    attrs, clamp = layer.node.attrs, layer.node.attrs["clamp"]
    y = convolved(x, weight, bias, attrs, clamp)
    lowest, highest = (float(s_y) * (q - int(layer.output.zero_point)) for q in (layer.output.qmin, layer.output.qmax))
    expected = {
        "weights": convolved(x, w_hat, bias, attrs, clamp) - y,
        "input": convolved(x_hat, weight, bias, attrs, clamp) - y,
        "bias": convolved(x, weight, b_hat, attrs, clamp) - y,
        "rounding": np.rint(y / s_y) * s_y - y,
        "clipping": np.clip(y, lowest, highest) - y,
    }
    row = ql.error_budget(quantized, [X[:2], X[2:]], inherited=inherited)["depthwise"]
    for part, error in expected.items():
        assert row.parts[part] == pytest.approx(float(np.square(error).sum()), rel=2e-3, abs=1e-8), part
    assert row.signal == pytest.approx(float(np.square(y).sum()), rel=1e-4)
    together = convolved(x_hat, w_hat, b_hat, attrs, clamp)
    whole = np.clip(np.rint(together / s_y) * s_y, lowest, highest) - y
    assert row.whole == pytest.approx(float(np.square(whole).sum()), rel=1e-2)
    assert row.cross == pytest.approx(row.whole - sum(row.parts.values()))


@pytest.mark.parametrize("name", ["depthwise", "residual", "mixed"])
def test_inherited_whole_is_the_total_noise_of_the_table(name):
    _, quantized = quantized_network(name)
    budget, table = ql.error_budget(quantized, [X]), ql.analyze(quantized, [X])
    for row, other in zip(budget, table, strict=True):
        assert row.whole == pytest.approx(other.total.noise, rel=1e-6, abs=1e-12)
        assert row.sqnr_db == pytest.approx(other.sqnr_db, abs=1e-4) or row.sqnr_db == other.sqnr_db == math.inf


def test_independent_errors_add_up():
    """Where nothing is clipped (min/max of the same pictures) the cross terms are small."""
    _, quantized = quantized_network("depthwise", ql.Recipe(activations=ql.TensorRecipe(scheme="affine")))
    budget = ql.error_budget(quantized, [pictures(8)], inherited=False)
    for row in budget:
        assert abs(row.cross) < 0.15 * row.whole
        assert sum(row.share(part) for part in PARTS) == pytest.approx(1.0)
        assert row.share(row.largest) == max(row.share(part) for part in PARTS)


def test_the_halves_of_the_network():
    net, quantized = quantized_network("residual", FOUR_BITS)
    table = ql.calibrate(net, [pictures(8)], FOUR_BITS)
    ends = ql.error_budget(quantized, [X]).network
    expected = net(X)
    for name, recipe in {
        "weights": ql.Recipe(activations=None, weights=FOUR_BITS.weights),
        "activations": ql.Recipe(activations=FOUR_BITS.activations, weights=None),
        "all": FOUR_BITS,
    }.items():
        other = ql.quantize_model(net, recipe, {} if recipe.activations is None else table)
        assert ends[name] == pytest.approx(ql.sqnr_db(expected, other(X)), abs=1e-3), name
    assert ends["all"] < max(ends["weights"], ends["activations"])


def test_a_part_that_is_not_there_makes_no_noise():
    _, quantized = quantized_network("residual")
    budget = ql.error_budget(quantized, [X])
    for row in budget:
        layer = layer_of(quantized, row.site)
        if layer.weight is None:
            assert row.parts["weights"] == row.parts["bias"] == 0.0
        if row.op in ("max_pool2d", "slice", "pad", "flatten"):
            assert row.parts["rounding"] == row.parts["clipping"] == 0.0
            assert row.parts["input"] == pytest.approx(row.whole)
    assert budget["input"].parts["input"] == 0.0
    weights_only = ql.quantize_model(quantized.model, ql.Recipe(activations=None), {})
    for row in ql.error_budget(weights_only, [X]):
        assert row.parts["rounding"] == row.parts["clipping"] == row.parts["bias"] == 0.0


def test_the_budget_is_a_value():
    _, quantized = quantized_network("residual")
    budget = ql.error_budget(quantized, [X])
    text = str(budget)
    assert "input is the noise of all layers before" in text
    assert "SQNR of the output in dB with only these quantized: weights" in text
    assert "the rounding of the input alone" in str(ql.error_budget(quantized, [X], inherited=False))
    fields = json.loads(json.dumps(budget.to_dict(), allow_nan=False))
    assert fields["rows"][1]["shares"]["weights"] == budget[1].share("weights")
    nothing = BudgetRow("x", "add", 1.0, dict.fromkeys(PARTS, 0.0), 0.0)
    assert (nothing.largest, nothing.share("bias"), nothing.db("bias"), nothing.sqnr_db) == (
        "none",
        0,
        math.inf,
        math.inf,
    )


def test_what_does_not_fit_is_refused():
    _, quantized = quantized_network("residual")
    with pytest.raises(DataError, match="no pictures"):
        ql.error_budget(quantized, [])
    with pytest.raises(GraphError, match="from quantize_model"):
        ql.error_budget(quantized.model, [X])
    with pytest.raises(GraphError, match="NaN or Inf"):
        ql.error_budget(quantized, [X * math.nan])
