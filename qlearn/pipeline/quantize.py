"""From a float network, a recipe and a calibration table to a quantized network (paper §3.3)."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import CalibrationError, FallbackWarning, GraphError, PluginError, UnsupportedOpError
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.model import FloatModel
from qlearn.integer.layers import SHARING_OPS, code_limits
from qlearn.numbers.affine import quantize
from qlearn.numbers.qparams import QParams, float32_scale
from qlearn.pipeline.calibrate import calibration_plan
from qlearn.pipeline.known import kept_in_float, known_output, reason_for_float
from qlearn.pipeline.simulate import QuantizedLayer, QuantizedModel
from qlearn.registry import calibrator, scheme

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from qlearn.graph.model import Node
    from qlearn.integer.layers import Limit
    from qlearn.numbers.qparams import ClipRange
    from qlearn.pipeline.recipe import Recipe, TensorRecipe

WEIGHTED_OPS = ("conv2d", "linear")
BIAS_LIMIT = 2**30
"""Largest |bias| in steps of S_x S_w: half of int32, the other half is for the sum of products."""


def quantize_model(
    model: FloatModel, recipe: Recipe, table: Mapping[str, ClipRange], *, strict: bool = False
) -> QuantizedModel:
    """Return the network as it will run on integers, simulated with exact arithmetic.

    Parameters
    ----------
    model : FloatModel
        The network that was calibrated. Not changed.
    recipe : Recipe
    table : mapping of site to ClipRange
        From `calibrate`.
    strict : bool
        Refuse layers that have no integer kernel, instead of keeping them in float with a FallbackWarning.
        Among them are tables (sigmoid, SiLU, …) of activations wider than 8 bits.

    Returns
    -------
    QuantizedModel

    Raises
    ------
    UnsupportedOpError
        Under ``strict``, naming the layer and the reason.
    CalibrationError
        If the table lacks a site.
    RecipeError
        If the recipe names a layer that the network does not have.

    References
    ----------
    Paper §3.3, §7.1 (float fallback), §7.3 (layers that differ), Table 1.
    """
    if not isinstance(model, FloatModel):
        raise GraphError(f"quantize_model() takes a traced network, got {type(model).__name__}: use qlearn.trace()")
    fused = fuse_activations(model)
    _check_table(fused, recipe, table)
    outputs: dict[str, QParams | None] = {}
    layers: list[QuantizedLayer] = []
    for original in fused.nodes:
        sources = [source for source in map(outputs.get, original.inputs) if source is not None]
        on_integers = bool(sources) and len(sources) == len(original.inputs)
        reason = reason_for_float(original, sources) if on_integers else None
        node = original if reason is None else kept_in_float(original, reason)
        _announce_fallback(node, fused.name, strict=strict)
        outputs[node.name] = _output_qparams(original, outputs, recipe, table)
        layers.append(_quantized_layer(node, outputs, recipe))
    return QuantizedModel(replace(fused, nodes=tuple(layer.node for layer in layers)), tuple(layers))


def _announce_fallback(node: Node, network: str, *, strict: bool) -> None:
    if node.op not in ("float", "batch_norm"):
        return
    reason = node.attrs.get("reason", "a batch norm that was not folded (fold_batch_norm() folds it where it can)")
    if strict:
        raise UnsupportedOpError(
            f"{network}: layer {node.name!r} cannot run on integers: {reason}. "
            "Replace it, or allow it to run in float with strict=False"
        )
    warnings.warn(
        f"{network}: layer {node.name!r} stays in float, between dequantize and quantize: {reason}",
        FallbackWarning,
        stacklevel=3,
    )


def _check_table(fused: FloatModel, recipe: Recipe, table: Mapping[str, ClipRange]) -> None:
    """A table of another network (folding changes the sites) would give wrong numbers, silently."""
    sites = set(calibration_plan(fused, recipe))
    wrong = sorted(sites.symmetric_difference(table))
    if wrong:
        what = "has no" if wrong[0] in sites else "has a"
        raise CalibrationError(
            f"{fused.name}: the calibration table {what} site {wrong[0]!r}: calibrate the network that you quantize "
            "(folding batch norms changes its sites)"
        )


def _is_qparams(value: Any, name: str) -> QParams:
    if not isinstance(value, QParams):
        raise PluginError(f"scheme {name!r} returned {type(value).__name__} instead of QParams: its author can mend it")
    return value


def _output_qparams(
    node: Node, outputs: Mapping[str, QParams | None], recipe: Recipe, table: Mapping[str, ClipRange]
) -> QParams | None:
    """Scale and zero point of a node's output; None where it stays in float."""
    if node.op in SHARING_OPS:
        return outputs[node.inputs[0]]
    choice = recipe.for_layer(node.name).activations
    if choice is None:
        return None
    known = known_output(node, choice.bits, signed=choice.signed)
    if known is not None:
        return known
    try:
        qparams = scheme(choice.scheme, bits=choice.bits, signed=choice.signed).qparams(table[node.name])
        return _scaled_like_its_input(_is_qparams(qparams, choice.scheme), table[node.name], node, outputs)
    except Exception as error:
        error.add_note(f"at site {node.name!r}, scheme {choice.scheme!r}, {table[node.name]}")
        raise


def _scaled_like_its_input(
    qparams: QParams, clip_range: ClipRange, node: Node, outputs: Mapping[str, QParams | None]
) -> QParams:
    """A site that was always zero has no scale of its own: S = 1 would drown the other branch of an add."""
    source = outputs[node.inputs[0]] if node.inputs else None
    if source is None or clip_range.lo < clip_range.hi:
        return qparams
    return replace(qparams, scale=source.scale)


def _quantized_layer(node: Node, outputs: Mapping[str, QParams | None], recipe: Recipe) -> QuantizedLayer:
    output = outputs[node.name]
    layer = QuantizedLayer(node, output, clamp=None if output is None else _clamp_codes(node, output))
    choice = recipe.for_layer(node.name).weights
    if node.op not in WEIGHTED_OPS or choice is None:
        return layer
    x = outputs[node.inputs[0]]
    bias = node.params["bias"].numpy() if "bias" in node.params else None
    try:
        qparams = weight_qparams(node.params["weight"].numpy(), choice, bias, None if x is None else x.scale)
    except Exception as error:
        error.add_note(f"while quantizing the weights of layer {node.name!r}")
        raise
    weight = quantize(node.params["weight"], qparams).numpy()
    codes = None if bias is None or x is None else bias_codes(bias, x.scale, qparams.scale)
    return replace(layer, weight=weight, weight_qparams=qparams, bias=codes)


def _clamp_codes(node: Node, output: QParams) -> tuple[Limit, Limit] | None:
    """The codes of a fused clamp; tensors (one limit per channel) become arrays."""
    if node.attrs.get("clamp") is None:
        return None
    low, high = (limit if isinstance(limit, float) else np.asarray(limit, np.float32) for limit in node.attrs["clamp"])
    return code_limits((low, high), output)


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
    observer.observe(_tensor(weight))
    target = scheme(recipe.scheme, bits=recipe.bits, signed=recipe.signed)
    clip_range = observer.compute_range(target)
    qparams = _is_qparams(target.qparams(clip_range, axis=0), recipe.scheme)
    if bias is None or s_x is None:
        return qparams
    needed = np.abs(bias).astype(np.float64) / (float(s_x) * BIAS_LIMIT)
    needed = needed if per_channel else needed.max()
    all_zero = (clip_range.lo == clip_range.hi) & (needed > 0)
    scale = float32_scale(np.where(all_zero, needed, np.maximum(qparams.scale, needed)))
    return QParams(scale, qparams.zero_point, qparams.qmin, qparams.qmax, qparams.axis)


def bias_codes(bias: NDArray[np.float32], s_x: Any, s_w: Any) -> NDArray[np.int32]:
    """Return the bias in steps of float32(S_x S_w), rounded half to even, int32.

    Examples
    --------
    >>> bias_codes(np.float32([0.5, -0.25]), 0.1, 0.01)
    array([ 500, -250], dtype=int32)
    """
    steps = (np.float32(s_x) * np.asarray(s_w, np.float32)).astype(np.float64)
    return np.rint(bias.astype(np.float64) / steps).astype(np.int32)


def _tensor(weight: NDArray[np.float32]) -> Any:
    import torch

    return torch.from_numpy(weight)
