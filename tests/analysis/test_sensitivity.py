"""Sensitivity against networks that are quantized anew for every layer, and measures against loops."""

import json
import math

import numpy as np
import pytest
import torch
from networks import pictures
from quantized_networks import FOUR_BITS, quantized_network

import qlearn as ql
from qlearn.analysis.effects import Scores
from qlearn.analysis.partly import partly, sites_of
from qlearn.errors import DataError, GraphError
from qlearn.integer.layers import SHARING_OPS

X = pictures(7, seed=9)
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1])
FLOAT = ql.Recipe(activations=None, weights=None)


def kl_by_loops(expected, logits):
    total = 0.0
    for a, b in zip(expected.double().tolist(), logits.double().tolist(), strict=True):
        p = [math.exp(v - max(a)) for v in a]
        q = [math.exp(v - max(b)) for v in b]
        total += sum(pi / sum(p) * math.log((pi / sum(p)) / (qi / sum(q))) for pi, qi in zip(p, q, strict=True))
    return total / len(expected)


def alone(net, table, site, kinds=("activations", "weights")):
    """A recipe that quantizes one layer: the independent way to the same network."""
    recipe = FLOAT.with_layer(site, **{kind: getattr(FOUR_BITS, kind) for kind in kinds})
    ranges = {site: table[site]} if "activations" in kinds and site in table else {}
    return ql.quantize_model(net, recipe, ranges)


def without(net, table, site):
    recipe = FOUR_BITS.with_layer(site, activations=None, weights=None)
    return ql.quantize_model(net, recipe, {name: r for name, r in table.items() if name != site})


@pytest.mark.parametrize("name", ["residual", "depthwise"])
def test_as_if_each_network_were_quantized_by_its_own_recipe(name):
    net, quantized = quantized_network(name, FOUR_BITS)
    table = ql.calibrate(net, [pictures(8)], FOUR_BITS)
    result = ql.sensitivity(quantized, [(X[:3], LABELS[:3]), (X[3:], LABELS[3:])])
    expected = net(X)
    assert result.float_accuracy == float((expected.argmax(1) == LABELS).double().mean())
    for row in result:
        for effect, network in ((row.alone, alone(net, table, row.site)), (row.without, without(net, table, row.site))):
            logits = network(X)
            assert effect.sqnr_db == pytest.approx(ql.sqnr_db(expected, logits), abs=0.02), row.site
            assert effect.agreement == float((expected.argmax(1) == logits.argmax(1)).double().mean())
            assert effect.accuracy == float((logits.argmax(1) == LABELS).double().mean())
            assert effect.kl == pytest.approx(kl_by_loops(expected, logits), rel=0.02, abs=1e-6)
    assert result.all.sqnr_db == pytest.approx(ql.sqnr_db(expected, quantized(X)), abs=1e-3)


@pytest.mark.parametrize("what", ["weights", "activations"])
def test_one_kind_at_a_time(what):
    net, quantized = quantized_network("residual", FOUR_BITS)
    table = ql.calibrate(net, [pictures(8)], FOUR_BITS)
    result = ql.sensitivity(quantized, [X], what=what, without=False)
    for row in result:
        other = alone(net, table, row.site, [what])
        assert row.without is None
        assert row.alone.accuracy is None
        assert row.alone.sqnr_db == pytest.approx(ql.sqnr_db(net(X), other(X)), abs=0.02)
    half = partly(quantized, **{"activations" if what == "weights" else "weights": ()})
    assert result.all.sqnr_db == pytest.approx(ql.sqnr_db(net(X), half(X)), abs=1e-3)


def test_sites_are_what_a_recipe_can_name():
    _, quantized = quantized_network("residual")
    ops = {layer.node.name: layer.node.op for layer in quantized.layers}
    assert sites_of(quantized) == [name for name, op in ops.items() if op not in SHARING_OPS]


def test_nothing_quantized_is_float_and_everything_is_the_network():
    net, quantized = quantized_network("residual", FOUR_BITS)
    assert torch.equal(partly(quantized, weights=(), activations=())(X), quantized.model(X))
    assert torch.equal(partly(quantized)(X), quantized(X))
    with pytest.raises(GraphError, match="no layer 'nope' in residual; there are"):
        partly(quantized, weights=["nope"])
    with pytest.raises(GraphError, match="leaves the output of 'conv1' in float"):
        partly(quantized, activations=["input"]).to_integer()
    assert torch.equal(net(X), quantized.model(X))  # nothing was changed on the way


def test_rankings():
    _, quantized = quantized_network("residual", FOUR_BITS)
    result = ql.sensitivity(quantized, [(X, LABELS)])
    for by in ("sqnr_db", "agreement", "accuracy"):
        values = [getattr(row.alone, by) for row in result.ranking(by)]
        assert values == sorted(values)
        back = [getattr(row.without, by) for row in result.ranking(by, without=True)]
        assert back == sorted(back, reverse=True)
    assert [row.alone.kl for row in result.ranking("kl")] == sorted((row.alone.kl for row in result), reverse=True)
    assert [r.without.kl for r in result.ranking("kl", without=True)] == sorted(r.without.kl for r in result)
    assert result.ranking()[0].site in str(result).splitlines()[2]
    fields = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [row["site"] for row in fields["rows"]] == [row.site for row in result]
    assert result[result[2].site] == result[2]


def test_what_was_not_measured_is_refused():
    _, quantized = quantized_network("residual")
    result = ql.sensitivity(quantized, [X], without=False)
    with pytest.raises(DataError, match="no measure 'speed'; there are sqnr_db"):
        result.ranking("speed")
    with pytest.raises(DataError, match=r"accuracy \(it needs labels\) was not measured"):
        result.ranking("accuracy")
    with pytest.raises(DataError, match="all but one layer was not measured"):
        result.ranking(without=True)
    with pytest.raises(DataError, match="what is one of both, weights, activations"):
        ql.sensitivity(quantized, [X], what="bias")
    with pytest.raises(DataError, match="no pictures"):
        ql.sensitivity(quantized, [])
    with pytest.raises(DataError, match=r"7 pictures, but labels of shape \(3,\)"):
        ql.sensitivity(quantized, [(X, LABELS[:3])])
    convolution = ql.trace(torch.nn.Conv2d(3, 2, 3), X[:1])
    other = ql.quantize_model(convolution, ql.Recipe(), ql.calibrate(convolution, [X], ql.Recipe()))
    with pytest.raises(DataError, match="flatten the output"):
        ql.sensitivity(other, [X])


def test_divergence_of_probabilities_and_of_logits():
    logits, others = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]]), torch.tensor([[1.0, 3.0, 3.0], [1.0, 0.0, 0.0]])
    by_logits, by_shares = Scores(), Scores()
    by_logits.see(logits, others, None, probabilities=False)
    by_shares.see(logits.softmax(1), others.softmax(1), None, probabilities=True)
    assert by_logits.effect().kl == pytest.approx(kl_by_loops(logits, others))
    assert by_shares.effect().kl == pytest.approx(by_logits.effect().kl, rel=1e-5)
    impossible = Scores()
    impossible.see(torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]]), None, probabilities=True)
    assert impossible.effect().kl == math.inf
    assert impossible.effect().to_dict()["kl"] is None
    certain = Scores()
    certain.see(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]), None, probabilities=True)
    assert certain.effect().kl == 0.0
    assert np.isinf(certain.effect().sqnr_db)
