"""Figures: one function each, data in, Axes out, nothing computed inside.

Colours mean the same everywhere: grey is float, blue is quantized, orange and hatched is error or clipping,
dashed black is the clip range, a red tick is the zero point.
pyplot is not used, so nothing is left behind; a notebook shows the Axes that a cell returns.
"""

from qlearn.viz.comparisons import differences, scheme_table, speed_ratios
from qlearn.viz.decisions import decision_ladder
from qlearn.viz.flows import ERROR_SOURCES, convolution_errors, one_output, ptq_beside_qat
from qlearn.viz.frames import Slider, png
from qlearn.viz.layers import budget_bars, channel_ranges, layer_rmse, layer_sqnr, sensitivity_bars
from qlearn.viz.lines import curves, error_curve, histogram_with_range, number_line, rounding_staircase
from qlearn.viz.mixed import allocation_strip, cost_bars, pareto_front
from qlearn.viz.pairs import scaled_channels
from qlearn.viz.ranges import clip_ranges, dots, spread, tradeoff
from qlearn.viz.strip import STAGES, pipeline_strip
from qlearn.viz.style import ERROR, FLOAT, LIMIT, QUANTIZED, STYLE, ZERO_POINT, title_of
from qlearn.viz.surface import loss_line, loss_surface
from qlearn.viz.tables import integer_grid, pictures, results_bars
from qlearn.viz.training import fake_quantized_layer, step_gradient, straight_through

__all__ = [
    "ERROR",
    "ERROR_SOURCES",
    "FLOAT",
    "LIMIT",
    "QUANTIZED",
    "STAGES",
    "STYLE",
    "ZERO_POINT",
    "Slider",
    "allocation_strip",
    "budget_bars",
    "channel_ranges",
    "clip_ranges",
    "convolution_errors",
    "cost_bars",
    "curves",
    "decision_ladder",
    "differences",
    "dots",
    "error_curve",
    "fake_quantized_layer",
    "histogram_with_range",
    "integer_grid",
    "layer_rmse",
    "layer_sqnr",
    "loss_line",
    "loss_surface",
    "number_line",
    "one_output",
    "pareto_front",
    "pictures",
    "pipeline_strip",
    "png",
    "ptq_beside_qat",
    "results_bars",
    "rounding_staircase",
    "scaled_channels",
    "scheme_table",
    "sensitivity_bars",
    "speed_ratios",
    "spread",
    "step_gradient",
    "straight_through",
    "title_of",
    "tradeoff",
]
