"""Calibration without a picture: ranges straight from the statistics of the batch norms (paper §5, ref. 17)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qlearn.calibrators.base import checked_number
from qlearn.errors import CalibrationError, GraphError
from qlearn.graph.bounds import value_bounds
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.model import FloatModel
from qlearn.graph.moments import Moments, expected_moments
from qlearn.graph.ops import FLOAT_OPS, channel_rows
from qlearn.pipeline.calibrate import CalibrationTable, calibration_plan, table_of
from qlearn.pipeline.observe import SiteObservers

if TYPE_CHECKING:
    from qlearn.graph.bounds import Bounds
    from qlearn.numbers.qparams import ClipRange
    from qlearn.pipeline.recipe import Recipe

MOST_SIGMAS = 30.0
"""Beyond it, float64 has no probability left."""


def calibrate_without_pictures(
    model: FloatModel,
    recipe: Recipe,
    *,
    sigmas: float = 6.0,
    points: int = 1024,
    input_range: ClipRange | None = None,
) -> CalibrationTable:
    r"""Pick a clip range for every site from what the folded batch norms know, without running a picture.

    A batch norm states mean β and standard deviation γ of every channel that it puts out.
    If the channel is normal, it hardly ever leaves β - n γ to β + n γ; ReLU and ReLU6 then cut that.
    Data-free quantization takes these ends with n = 6 as the range, which is right for wide codes.
    Here the calibrator of the recipe sees `points` values of each such channel, and decides:

    - ``minmax`` returns the smallest β - n γ and the largest β + n γ of all channels, after the clamp;
    - ``mse`` and others weigh clipping against rounding for the bits at hand, as they do with pictures.

    Mean and deviation travel through sums, layers without batch norm and pools as `expected_moments` has it.
    No range is wider than what the network can reach at all (`value_bounds`).

    Parameters
    ----------
    model : FloatModel
        Batch norms folded by `fold_batch_norm`, whose statistics it uses. Not changed.
    recipe : Recipe
        As for `calibrate`.
    sigmas : float, above 0, at most 30
        n: where the normal distribution is cut.
    points : int, at least 2
        Values per channel, equally probable each, both ends included.
    input_range : ClipRange, optional
        Smallest and largest value of the input. Not needed where the network has a preprocessing:
        its input is then what pixels of 0 and of 255 become. Every value between is taken as equally probable.

    Returns
    -------
    CalibrationTable
        ``images`` is 0.

    Raises
    ------
    GraphError
        If no layer has statistics of a batch norm.
    CalibrationError
        If nothing says what the input is, or a statistic is NaN or Inf.

    References
    ----------
    M. Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019, §5;
    paper §5, ref. 17.

    Examples
    --------
    >>> from torch import nn
    >>> from qlearn.graph.fold import fold_batch_norm
    >>> from qlearn.graph.trace import trace
    >>> from qlearn.numbers.qparams import ClipRange
    >>> from qlearn.pipeline.recipe import Recipe, TensorRecipe
    >>> norm = nn.BatchNorm2d(2)
    >>> _ = norm.bias.data.copy_(torch.tensor([0.5, -1.0])), norm.weight.data.fill_(0.25)
    >>> net = trace(nn.Sequential(nn.Conv2d(1, 2, 3), norm, nn.ReLU()).eval(), torch.zeros(1, 1, 8, 8))
    >>> recipe = Recipe(activations=TensorRecipe(scheme="affine", calibrator="minmax"))
    >>> calibrate_without_pictures(fold_batch_norm(net), recipe, input_range=ClipRange(-1, 1))["0"]  # 0.5 + 6 · 0.25
    ClipRange(lo=0, hi=1.99999)
    """
    if not isinstance(model, FloatModel):
        raise GraphError(f"calibrate_without_pictures() takes a traced network, got {type(model).__name__}")
    reach = checked_number(sigmas, f"sigmas is a number above 0, at most {MOST_SIGMAS:g}", MOST_SIGMAS)
    count = int(checked_number(points, "points is a whole number of 2 or more", sys.maxsize))
    if count < 2 or count != points:
        raise CalibrationError(f"points is a whole number of 2 or more: got {points!r}")
    fused = fuse_activations(model)
    plan = calibration_plan(fused, recipe)
    _check_statistics(fused)
    observers = SiteObservers.of([plan])
    for site, values in _expected_values(fused, _normal_points(reach, count), input_range).items():
        if site in plan:
            observers.observe(site, values)
    return table_of(observers, 0, plan)


def _check_statistics(model: FloatModel) -> None:
    if not any("bn" in node.attrs for node in model.nodes):
        unfolded = any(node.op == "batch_norm" for node in model.nodes)
        remedy = (
            "fold_batch_norm() first: it keeps them with the layers"
            if unfolded
            else "calibrate() with pictures (a network whose batch norms somebody else folded has lost them)"
        )
        raise GraphError(f"{model.name}: no layer has the statistics of a batch norm; {remedy}")


def _normal_points(sigmas: float, count: int) -> Tensor:
    """Equally probable values of the standard normal distribution, cut at ±sigmas, both ends included.

    Examples
    --------
    >>> _normal_points(2.0, 5).round(decimals=2).tolist()
    [-2.0, -0.64, 0.0, 0.64, 2.0]
    """
    tail = torch.special.ndtr(torch.tensor(-sigmas, dtype=torch.float64))
    below = torch.special.ndtri(tail + (1 - 2 * tail) * torch.linspace(0, 1, count, dtype=torch.float64)[: count // 2])
    below[0] = -sigmas  # free of rounding
    middle = torch.zeros(count % 2, dtype=torch.float64)
    return torch.cat([below, middle, -below.flip(0)])


def _expected_values(model: FloatModel, z: Tensor, input_range: ClipRange | None) -> dict[str, Tensor]:
    """For every site, values that it is expected to take, shape (C, points), float64."""
    moments, bounds = expected_moments(model, before_clamps=True), value_bounds(model)
    values: dict[str, Tensor] = {}
    for node in model.nodes:
        if node.op == "input":
            values[node.name] = _input_values(model, bounds[node.name], len(z), input_range)
        elif node.op == "unary":
            values[node.name] = FLOAT_OPS["unary"](node, [values[node.inputs[0]]])
        else:
            mean, std = _per_channel(moments[node.name])
            limits = bounds[node.name].per_channel()
            low, high = limits.low.amin(1, keepdim=True), limits.high.amax(1, keepdim=True)
            values[node.name] = torch.clamp(mean[:, None] + std[:, None] * z, low, high)
    return values


def _input_values(model: FloatModel, bounds: Bounds, count: int, input_range: ClipRange | None) -> Tensor:
    if input_range is not None:
        low, high = torch.tensor([float(input_range.lo)]), torch.tensor([float(input_range.hi)])
    elif model.preprocess is not None:
        ends = bounds.per_channel()
        low, high = ends.low.amin(1), ends.high.amax(1)
    else:
        raise CalibrationError(
            f"{model.name} does not say what its input is: trace(..., preprocess=Preprocess(...)), or input_range="
        )
    share = torch.linspace(0, 1, count, dtype=torch.float64)
    return low[:, None].double() * (1 - share) + high[:, None].double() * share


def _per_channel(moments: Moments) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a channel at a position drawn at random, shape (C,)."""
    means, variances = channel_rows(moments.mean), channel_rows(moments.variance)
    return means.mean(1), (variances.mean(1) + means.var(1, correction=0)).sqrt()
