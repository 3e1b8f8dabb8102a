"""Every figure is drawn from good, odd and empty data, and leaves nothing behind."""

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import qlearn as ql
from qlearn import viz
from qlearn.errors import QLearnError

QP = ql.QParams(0.5, -2, -4, 3)
QP8 = ql.scheme("affine", bits=8).qparams(ql.ClipRange(-1.0, 2.5))
TINY = ql.QParams(1e-30, 0, -128, 127)
PER_CHANNEL = ql.QParams([0.5, 1.0], [0, 0], -4, 3, axis=0)
X = np.linspace(-2, 3, 50)
PICTURES = np.zeros((3, 4, 4, 3), np.uint8)
ODD = [float("inf"), float("-inf"), float("nan"), 0.0, -3.0, 40.0]
SITES = [f"blocks.{i}.depthwise.conv" for i in range(6)]
RANGES = np.stack([-np.arange(5.0), np.arange(5.0) / 2], axis=1)
PAIR = ([[16.0, -8.0], [0.5, 0.25]], [[1.0, 8.0], [-0.5, 4.0]])
DB = {"input": 46.4, "weight": 46.8, "bias": 97.5, "accumulator": float("inf"), "requantization": 44.8}

DRAWINGS = {
    "strip": lambda: viz.pipeline_strip("fold"),
    "strip of none": viz.pipeline_strip,
    "strip of many": lambda: viz.pipeline_strip(["fold", "evaluate"], title=""),
    "line": lambda: viz.number_line(QP, X, ql.fake_quantize(X, QP), title="t"),
    "line without values": lambda: viz.number_line(QP),
    "line with one value": lambda: viz.number_line(QP, 0.3, 0.5),
    "line of 256 levels": lambda: viz.number_line(QP8, X, ql.fake_quantize(X, QP8)),
    "line of tiny steps": lambda: viz.number_line(TINY),
    "line of 65536 levels": lambda: viz.number_line(ql.scheme("affine", bits=16).qparams(ql.ClipRange(-1, 1))),
    "grid": lambda: viz.integer_grid(X.reshape(5, 10), ql.quantize(X, QP).reshape(5, 10), X.reshape(5, 10)),
    "grid of one zero": lambda: viz.integer_grid([[0.0]], [[0]], [[0.0]], title="t"),
    "stairs": lambda: viz.rounding_staircase(X, ql.fake_quantize(X, QP), QP),
    "stairs of nothing": lambda: viz.rounding_staircase([], [], QP),
    "error": lambda: viz.error_curve(X, ql.fake_quantize(X, QP).numpy() - X, QP, title="t"),
    "error of nothing": lambda: viz.error_curve([], [], QP),
    "histogram": lambda: viz.histogram_with_range(X, ql.ClipRange(-1, 2.5), QP, title="t"),
    "histogram, log": lambda: viz.histogram_with_range(X, ql.ClipRange(-1, 2.5), QP8, log=True),
    "histogram, no levels": lambda: viz.histogram_with_range(X, ql.ClipRange(-1, 2.5)),
    "histogram of a constant": lambda: viz.histogram_with_range([7.0] * 9, ql.ClipRange(0, 7), QP, log=True),
    "histogram of nothing": lambda: viz.histogram_with_range([], ql.ClipRange(0, 0)),
    "curves": lambda: viz.curves([2, 4, 8], {"a": [1, 2, 3], "b": [3, 2, 1]}, title="t"),
    "curves with gaps": lambda: viz.curves([2, 4], {"a": [float("nan"), 2]}),
    "bars": lambda: viz.results_bars(["a", "b", "c"], [1.0, 0.0, 96.4], kinds=["float", "error", "quantized"]),
    "bars of nothing": lambda: viz.results_bars([], []),
    "ranges": lambda: viz.clip_ranges(X, {"a": ql.ClipRange(-1, 2), "b": ql.ClipRange(-9, 9)}, title="t"),
    "ranges of nothing": lambda: viz.clip_ranges([], {}),
    "ranges of a constant": lambda: viz.clip_ranges([7.0] * 9, {"a": ql.ClipRange(0, 7)}),
    "tradeoff": lambda: viz.tradeoff([1, 2, 3], [1, 2, 4], [5, 1, 0], {"a": 2.0}, title="t", limits=(0.1, 10)),
    "tradeoff of one": lambda: viz.tradeoff([1], [1], [1]),
    "dots": lambda: viz.dots(["a", "b"], {"8 bits": [1, 2], "4 bits": [0, float("nan")]}, title="t"),
    "dots of nothing": lambda: viz.dots([], {}),
    "spread": lambda: viz.spread([1, 2, 4], {"a": ([2, 3, 4], [1, 2, 3], [3, 4, 5]), "b": ([1] * 3,) * 3}),
    "spread of one": lambda: viz.spread([1], {"a": ([2], [1], [3])}, title="t"),
    "spread of nothing": lambda: viz.spread([], {}),
    "ladder": lambda: viz.decision_ladder(
        ["a", "b"], {"x": [(0.1, True)], "y": [(-60, False), (-3, False)]}, title="t"
    ),
    "ladder of nothing": lambda: viz.decision_ladder([], {}, title="t"),
    "differences with a limit": lambda: viz.differences(["a", "b"], [(0, -1, 1), (-2, -3, 0)], limit=-1, numbers=False),
    "front": lambda: viz.pareto_front([1, 2, 4], [3, 1, 0.1], marks={"a": (2, 2), "b": (3, 0.5)}, title="t"),
    "front with a zero": lambda: viz.pareto_front([1, 2], [1, 0], marks={"a": (1, 0)}),
    "front of zeros": lambda: viz.pareto_front([1], [0]),
    "front of nothing": lambda: viz.pareto_front([], []),
    "costs": lambda: viz.cost_bars(["a", "b"], {2: [1, 2], 8: [0.01, float("nan")]}, title="t"),
    "costs of zero": lambda: viz.cost_bars(["a"], {4: [0.0]}),
    "costs of nothing": lambda: viz.cost_bars([], {}),
    "allocation": lambda: viz.allocation_strip(["a", "b"], [8, 2], average=4, title="t"),
    "allocation by size": lambda: viz.allocation_strip(["a", "b"], [8, 2], widths=[1, 900], average=2.1),
    "allocation of nothing": lambda: viz.allocation_strip([], []),
    "sqnr": lambda: viz.layer_sqnr(["a", "b"], [40.0, 3.0], [41.0, 12.0], title="t"),
    "sqnr of odd values": lambda: viz.layer_sqnr(SITES, ODD, ODD),
    "sqnr of nothing": lambda: viz.layer_sqnr([], []),
    "rmse": lambda: viz.layer_rmse(["a", "b"], [0.289, 30.0], [0.2, 12.0], title="t"),
    "rmse of odd values": lambda: viz.layer_rmse(SITES, ODD, ODD),
    "rmse of nothing": lambda: viz.layer_rmse([], []),
    "budget": lambda: viz.budget_bars(["a", "b"], {p: [0.2, 0.0] for p in ("weights", "input", "bias", "mine")}),
    "budget of odd values": lambda: viz.budget_bars(SITES, {"weights": [float("nan")] * 6}, title="t"),
    "budget of nothing": lambda: viz.budget_bars([], {}),
    "sensitivity": lambda: viz.sensitivity_bars(["a", "b"], [1.0, 40.0], whole=0.5, title="t"),
    "sensitivity of odd values": lambda: viz.sensitivity_bars(SITES, ODD, whole=float("inf")),
    "sensitivity of nothing": lambda: viz.sensitivity_bars([], []),
    "channels": lambda: viz.channel_ranges({"before": RANGES, "after": RANGES * 0.1}, steps=7, title="t"),
    "channels that are zero": lambda: viz.channel_ranges({"a": RANGES * 0}),
    "channels of nothing": lambda: viz.channel_ranges({}),
    "no channels": lambda: viz.channel_ranges({"a": RANGES[:0]}),
    "scaled channels": lambda: viz.scaled_channels(PAIR, PAIR, [4.0, 0.25], title="t"),
    "scaled channels, one of them": lambda: viz.scaled_channels(([[0.0]], [[3.0]]), ([[0.0]], [[3.0]]), [1.0]),
    "scaled channels, an odd shape": lambda: viz.scaled_channels(
        (np.ones((2, 3)), np.ones((1, 2))), (np.eye(2, 3), np.ones((1, 2))), [1, 1]
    ),
    "surface": lambda: viz.loss_surface([-1, 0, 1], np.outer([4, 1, 9], [3, 1, 2]), {"float": (0, 0)}, title="t"),
    "surface that is flat": lambda: viz.loss_surface([0, 1], [[2.0, 2.0], [2.0, 2.0]]),
    "surface of zeros": lambda: viz.loss_surface([0, 1], np.zeros((2, 2))),
    "surface with holes": lambda: viz.loss_surface([-1, 0, 1], [[np.inf, 5, np.nan], [3, 0.1, 8], [9, 1e30, 2]]),
    "surface of holes": lambda: viz.loss_surface([0, 1], np.full((2, 2), np.inf)),
    "loss line": lambda: viz.loss_line([0, 1], {"a": [1, 2], "b": [3, 4]}, {"float": (0, 1)}, title="t"),
    "loss line with a hole": lambda: viz.loss_line([0, 1], {"a": [1, float("inf")]}),
    "loss line of nothing": lambda: viz.loss_line([], {}),
    "ways": lambda: viz.ptq_beside_qat(title="t"),
    "ways without a title": viz.ptq_beside_qat,
    "one output": lambda: viz.one_output([[4, 0], [3, 6]], [[4, -2], [1, 3]], [[16, 0], [3, 18]], {"sum": "37"}),
    "one output of a 1x1 filter": lambda: viz.one_output([[4]], [[5]], [[20]], {"sum": "20", "M": "2"}, title="t"),
    "one output, no chain": lambda: viz.one_output(
        np.eye(3, dtype=int), np.eye(3, dtype=int), np.eye(3, dtype=int), {}
    ),
    "errors": lambda: viz.convolution_errors(DB, title="t"),
    "errors, all exact": lambda: viz.convolution_errors(dict.fromkeys(viz.ERROR_SOURCES, float("inf"))),
    "errors, one negative": lambda: viz.convolution_errors(DB | {"accumulator": -4.7}),
    "straight through": lambda: viz.straight_through(X, ql.fake_quantize(X, QP), X, QP, title="t"),
    "straight through nothing": lambda: viz.straight_through([], [], [], QP),
    "straight through, all inside": lambda: viz.straight_through([0.1, 0.2], [0, 0], [0.1, 0.2], QP8),
    "step gradient": lambda: viz.step_gradient(X, X, QP, points=[(0.1, -0.2), (2, 3)], title="t"),
    "step gradient of nothing": lambda: viz.step_gradient([], [], QP),
    "step gradient of odd values": lambda: viz.step_gradient(ODD, ODD, QP),
    "layer in training": lambda: viz.fake_quantized_layer(title="t"),
    "schemes": lambda: viz.scheme_table(["a", "b"], ["x", "y\nz"], [[0.2, 65], [92, 92]], title="t"),
    "schemes with a hole": lambda: viz.scheme_table(["a"], ["x", "y"], [[float("nan"), 65]]),
    "schemes without float": lambda: viz.scheme_table(["a"], ["x", "y"], [[64, float("nan")]]),
    "schemes of nothing": lambda: viz.scheme_table([], ["x"], np.zeros((0, 1))),
    "differences": lambda: viz.differences(["a", "b"], [(0, -1, 1), (-60, -65, -55)], title="t"),
    "differences upwards": lambda: viz.differences(["a"], [(30, 20, 40)]),
    "differences of nothing": lambda: viz.differences([], []),
    "speed": lambda: viz.speed_ratios(["a", "b"], {"x": [3.1, 0.7], "y": [1, 2]}, title="t"),
    "speed of nothing": lambda: viz.speed_ratios([], {"x": []}),
    "speed without a tool": lambda: viz.speed_ratios(["a"], {}),
    "pictures": lambda: viz.pictures(PICTURES, ["a", "b", "c"], columns=2, title="t"),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_draws(name):
    before = dict(mpl.rcParams)
    ax = DRAWINGS[name]()
    assert isinstance(ax, Axes)
    assert viz.png(ax).startswith(b"\x89PNG")
    assert dict(mpl.rcParams) == before


def test_pyplot_is_never_touched():
    program = """
import sys
from qlearn import viz
viz.png(viz.pipeline_strip())
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_callers_axes_are_used():
    ax = Figure().subplots()
    assert viz.curves([1, 2], {"a": [1, 2]}, title="mine", ax=ax) is ax
    assert viz.title_of(ax) == "mine"


def test_errors_say_how_strong_they_are():
    shown = [text.get_text() for text in viz.convolution_errors(DB).texts]
    assert "1 input\n46.4 dB" in shown
    assert "4 accumulator\nexact" in shown


def test_title_of_a_new_figure():
    assert viz.title_of(viz.number_line(QP, title="levels")) == "levels"
    assert viz.title_of(viz.number_line(QP)) == ""


def test_same_data_same_bytes():
    assert viz.png(viz.number_line(QP, title="x")) == viz.png(viz.number_line(QP, title="x"))


REFUSED = {
    "no stage 'melt' in the pipeline; there are float, fold": lambda: viz.pipeline_strip("melt"),
    "2 values, but 1 reconstructed": lambda: viz.number_line(QP, [1.0, 2.0], [1.0]),
    "per channel": lambda: viz.number_line(PER_CHANNEL),
    "straight_through: arrays of one length expected, got 2, 1, 2": lambda: viz.straight_through(
        [1, 2], [1], [1, 2], QP
    ),
    "step_gradient: arrays of one length expected, got 2, 1": lambda: viz.step_gradient([1, 2], [1], QP),
    "three matrices of one shape": lambda: viz.integer_grid([[1.0]], [[1, 2]], [[1.0]]),
    "2 labels, 1 values": lambda: viz.results_bars(["a", "b"], [1.0]),
    "no kind 'int'": lambda: viz.results_bars(["a"], [1.0], kinds=["int"]),
    "clip_ranges draws ranges of a whole tensor": lambda: viz.clip_ranges(X, {"a": ql.ClipRange([0, 0], [1, 1])}),
    "dots: 'a' has 1 values, 2 are expected": lambda: viz.dots(["x", "y"], {"a": [1]}),
    "dots: at most 4 series can be told apart, got 5": lambda: viz.dots(["x"], {name: [1] for name in "abcde"}),
    "curves: 'a' has 1 values, 2 are expected": lambda: viz.curves([4, 8], {"a": [1]}),
    "curves: at most 4 series can be told apart, got 5": lambda: viz.curves([8], {name: [1] for name in "abcde"}),
    "spread: 'a' has 2 rows; mean, smallest and largest": lambda: viz.spread([1], {"a": ([1], [1])}),
    "spread: 'largest' has 2 values, 1 are expected": lambda: viz.spread([1], {"a": ([1], [1], [1, 2])}),
    "spread: at most 4 series": lambda: viz.spread([1], {name: ([1], [1], [1]) for name in "abcde"}),
    "layer_sqnr: 'own' has 1 values for 2 sites": lambda: viz.layer_sqnr(["a", "b"], [1, 2], [1]),
    "layer_rmse: 'total' has 1 values": lambda: viz.layer_rmse(["a", "b"], [1]),
    "sensitivity_bars: 'alone' has 1 values": lambda: viz.sensitivity_bars(["a", "b"], [1]),
    "budget_bars: 'bias' has 1 values": lambda: viz.budget_bars(["a", "b"], {"bias": [1]}),
    "x, y, z cannot be told apart": lambda: viz.budget_bars(["a"], {name: [1] for name in "xyz"}),
    "'a' has shape .3,.; .channels, 2. is": lambda: viz.channel_ranges({"a": [1, 2, 3]}),
    "at most 3 tensors": lambda: viz.channel_ranges(dict.fromkeys("abcd", RANGES)),
    "2 factors do not fit": lambda: viz.scaled_channels((np.ones((3, 2)), np.ones((2, 3))), PAIR, [1, 1]),
    "1 factors do not fit": lambda: viz.scaled_channels(PAIR, PAIR, [1]),
    "3 factors do not fit": lambda: viz.scaled_channels(([1, 2, 3], [[1, 2, 3]]), ([1, 2, 3], [[1, 2, 3]]), [1, 1, 1]),
    "loss of shape .2, 3.": lambda: viz.loss_surface([0, 1], np.ones((2, 3))),
    "at most 3 marks": lambda: viz.loss_surface([0, 1], np.ones((2, 2)), dict.fromkeys("abcd", (0, 0))),
    "at most 3 lines": lambda: viz.loss_line([0], {name: [1] for name in "abcd"}),
    "loss_line: 'a' has 1 values, 2 are": lambda: viz.loss_line([0, 1], {"a": [1]}),
    "one_output takes three matrices of one shape": lambda: viz.one_output([[1]], [[1, 2]], [[1]], {}),
    "look at 'bias'": lambda: viz.convolution_errors({key: 1.0 for key in DB if key != "bias"}),
    "look at 'luck'": lambda: viz.convolution_errors(DB | {"luck": 1.0}),
    "1 networks, 2 schemes, reference -1 and accuracies of shape .1, 3.": lambda: viz.scheme_table(
        ["a"], ["x", "y"], [[1, 2, 3]]
    ),
    "1 networks, 1 schemes, reference 4": lambda: viz.scheme_table(["a"], ["x"], [[1]], reference=4),
    "differences: 2 labels want as many triples": lambda: viz.differences(["a", "b"], [(0, 0, 0)]),
    "differences: 1 labels": lambda: viz.differences(["a"], [(0, 0)]),
    "speed_ratios: 1 networks, but the tools have {'x': 2}": lambda: viz.speed_ratios(["a"], {"x": [1, 2]}),
    "3, 4, 4, 3.* with 1 captions": lambda: viz.pictures(PICTURES, ["a"]),
    "0 captions": lambda: viz.pictures(PICTURES[:0], []),
    "'x' took 2 steps of 1": lambda: viz.decision_ladder(["a"], {"x": [(0, False), (1, True)]}),
    "2 numbers for usage, 1 for cost": lambda: viz.pareto_front([1, 2], [1]),
    "2 layers, but 1 costs at 4 bits": lambda: viz.cost_bars(["a", "b"], {4: [1.0]}),
    "1 layers, 2 bits": lambda: viz.allocation_strip(["a"], [8, 4]),
    "1 widths above 0": lambda: viz.allocation_strip(["a"], [8], widths=[0]),
    "as many values and texts as frames, got 2, 1 and 1": lambda: viz.Slider(
        "bits", ["2", "3"], [viz.number_line(QP)], ["a"]
    ),
    "got 0, 0 and 0": lambda: viz.Slider("bits", [], [], []),
    "start must be one of 1 places": lambda: viz.Slider("bits", ["2"], [viz.number_line(QP)], ["a"], start=1),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refuses(message):
    with pytest.raises(QLearnError, match=message):
        REFUSED[message]()


def test_scaled_channels_writes_every_weight_and_factor_in_its_place():
    after = ([[4.0, -2.0], [2.0, 1.0]], [[4.0, 2.0], [-2.0, 1.0]])
    ax = viz.scaled_channels(PAIR, after, [4.0, 0.25])
    places = {text.get_text(): text.get_position() for text in ax.texts}
    assert {"16.00", "-8.00", "0.50", "0.25", "÷ 4", "÷ 0.25", "× 4", "× 0.25"} <= set(places)
    row, column = places["÷ 0.25"], places["× 0.25"]
    assert row[1] > places["÷ 4"][1] > places["16.00"][1]
    assert column[0] > places["× 4"][0] > row[0]
    assert [image.get_extent()[3] for image in ax.images] == [0, 0, 3.3, 3.3]  # two pairs, below each other


def test_what_the_bars_show_is_what_was_given():
    ax = viz.layer_sqnr(["a", "b", "c"], [40.0, 3.0, float("inf")], [41.0, 12.0, float("inf")])
    assert [patch.get_width() for patch in ax.patches[:3]] == [40.0, 3.0, 0.0]
    assert [text.get_text() for text in ax.texts] == ["40.0", "3.0", "exact"]
    assert ax.yaxis_inverted()
    stacked = viz.budget_bars(["a"], {"weights": [0.25], "rounding": [0.75]})
    assert [(patch.get_x(), patch.get_width()) for patch in stacked.patches[:2]] == [(0.0, 25.0), (25.0, 75.0)]
    line = viz.layer_rmse(["a"], [1.0])
    assert line.lines[0].get_xdata()[0] == pytest.approx(12**-0.5)
    surface = viz.loss_surface([-1, 1], [[1, 2], [3, 4]], {"float": (-1, 1)})  # first direction is upwards
    assert (surface.lines[0].get_xdata()[0], surface.lines[0].get_ydata()[0]) == (1, -1)
    both = viz.loss_surface([-1, 1], [[1, 2], [3, 4]], {"float": (0, 0), "quantized": (0, 0)})
    assert (
        both.lines[0].get_markersize() > 1.5 * both.lines[1].get_markersize()
    )  # the lower one is seen around the upper


def test_a_difference_is_blue_only_if_its_interval_holds_zero():
    ends = [(0.5, -0.1, 1.0), (-0.5, -1.0, -0.1), (0.5, 0.1, 1.0), (-64.9, -68.4, -61.0)]
    ax = viz.differences(list("abcd"), ends, lowest=-10)
    marks = [line for line in ax.lines if line.get_marker() not in {"None", None}]
    assert [(line.get_marker(), line.get_color()) for line in marks] == [
        ("o", viz.QUANTIZED), ("s", viz.ERROR), ("s", viz.ERROR), ("<", viz.ERROR)
    ]  # fmt: skip
    assert marks[3].get_xdata()[0] == pytest.approx(-10, abs=0.2)
    assert ax.texts[3].get_text() == "−64.9 [−68.4, −61.0]"


def test_a_scheme_is_orange_by_what_it_loses():
    ax = viz.scheme_table(["a"], ["x", "y", "float"], [[10.0, 88.5, 90.0]])
    assert [patch.get_alpha() for patch in ax.patches] == [1.0, pytest.approx(1.5 / 20), None]
    weights = {text.get_text(): text.get_weight() for text in ax.texts}
    assert (weights["10.0"], weights["88.5"], weights["90.0"]) == ("bold", "bold", "normal")
    first = viz.scheme_table(["a"], ["float", "x"], [[90.0, 10.0]], reference=0)
    assert [patch.get_alpha() for patch in first.patches] == [None, 1.0]


def test_slower_than_float_is_hatched():
    ax = viz.speed_ratios(["a", "b"], {"x": [3.1, 0.7]})
    assert [(patch.get_width(), patch.get_hatch()) for patch in ax.patches] == [(3.1, ""), (0.7, "////")]


def test_slider_is_one_block_of_html():
    frames = [viz.number_line(QP), viz.number_line(QP8)]
    slider = viz.Slider('bits "b"', ["3", "8 <b>"], frames, ["three & more", "eight"], start=1)
    text = slider._repr_html_()
    assert text == slider._repr_html_()
    assert text.count("<img ") == 2
    assert text.count("display:block") == 1
    assert 'alt="three &amp; more"' in text
    assert 'aria-label="bits &quot;b&quot;"' in text
    assert 'onkeydown="event.stopPropagation()"' in text, "JupyterLab would take the arrow keys"
    assert "<script" not in text
    assert "http" not in text
    assert repr(slider) == 'Slider: bits "b" from 3 to 8 <b>'
