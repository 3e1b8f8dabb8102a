"""The grid of a weight tensor: calibrated from its values, or pinned by whoever learned them (paper §2, 3.1)."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qlearn.errors import GraphError, GridWarning, PluginError, RecipeError
from qlearn.numbers.affine import fake_quantize
from qlearn.numbers.qparams import QParams, along_axis, float32_scale
from qlearn.registry import calibrator, scheme

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qlearn.graph.model import Node
    from qlearn.pipeline.recipe import TensorRecipe

BIAS_LIMIT = 2**30
"""Largest |bias| in steps of S_x S_w: half of int32, the other half is for the sum of products."""

PINNED = "weight_qparams"
"""The attribute of a node that pins the grid of its weights."""


def weight_grid(node: Node, recipe: TensorRecipe, s_x: Any) -> QParams:
    """Return scale and zero point of the weights of a layer: the pinned ones if there are any, else calibrated ones.

    Parameters
    ----------
    node : Node
        A convolution or linear layer. ``attrs["weight_qparams"]``, a QParams, says on which grid its weights lie.
    recipe : TensorRecipe
        How weights are quantized.
    s_x : float32 or None
        Scale of the layer's input; None where that stays in float.

    Returns
    -------
    QParams

    Raises
    ------
    RecipeError
        If the pinned grid has other integers or another granularity than the recipe.
    GraphError
        If the weights do not lie on the pinned grid.

    Warns
    -----
    GridWarning
        If a pinned step had to be raised for the bias, and weights that are not 0 are rounded anew.
    """
    bias = node.params["bias"].numpy() if "bias" in node.params else None
    pinned, weight = node.attrs.get(PINNED), node.params["weight"]
    if pinned is None:
        return weight_qparams(weight.numpy(), recipe, bias, s_x)
    _check_format(pinned, recipe, len(weight))
    _check_on_grid(weight, pinned)
    return _kept(pinned, weight, bias, s_x, node.name)


def unpinned_if_unfit(node: Node, recipe: TensorRecipe | None) -> Node:
    """Return the node without its pinned grid, if that is not one that the recipe could have chosen.

    What was learned for one recipe is then rounded anew for another; where the recipe fits, nothing changes.
    """
    pinned = node.attrs.get(PINNED)
    if pinned is None or recipe is None:
        return node
    try:
        _check_format(pinned, recipe, len(node.params["weight"]))
    except RecipeError:
        return node.with_params(weight=node.params["weight"])
    return node


def weight_qparams(
    weight: NDArray[np.float32], recipe: TensorRecipe, bias: NDArray[np.float32] | None, s_x: Any
) -> QParams:
    """Return scale and zero point of a weight tensor (O, …), one scale per output channel where the recipe asks.

    The bias is stored in steps of S_x S_w. Where the weights of a channel are tiny and its bias is not
    (a dead channel: all weights 0, and a constant), those steps would be so fine that the bias leaves int32.
    There S_w is raised until the bias is BIAS_LIMIT steps; the weights have nothing to lose.

    Examples
    --------
    >>> from qlearn.pipeline.recipe import TensorRecipe
    >>> recipe = TensorRecipe(scheme="symmetric_restricted", granularity="per_channel")
    >>> weight = np.float32([[1.27, 0.5], [0.0, 0.0]])
    >>> weight_qparams(weight, recipe, bias=np.float32([0.1, 5.0]), s_x=0.02)
    QParams(scale=[0.01, 2.32831e-07], zero_point=[0, 0], qmin=-127, qmax=127, axis=0)
    """
    per_channel = recipe.granularity == "per_channel"
    observer = calibrator(recipe.calibrator, channel_axis=0 if per_channel else None, **recipe.calibrator_params)
    observer.observe(torch.from_numpy(weight))
    target = scheme(recipe.scheme, bits=recipe.bits, signed=recipe.signed)
    clip_range = observer.compute_range(target)
    qparams = is_qparams(target.qparams(clip_range, axis=0), recipe.scheme)
    if bias is None or s_x is None:
        return qparams
    return _raised(qparams, _needed(bias, s_x, qparams.axis), clip_range.lo == clip_range.hi)


def bias_codes(bias: NDArray[np.float32], s_x: Any, s_w: Any) -> NDArray[np.int32]:
    """Return the bias in steps of float32(S_x S_w), rounded half to even, int32.

    Examples
    --------
    >>> bias_codes(np.float32([0.5, -0.25]), 0.1, 0.01)
    array([ 500, -250], dtype=int32)
    """
    steps = (np.float32(s_x) * np.asarray(s_w, np.float32)).astype(np.float64)
    return np.rint(bias.astype(np.float64) / steps).astype(np.int32)


def is_qparams(value: Any, name: str) -> QParams:
    """Return what a scheme returned, if it is QParams."""
    if not isinstance(value, QParams):
        raise PluginError(f"scheme {name!r} returned {type(value).__name__} instead of QParams: its author can mend it")
    return value


def _needed(bias: NDArray[np.float32], s_x: Any, axis: int | None) -> Any:
    """The smallest S_w with which the bias stays within BIAS_LIMIT steps."""
    needed = np.abs(bias).astype(np.float64) / (float(s_x) * BIAS_LIMIT)
    return needed.max() if axis is None else needed


def _raised(qparams: QParams, needed: Any, all_zero: Any) -> QParams:
    """Raise the scale to what is needed; where all weights are 0, the scale is what is needed."""
    scale = float32_scale(np.where(all_zero & (needed > 0), needed, np.maximum(qparams.scale, needed)))
    return replace(qparams, scale=scale)


def _kept(pinned: QParams, weight: torch.Tensor, bias: NDArray[np.float32] | None, s_x: Any, layer: str) -> QParams:
    """Return the pinned grid, its step raised where the bias needs it; zeros lie on any grid, other weights move."""
    if bias is None or s_x is None:
        return pinned
    channels = (weight == 0).flatten(1).all(dim=1).numpy()
    zero: Any = channels.all() if pinned.axis is None else channels
    raised = _raised(pinned, _needed(bias, s_x, pinned.axis), zero)
    moved = np.flatnonzero((raised.scale > pinned.scale) & ~zero)
    if moved.size:
        where = "" if pinned.axis is None else f" of output channels {', '.join(map(str, moved[:5]))}"
        warnings.warn(
            f"layer {layer!r}: the bias needs more than 2**30 of its steps, so the pinned step of the weights{where} "
            "was raised and they were rounded anew; set weights as small as these to 0, or give them fewer bits",
            GridWarning,
            stacklevel=2,
        )
    return raised


def _check_format(pinned: Any, recipe: TensorRecipe, outputs: int) -> None:
    """The pinned grid must be one that the recipe could have chosen."""
    if not isinstance(pinned, QParams):
        raise RecipeError(f"attrs['weight_qparams'] pins a grid by QParams, got {type(pinned).__name__}")
    target = scheme(recipe.scheme, bits=recipe.bits, signed=recipe.signed)
    granularity = "per_tensor" if pinned.axis is None else "per_channel"
    found = f"integers {pinned.qmin} to {pinned.qmax}, {granularity}"
    asked = f"{target.qmin} to {target.qmax}, {recipe.granularity}"
    fits = (pinned.qmin, pinned.qmax, granularity) == (target.qmin, target.qmax, recipe.granularity)
    if not fits or (target.symmetric and np.any(pinned.zero_point)):
        zeros = " with zero point 0" if target.symmetric else ""
        raise RecipeError(
            f"the weights lie on a pinned grid of {found}, but the recipe asks for {asked}{zeros} "
            f"({recipe.scheme}, {recipe.bits} bits): quantize with the recipe by which the weights were learned"
        )
    if pinned.axis not in (None, 0) or pinned.channels not in (None, outputs):
        raise RecipeError(
            f"the pinned grid has {pinned.channels} scales along axis {pinned.axis}, the weights have {outputs} "
            "output channels along axis 0"
        )


def _check_on_grid(weight: torch.Tensor, pinned: QParams) -> None:
    """A pass that changed weights and kept the pinned grid would throw away what was learned."""
    step = torch.from_numpy(along_axis(np.array(pinned.scale), pinned.axis, weight.ndim))
    near = (weight - fake_quantize(weight, pinned)).abs() <= 1e-3 * step + 1e-6 * weight.abs()
    off = ~(near & torch.isfinite(weight))
    if off.any():
        raise GraphError(
            f"{int(off.sum())} of {weight.numel()} weights do not lie on the grid that is pinned to them: a pass that "
            "changes weights must drop attrs['weight_qparams'] (Node.with_params does)"
        )
