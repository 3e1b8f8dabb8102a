"""The doctor finds what was planted and nothing else, and has nothing to say about healthy networks."""

import functools
import json
import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from broken_networks import BROKEN, PER_TENSOR, dead_channels, pairs, start
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import qlearn as ql
from qlearn.analysis.doctor import faults
from qlearn.analysis.doctor.answers import classes_in
from qlearn.analysis.doctor.case import open_case
from qlearn.analysis.doctor.diagnose import told_apart
from qlearn.analysis.doctor.faults import FAULTS, SEVERITIES, fault_table
from qlearn.analysis.doctor.finding import MOST_OF_A_KIND, Finding, Gain
from qlearn.analysis.doctor.inputs import first_layer
from qlearn.analysis.doctor.remedies import per_channel_weights
from qlearn.analysis.doctor.sample import sample
from qlearn.analysis.doctor.weights import grid_of
from qlearn.errors import DataError, GraphError
from qlearn.graph.equalize import cross_layer_equalize
from qlearn.zoo.models.families import FAMILIES, family

needs_data = pytest.mark.skipif("QLEARN_DATA" not in os.environ, reason="QLEARN_DATA is not set")
BOOK = Path(__file__).parents[2] / "book"


@functools.cache
def found(what):
    """What was broken, and what the doctor says of it: once for the tests that ask."""
    make, network = BROKEN[what]
    broken = make(network)
    return broken, broken.diagnose()


@pytest.mark.parametrize("what", BROKEN)
def test_finds_the_fault_and_nothing_else(what):
    broken, diagnosis = found(what)
    assert diagnosis.faults == {broken.fault}, diagnosis
    assert broken.site is None or {finding.site for finding in diagnosis} == {broken.site}
    assert all(0.8 <= finding.confidence <= 1 and finding.remedies for finding in diagnosis)
    assert all(symptom.fault in FAULTS[broken.fault].explains for symptom in diagnosis.symptoms)


def test_how_many_were_found(capsys):
    planted = {what: found(what) for what in BROKEN}
    right = sum(diagnosis.faults == {broken.fault} for broken, diagnosis in planted.values())
    with capsys.disabled():
        print(f"\n{right} of {len(planted)} planted faults found, and nothing else")
    assert {broken.fault for broken, _ in planted.values()} == set(FAULTS), "every fault is planted somewhere"


def test_the_records_fit_together():
    assert all(set(fault.explains) <= set(FAULTS) and fault.severity in SEVERITIES for fault in FAULTS.values())


RECIPES = {
    "default": ql.Recipe(),
    "per tensor, minmax": ql.Recipe(
        activations=ql.TensorRecipe(scheme="affine", calibrator="minmax"),
        weights=ql.TensorRecipe(scheme="symmetric_restricted"),
    ),
    "symmetric, percentile": ql.Recipe(
        activations=ql.TensorRecipe(scheme="symmetric", calibrator="percentile", calibrator_params={"percent": 99.9})
    ),
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", ["tiny_resnet", "tiny_mobilenet"])
def test_no_finding_on_the_bundled_networks(name, recipe):
    net, data = ql.load(name)
    diagnosis = ql.diagnose(net, data, recipe=RECIPES[recipe], images=48)
    assert diagnosis.healthy, diagnosis
    assert set(diagnosis.skipped) == {"codes_as_output", "swapped_colours"}
    assert f"no finding ({len(FAULTS) - 2} of {len(FAULTS)} kinds of faults" in str(diagnosis)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_finding_on_healthy_families(name):
    generator = torch.Generator().manual_seed(1)
    calibration, evaluation = ([torch.randn(16, 3, 32, 32, generator=generator)] for _ in range(2))
    net = ql.trace(family(name), torch.zeros(1, 3, 32, 32), name=name)
    diagnosis = ql.diagnose(net, evaluation, calibration=calibration)
    assert diagnosis.healthy, diagnosis
    assert diagnosis.skipped["labels_shifted"] == "no labels"


def test_no_finding_on_healthy_integers():
    _, data, folded, table = start("tiny_resnet")
    integer = ql.quantize_model(folded, ql.Recipe(), table).to_integer()
    beside = ql.diagnose(integer, data, reference=ql.load("tiny_resnet")[0], images=32)
    assert beside.healthy, beside
    assert len(beside.layers) == len(integer.layers)
    alone = ql.diagnose(integer, data.evaluation, images=32)
    assert alone.healthy, alone
    assert alone.effect is alone.layers is None
    assert alone.skipped["dead_channels"] == "no float network"
    pictures = data.evaluation.subset(40)
    outputs = integer(torch.cat([x for x, _ in pictures]).numpy())
    assert ql.diagnose(integer, pictures, reference=folded, outputs=outputs, images=32).healthy


@pytest.mark.realdata
@needs_data
def test_resnet20_is_healthy():
    net, data = ql.load("resnet20")
    diagnosis = ql.diagnose(net, data, images=64)
    assert diagnosis.healthy, diagnosis


@pytest.mark.realdata
@needs_data
def test_mobilenet_healthy_per_channel_and_ill_per_tensor(capsys):
    net, data = ql.load("mobilenet_v1_0.25")
    calibration = data.calibration.subset(64)
    healthy = ql.diagnose(net, data.evaluation, calibration=calibration, images=64)
    assert healthy.healthy, healthy
    ill = ql.diagnose(net, data.evaluation, calibration=calibration, recipe=PER_TENSOR, images=64)
    assert ill.faults == {"dead_channels", "unequal_channels"}
    dead = [finding for finding in ill if finding.fault == "dead_channels"]
    assert {"blocks.0.conv", "blocks.2.conv"} <= {finding.site for finding in dead}
    gains = {remedy.text: remedy.gain.points for remedy in dead[0].remedies}
    assert gains["use per-channel weights"] > 40
    assert gains["zero_dead_inputs() then cross_layer_equalize()"] > 20
    swapped = ql.diagnose(net, pairs(data.evaluation, lambda x: x.flip(1)), calibration=calibration, images=64)
    assert swapped.faults == {"swapped_colours"}
    assert swapped.findings[0].channels == (2, 1, 0)
    with capsys.disabled():
        print(f"\n{ill}\n{swapped}")


def test_remedies_are_tried_here():
    broken = dead_channels("tiny_mobilenet")
    diagnosis = broken.diagnose(measure=True, images=100)
    (finding,) = diagnosis.findings
    assert finding.channels == (3,)
    before, after = diagnosis.effect, [remedy.gain for remedy in finding.remedies]
    assert all(gain.by == "accuracy" and gain.before == before.accuracy for gain in after)
    mended = finding.remedies[0].mend()
    assert isinstance(mended, ql.QuantizedModel)
    again = ql.diagnose(mended, broken.data, images=100)
    assert again.healthy, again
    assert again.effect.accuracy == pytest.approx(after[0].after)
    assert "points of accuracy here" in str(diagnosis)
    without = ql.diagnose(broken.model, pairs(broken.data.evaluation, count=32), recipe=PER_TENSOR, table=None,
                          calibration=[x for x, _ in broken.data.calibration.subset(32)])  # fmt: skip
    assert without.findings[0].remedies[1].gain.by == "accuracy"


def test_without_labels_the_gain_is_agreement():
    broken = dead_channels("tiny_mobilenet")
    x = [images for images, _ in broken.data.evaluation.subset(32)]
    (finding,) = broken.diagnose(measure=True).findings
    (blind,) = ql.diagnose(broken.model, x, calibration=broken.data.calibration, recipe=PER_TENSOR).findings
    assert finding.remedies[0].gain.by == "accuracy"
    assert blind.remedies[0].gain.by == "agreement"
    assert blind.sentence == finding.sentence


def test_the_diagnosis_is_a_value():
    _, diagnosis = found("weights quantized twice")
    assert len(diagnosis) == len(list(diagnosis)) > MOST_OF_A_KIND
    assert "... and so at" in str(diagnosis)
    assert diagnosis._repr_html_().startswith("<pre>")
    document = json.loads(json.dumps(diagnosis.to_dict(), allow_nan=False))
    assert document["findings"][0]["fault"] == "quantized_twice"
    assert document["layers"]["rows"][0]["site"] == "input"
    with pytest.raises(AttributeError):
        diagnosis.model = "other"


def test_a_useless_network_is_an_error_not_a_warning():
    net, data = ql.load("tiny_resnet")
    two_bits = ql.Recipe(weights=ql.TensorRecipe(scheme="symmetric_restricted", bits=2))
    (finding,) = ql.diagnose(net, data, recipe=two_bits, images=32).findings
    assert (finding.fault, finding.severity, finding.site) == ("few_bits", "error", "all layers")
    assert finding.best_gain > 30


def test_the_book_says_what_the_code_does():
    page = (BOOK / "doctor.md").read_text(encoding="utf-8")
    assert fault_table() in page
    results = json.loads((BOOK.parent / "notebooks" / "results" / "doctor_margins.json").read_text(encoding="utf-8"))
    for sign, row in results["signs"].items():
        assert row["limit"] == getattr(faults, sign)
        assert f"| `{sign}` | {row['limit']:g} | {row['worst healthy']:.3g} | {row['where']} |" in page
    shares = results["share_of_channels"]
    healthy, mistaken = shares["most of the healthy"], shares["fewest under a mistake"]
    assert (shares["limit"], shares["channel_off"]) == (faults.MOST_CHANNELS, faults.CHANNEL_OFF)
    assert healthy["share"] < shares["limit"] < mistaken[0]["share"]
    assert f"at most {healthy['share']:.0%} of the channels ({healthy['where']})" in page
    assert f"all {shares['mistakes seen']} mistakes" in page
    for one in mistaken[:2]:
        assert f"{one['share']:.0%} ({one['where']})" in page


def test_symptoms_are_told_from_causes():
    cause, symptom, other = (
        Finding(fault, "here", "", 1.0, {}) for fault in ("raw_pixels", "range_too_wide", "few_bits")
    )
    assert told_apart([symptom, cause]) == ([cause], [symptom])
    assert told_apart([symptom]) == ([symptom], [])
    assert told_apart([other, cause])[1] == [other]


def test_the_first_layer_speaks_the_language_of_its_batch_norm():
    """(y - β) / (|γ| σ / √(σ² + ε)) is ±(x - μ) / σ, for the convolution's own sum x: an oracle without folding."""
    net, data = ql.load("tiny_resnet")
    x = torch.cat([images for images, _ in data.evaluation.subset(5)])
    layer = first_layer(ql.fold_batch_norm(net))
    conv, norm = net.node("conv"), net.node("bn")
    sums = torch.conv2d(x, conv.params["weight"], padding=1).double()
    mean, variance = (norm.params[key].double() for key in ("running_mean", "running_var"))
    means, squares = layer.per_picture(x)
    for picture in range(5):
        for channel in range(sums.shape[1]):
            z = (sums[picture, channel] - mean[channel]) / variance[channel].sqrt()
            sign = float(torch.sign(norm.params["weight"][channel]))
            assert float(means[picture, channel]) == pytest.approx(sign * float(z.mean()), abs=1e-4)
            assert float(squares[picture, channel]) == pytest.approx(float((z * z).mean()), rel=1e-3)


def test_no_first_layer_where_something_computes_before_it():
    norm_later = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert first_layer(ql.fold_batch_norm(ql.trace(norm_later.eval(), torch.zeros(1, 3, 8, 8)))) is None
    assert first_layer(None) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-127, 127), min_size=6, max_size=40, unique=True), st.floats(1e-4, 1e4))
def test_weights_on_a_grid_are_recognised(codes, step):
    row = np.float32(codes).astype(np.float64) * np.float64(np.float32(step))
    found = grid_of(row)
    assert found is not None
    multiples = row / found
    assert np.abs(multiples - multiples.round()).max() < 2e-3


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(9, 60))
def test_weights_off_any_grid_are_not(seed, count):
    assert grid_of(np.random.default_rng(seed).normal(size=count)) is None


def test_classes_are_counted_by_entropy():
    assert classes_in(torch.tensor([4] * 9)) == pytest.approx(1)
    assert classes_in(torch.tensor([0, 1] * 8)) == pytest.approx(2)
    assert 1 < classes_in(torch.tensor([0] * 9 + [1])) < 2


def test_gains_are_in_points():
    assert str(Gain("accuracy", 0.001, 0.562)) == "+56.1 points of accuracy here (0.1% to 56.2%)"
    assert Gain("agreement", 0.5, 0.25).points == -25


NO_PICTURES = {"calibration": [torch.zeros(1, 3, 32, 32)]}
OTHER_OUTPUTS = {"outputs": np.zeros((3, 10))}
BAD = {
    "no data": (lambda d: (d["net"], None), {}, DataError, "needs pictures"),
    "no pictures": (lambda d: (d["net"], []), NO_PICTURES, DataError, "there are none"),
    "an iterator that is used up": (lambda d: (d["net"], iter(())), {"table": {}}, DataError, "used up"),
    "nothing to calibrate on": (lambda d: (d["net"], d["x"]), {}, DataError, "calibration="),
    "too few labels": (lambda d: (d["quantized"], [(d["x"], np.arange(3))]), {}, DataError, "8 pictures, but"),
    "NaN": (lambda d: (d["quantized"], [d["x"], d["nan"]]), {}, DataError, "1 of 9 hold NaN"),
    "infinite": (lambda d: (d["quantized"], [d["nan"].nan_to_num(torch.inf)]), {}, DataError, "NaN or Inf"),
    "no network": (lambda d: (nn.Conv2d(3, 4, 3), d["x"]), {}, GraphError, "got Conv2d"),
    "another shape": (lambda d: (d["quantized"], [torch.zeros(2, 3, 16, 16)]), {}, GraphError, "takes a batch"),
    "no picture at all": (lambda d: (d["quantized"], d["x"]), {"images": 0}, DataError, "at least 1"),
    "outputs of another number": (lambda d: (d["quantized"], d["x"]), OTHER_OUTPUTS, DataError, "one row"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused(what):
    _, data, folded, table = start("tiny_resnet", 16)
    x = torch.cat([images for images, _ in data.evaluation.subset(8)])
    nan = x[:1].clone()
    nan[0, 0, 0, 0] = torch.nan
    given_ = {"net": folded, "quantized": ql.quantize_model(folded, ql.Recipe(), table), "x": x, "nan": nan}
    make, more, error, message = BAD[what]
    with pytest.raises(error, match=message):
        ql.diagnose(*make(given_), **more)


def test_an_integer_model_needs_its_own_float_network():
    _, data, folded, table = start("tiny_resnet", 16)
    integer = ql.quantize_model(folded, ql.Recipe(), table).to_integer()
    with pytest.raises(GraphError, match="other layers than the integer model"):
        ql.diagnose(integer, data, reference=ql.load("tiny_mobilenet")[0])
    equalized = cross_layer_equalize(folded)
    repaired = ql.quantize_model(equalized, ql.Recipe(), ql.calibrate(equalized, data.calibration, ql.Recipe()))
    assert ql.diagnose(repaired, data, images=16, measure=False).healthy
    with pytest.raises(GraphError, match="not those of the float network, rounded"):
        ql.diagnose(repaired.to_integer(), data, reference=folded)


@pytest.mark.parametrize("parts", [{"weights": None}, {"activations": None}, {"weights": None, "activations": None}])
def test_parts_in_float_are_no_fault(parts):
    net, data = ql.load("tiny_resnet")
    diagnosis = ql.diagnose(net, data, recipe=ql.Recipe(**parts), images=16)
    assert diagnosis.healthy, diagnosis


def test_samples_are_drawn_from_all_batches():
    x = torch.arange(100.0).reshape(100, 1)
    taken = sample([x[:60], x[60:]], 10, "pictures")
    assert taken.x.flatten().tolist() == taken.indices.tolist() == sorted(set(taken.indices.tolist()))
    assert min(taken.indices) < 30
    assert max(taken.indices) > 70
    assert taken.count == 100
    assert taken.labels is None
    assert sample(x, 200, "pictures").x.shape == (100, 1)


def test_one_colour_and_constant_pictures():
    """Grey pictures have no colours to swap; constant ones have no spread."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    traced = ql.trace(net.requires_grad_(False), torch.zeros(1, 1, 8, 8))
    x = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "swapped_colours" not in ql.diagnose(traced, [x], calibration=[x]).faults
        flat = ql.diagnose(traced, [torch.zeros(16, 1, 8, 8)], calibration=[torch.zeros(16, 1, 8, 8)])
    assert flat.faults <= {"wrong_normalisation"}


def test_learned_weights_are_not_taken_for_the_float_network_in_silence():
    net, data, folded, _ = start("tiny_resnet")
    coarse = ql.Recipe(weights=ql.TensorRecipe(scheme="symmetric_restricted", bits=3, granularity="per_channel"))
    table = ql.calibrate(folded, data.calibration, coarse)
    learned = ql.quantize_model(
        ql.adaround(folded, coarse, table, data.calibration, iterations=0, samples=200), coarse, table
    )
    blind = ql.diagnose(learned, data, images=32, measure=False)
    (warning,) = blind.warnings
    assert "reference=" in warning
    assert "warning: the weights of" in str(blind)
    assert blind.to_dict()["warnings"] == [warning]
    beside = ql.diagnose(learned, data, reference=net, recipe=coarse, images=32, measure=False)
    assert beside.warnings == ()
    x = sample(data.evaluation, 32, "pictures").x
    expected = ql.sqnr_db(folded(x).numpy(), learned(x).numpy())
    assert beside.effect.sqnr_db == pytest.approx(expected, abs=0.01)
    assert blind.effect.sqnr_db > expected + 3, "rounding seemed to be free"
    with pytest.raises(GraphError, match="other layers than the quantized model"):
        ql.diagnose(learned, data, reference=ql.load("tiny_mobilenet")[0])
    plain = ql.quantize_model(folded, coarse, table)
    assert ql.diagnose(plain, data, images=16, measure=False).warnings == ()


def changed_filter(net, folded):
    """One filter of the first layer, times 3000."""
    first = next(node for node in folded.nodes if node.op == "conv2d")
    weight = first.params["weight"].clone()
    weight[2] *= 3000
    return folded.with_nodes(
        replace(node, params={**node.params, "weight": weight}) if node is first else node for node in folded.nodes
    )


def stale(mean, variance, everywhere):
    """Batch-norm statistics that are not those of the training."""

    def make(net, folded):
        norms = [node for node in net.nodes if node.op == "batch_norm"]
        chosen = {node.name for node in (norms if everywhere else norms[:1])}
        return net.with_nodes(
            replace(node, params={**node.params, "running_mean": mean(node.params["running_mean"]),
                                  "running_var": variance(node.params["running_var"])})
            if node.name in chosen else node for node in net.nodes
        )  # fmt: skip

    return make


NOT_THE_PICTURES = {
    "a filter times 3000": changed_filter,
    "statistics never measured": stale(torch.zeros_like, torch.ones_like, True),
    "statistics of the first layer never measured": stale(torch.zeros_like, torch.ones_like, False),
    "variances of the first layer 16 times too large": stale(lambda m: m, lambda v: 16 * v, False),
    "variances of all layers 16 times too small": stale(lambda m: m, lambda v: v / 16, True),
}


@pytest.mark.parametrize("what", NOT_THE_PICTURES)
@pytest.mark.parametrize("name", ["tiny_resnet", "tiny_mobilenet"])
def test_a_changed_network_is_not_blamed_on_the_pictures(what, name):
    """The pictures are as in training: whatever the first batch norm says, the doctor must not be sure of the other."""
    net, data, folded, _ = start(name)
    broken = NOT_THE_PICTURES[what](net, folded)
    diagnosis = ql.diagnose(broken, data, images=32, measure=False)
    for finding in (*diagnosis.findings, *diagnosis.symptoms):
        if finding.fault == "wrong_normalisation":
            assert finding.confidence <= 0.7, finding
            assert "changed" in finding.sentence or "stale" in finding.sentence
            if what == "a filter times 3000":
                assert finding.channels == (2,)
                assert finding.sure == "possible"


def test_a_mistake_that_moves_few_channels_is_still_the_pictures():
    """Divided by 255 twice: under half of the first layer's channels notice, and no filter was changed."""
    net, data = ql.load("tiny_resnet")
    x = torch.cat([images for images, _ in data.evaluation.subset(64)])
    mean, std = (torch.tensor(one).reshape(-1, 1, 1) for one in (net.preprocess.mean, net.preprocess.std))
    wrong = ((x * std + mean) / 255 - mean) / std
    diagnosis = ql.diagnose(net, [wrong], calibration=data.calibration, measure=False)
    (finding,) = (one for one in diagnosis.findings if one.fault == "wrong_normalisation")
    assert finding.evidence["share_of_channels"] < 0.5
    assert finding.channels == ()
    assert "divided by 255 twice" in finding.sentence


def test_remedies_are_tried_on_learned_roundings():
    """A remedy by another recipe needs another grid than the one that is pinned."""
    _net, data, folded, _ = start("tiny_resnet")
    table = ql.calibrate(folded, data.calibration, PER_TENSOR)
    learned = ql.adaround(folded, PER_TENSOR, table, data.calibration, iterations=0, samples=200)
    case = open_case(
        ql.quantize_model(learned, PER_TENSOR, table), data, recipe=None, table=None, calibration=None,
        reference=None, outputs=None, images=16,
    )  # fmt: skip
    first = next(node for node in learned.nodes if node.op == "conv2d").name
    same, other = (
        next(layer.weight_qparams for layer in case.remade(learned, recipe).layers if layer.node.name == first)
        for recipe in (PER_TENSOR, ql.Recipe())
    )
    assert same == learned.node(first).attrs["weight_qparams"]
    assert same.axis is None
    assert other.axis == 0
    assert per_channel_weights(case).mend() is not None
