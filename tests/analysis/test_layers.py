"""The layer table against loops over codes and float values, one number at a time."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from networks import NETWORKS, pictures
from quantized_networks import layer_of, quantized_network
from torch import nn

import qlearn as ql
from qlearn.analysis.code_use import CodeUse, WeightUse, code_counts
from qlearn.analysis.metrics import NoiseSums, decibels
from qlearn.errors import DataError, GraphError, QLearnError
from qlearn.graph.ops import FLOAT_OPS
from qlearn.pipeline.simulate import QuantizedLayer

numbers = st.floats(-1e3, 1e3, allow_subnormal=False)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_every_number_by_loops(name, granularity):
    weights = ql.TensorRecipe(scheme="symmetric_restricted", granularity=granularity)
    activations = ql.TensorRecipe(scheme="affine", calibrator="percentile", calibrator_params={"percent": 97.0})
    _, quantized = quantized_network(name, ql.Recipe(activations=activations, weights=weights))
    x = pictures(5, seed=3)
    table = ql.analyze(quantized, [x[:2], x[2:]])
    floats, codes = {}, quantized.codes(x)
    quantized.model(x, lambda node, value: floats.update({node.name: value}))
    assert table.images == 5
    assert [row.site for row in table] == [node.name for node in quantized.model.nodes]
    clipped = 0
    for layer, row in zip(quantized.layers, table, strict=True):
        node, qp = layer.node, layer.output
        site = codes[node.name]
        real = {
            name: ql.dequantize(codes[name], layer_of(quantized, name).output) for name in (*node.inputs, node.name)
        }
        exact = FLOAT_OPS[node.op](node, [real[name] for name in node.inputs]) if node.inputs else x
        pairs = list(zip(floats[node.name].flatten().tolist(), real[node.name].flatten().tolist(), strict=True))
        signal, noise = sum(a * a for a, _ in pairs), sum((a - b) ** 2 for a, b in pairs)
        assert row.total.noise == pytest.approx(noise, rel=1e-4)  # batches of another size: another order of float sums
        assert row.sqnr_db == pytest.approx(10 * math.log10(signal / noise), abs=1e-3)
        assert row.rmse_over_scale == pytest.approx(math.sqrt(noise / len(pairs)) / float(qp.scale), rel=1e-4)
        b2 = sum(b * b for _, b in pairs)
        assert row.total.cosine == pytest.approx(sum(a * b for a, b in pairs) / math.sqrt(signal * b2), abs=1e-6)
        assert row.total.mean_error == pytest.approx(sum(b - a for a, b in pairs) / len(pairs), abs=1e-5)
        own = sum(
            (a - b) ** 2 for a, b in zip(exact.flatten().tolist(), real[node.name].flatten().tolist(), strict=True)
        )
        assert row.own.noise == pytest.approx(own, rel=1e-4, abs=1e-9)
        lo, hi = float(qp.scale) * (qp.qmin - 0.5 - qp.zero_point), float(qp.scale) * (qp.qmax + 0.5 - qp.zero_point)
        values = exact.flatten().tolist()
        assert row.codes.clipped_low == sum(v < lo for v in values)
        assert row.codes.clipped_high == sum(v > hi for v in values)
        clipped += row.codes.clipped_low + row.codes.clipped_high
        low, high = layer.clamp or (qp.qmin, qp.qmax)
        listed = site.flatten().tolist()
        assert row.codes.reachable == high - low + 1
        assert row.codes.used == len(set(listed))
        assert row.codes.dead_levels == sum(code not in set(listed) for code in range(low, high + 1))
        assert (row.codes.at_low, row.codes.at_high) == (listed.count(low), listed.count(high))
        shares = [listed.count(code) / len(listed) for code in set(listed)]
        assert row.codes.entropy_bits == pytest.approx(-sum(s * math.log2(s) for s in shares))
        assert (row.weights is None) == (layer.weight is None)
    assert clipped > 0, "the test needs values outside the ranges"


def test_weights_channel_by_channel():
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU())
    weight = torch.tensor([100.0, 0.2, 0.0, -50.0]).reshape(4, 1, 1, 1)
    net[0].weight.data, net[0].bias.data = weight, torch.zeros(4)
    traced = ql.trace(net.requires_grad_(False), torch.zeros(1, 1, 4, 4))
    per_tensor = ql.Recipe(weights=ql.TensorRecipe(scheme="symmetric_restricted"))
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    row = ql.analyze(ql.quantize_model(traced, per_tensor, ql.calibrate(traced, [x], per_tensor)), [x])["0"]
    assert row.weights.ranges.tolist() == pytest.approx(np.float32([[100, 100], [0.2, 0.2], [0, 0], [-50, -50]]))
    assert row.weights.silenced == (1,)  # 0.2 is below half of 100 / 127
    assert row.weights.all_zero == (2,)
    assert row.weights.max_over_median == pytest.approx(100 / 25.1)
    per_channel = ql.Recipe()
    other = ql.analyze(ql.quantize_model(traced, per_channel, ql.calibrate(traced, [x], per_channel)), [x])["0"]
    assert other.weights.silenced == ()
    assert other.weights.sqnr_db > 100 > row.weights.sqnr_db
    assert WeightUse.of(QuantizedLayer(traced.nodes[1], None), weight) is None


def test_rounding_alone_is_the_ideal():
    """A fine grid over a smooth distribution errs uniformly: RMSE / S = 1/sqrt(12)."""
    net = ql.trace(nn.ReLU(), torch.zeros(1, 1, 8, 8))
    recipe = ql.Recipe(activations=ql.TensorRecipe(scheme="affine", calibrator="minmax"))
    x = torch.randn(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    table = ql.analyze(ql.quantize_model(net, recipe, ql.calibrate(net, [x], recipe)), [x])
    assert table["input"].rmse_over_scale == pytest.approx(1 / math.sqrt(12), rel=0.01)
    assert table[1].own_sqnr_db == math.inf  # ReLU on codes loses nothing
    assert table[1].to_dict()["own_sqnr_db"] is None
    assert "exact" in str(table)


def test_layers_in_float_have_no_codes():
    net, _ = quantized_network()
    weights_only = ql.quantize_model(net, ql.Recipe(activations=None), {})
    table = ql.analyze(weights_only, [pictures(2)])
    assert all(row.codes is None and row.scale is None and math.isnan(row.rmse_over_scale) for row in table)
    assert table["input"].sqnr_db == math.inf
    assert 20 < table["conv1"].sqnr_db < 70
    nothing = ql.analyze(ql.quantize_model(net, ql.Recipe(activations=None, weights=None), {}), [pictures(2)])
    assert all(row.sqnr_db == row.own_sqnr_db == math.inf for row in nothing)


def test_another_reference():
    net, quantized = quantized_network()
    changed = net.with_nodes(
        replace(node, params={**node.params, "bias": node.params["bias"] + 1.0}) if node.name == "head" else node
        for node in net.nodes
    )
    here, there = (ql.analyze(quantized, [pictures(4)], reference=reference) for reference in (net, changed))
    assert there["conv1"].total == here["conv1"].total
    assert there["head"].total.mean_error == pytest.approx(here["head"].total.mean_error - 1.0, abs=1e-5)
    assert there["head"].own.mean_error == pytest.approx(here["head"].own.mean_error - 1.0, abs=1e-5)


def test_the_table_is_a_value():
    _, quantized = quantized_network()
    table = ql.analyze(quantized, [(pictures(4), None)])
    worst = table.worst_first()
    assert sorted(row.own_sqnr_db for row in table) == [row.own_sqnr_db for row in worst]
    assert worst.worst_first("sqnr_db")[0].sqnr_db == min(row.sqnr_db for row in table)
    assert len(str(table).splitlines()) == len(table) + 2
    assert table._repr_html_().count("<tr>") == len(table) + 1
    assert json.loads(json.dumps(table.to_dict(), allow_nan=False))["rows"][1]["site"] == table[1].site
    with pytest.raises(KeyError, match="no site 'nope'; there are input"):
        table["nope"]


def test_what_does_not_fit_is_refused():
    _, quantized = quantized_network()
    with pytest.raises(DataError, match="no pictures"):
        ql.analyze(quantized, [])
    with pytest.raises(GraphError, match="from quantize_model"):
        ql.analyze(quantized.to_integer(), [pictures(1)])
    other, _ = quantized_network("depthwise")
    with pytest.raises(GraphError, match="other layers than the quantized network"):
        ql.analyze(quantized, [pictures(1)], reference=other)
    for bad in (math.nan, math.inf):
        with pytest.raises(GraphError, match="NaN or Inf"):
            ql.analyze(quantized, [torch.full((1, 3, 15, 15), bad)])
    with pytest.raises(GraphError, match="takes a batch of shape"):
        ql.analyze(quantized, [torch.zeros(1, 3, 4, 4)])
    with pytest.raises(QLearnError, match="equal shapes"):
        NoiseSums.of([1.0], [1.0, 2.0])


def test_huge_values_do_not_break_the_sums():
    _, quantized = quantized_network()
    row = ql.analyze(quantized, [pictures(2) * 1e30])["input"]
    assert row.codes.clipped_share > 0.9
    assert math.isfinite(row.sqnr_db)
    assert -1e-3 < row.sqnr_db < 1e-3  # all that is left of the signal is its sign


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, 12, elements=numbers), arrays(np.float64, 12, elements=numbers), st.integers(0, 12))
def test_sums_do_not_depend_on_the_split(x, y, cut):
    whole, parts = NoiseSums.of(x, y), NoiseSums.of(x[:cut], y[:cut]) + NoiseSums.of(x[cut:], y[cut:])
    for key, value in vars(whole).items():
        assert getattr(parts, key) == pytest.approx(value, rel=1e-9, abs=1e-9), key
    assert -1.0000001 <= whole.cosine <= 1.0000001
    assert whole.rmse == pytest.approx(np.sqrt(np.mean((x - y) ** 2)))


@pytest.mark.parametrize(
    ("signal", "noise", "expected"),
    [(1.0, 0.0, math.inf), (0.0, 0.0, math.inf), (0.0, 1.0, -math.inf), (1.0, math.inf, -math.inf),
     (1.0, math.nan, -math.inf), (math.inf, 1.0, math.inf), (1e-300, 1e300, -6000.0), (4.0, 4.0, 0.0)],
)  # fmt: skip
def test_decibels_of_everything(signal, noise, expected):
    assert decibels(signal, noise) == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-8, 7), min_size=1, max_size=40))
def test_counts_of_codes(codes):
    qp = ql.QParams(0.5, 0, -8, 7)
    counts = code_counts(torch.tensor(codes, dtype=torch.float32), qp)
    assert counts.tolist() == [codes.count(code) for code in range(-8, 8)]
    layer = QuantizedLayer(ql.trace(nn.ReLU(), torch.zeros(1, 1)).nodes[0], qp)
    use = CodeUse.of(layer, counts, (0, 0))
    assert (use.total, use.used, use.dead_levels) == (len(codes), len(set(codes)), 16 - len(set(codes)))
    assert 0 <= use.entropy_bits <= use.bits_used + 1e-9
