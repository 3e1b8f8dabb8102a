"""From a float network, a recipe and a calibration table to a quantized network (paper §3.3)."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from qlearn.errors import CalibrationError, FallbackWarning, GraphError, UnsupportedOpError
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.model import FloatModel
from qlearn.graph.ops import WEIGHTED_OPS
from qlearn.integer.layers import SHARING_OPS, code_limits
from qlearn.numbers.affine import quantize
from qlearn.pipeline.calibrate import calibration_plan
from qlearn.pipeline.known import kept_in_float, known_output, reason_for_float
from qlearn.pipeline.simulate import QuantizedLayer, QuantizedModel
from qlearn.pipeline.weights import bias_codes, is_qparams, weight_grid
from qlearn.registry import scheme

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qlearn.graph.model import Node
    from qlearn.integer.layers import Limit
    from qlearn.numbers.qparams import ClipRange, QParams
    from qlearn.pipeline.recipe import Recipe


def quantize_model(
    model: FloatModel, recipe: Recipe, table: Mapping[str, ClipRange], *, strict: bool = False
) -> QuantizedModel:
    """Return the network as it will run on integers, simulated with exact arithmetic.

    Weights with a pinned grid (``attrs["weight_qparams"]`` of a node, from `adaround` or from training) keep it:
    their codes are those that were learned. All others are calibrated here.

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
        If the recipe names a layer that the network does not have, or contradicts a pinned grid.
    GraphError
        If weights do not lie on the grid that is pinned to them.

    Warns
    -----
    GridWarning
        If a pinned step had to be raised, because the bias would leave int32 otherwise.

    References
    ----------
    Paper §3.3, §7.1 (float fallback), §7.3 (layers that differ), Table 1.
    """
    if not isinstance(model, FloatModel):
        raise GraphError(f"quantize_model() takes a traced network, got {type(model).__name__}: use qlearn.trace()")
    fused = fuse_activations(model)
    return quantize_sites(fused, recipe, site_qparams(fused, recipe, table), strict=strict)


def site_qparams(fused: FloatModel, recipe: Recipe, table: Mapping[str, ClipRange]) -> dict[str, QParams | None]:
    """Return scale and zero point of every node's output, by name; None where it stays in float.

    Parameters
    ----------
    fused : FloatModel
        With fused activations.
    recipe : Recipe
    table : mapping of site to ClipRange

    Raises
    ------
    CalibrationError, RecipeError
        As for `quantize_model`.
    """
    _check_table(fused, recipe, table)
    outputs: dict[str, QParams | None] = {}
    for node in fused.nodes:
        outputs[node.name] = _output_qparams(node, outputs, recipe, table)
    return outputs


def quantize_sites(
    fused: FloatModel, recipe: Recipe, outputs: Mapping[str, QParams | None], *, strict: bool = False
) -> QuantizedModel:
    """Return the quantized network whose outputs have exactly these scales and zero points.

    Parameters
    ----------
    fused : FloatModel
        With fused activations.
    recipe : Recipe
        Says how weights are quantized.
    outputs : mapping of node to QParams or None
        From `site_qparams`, or learned.
    strict : bool
        As for `quantize_model`.
    """
    layers: list[QuantizedLayer] = []
    for original in fused.nodes:
        node = as_it_runs(original, outputs)
        _announce_fallback(node, fused.name, strict=strict)
        layers.append(_quantized_layer(node, outputs, recipe))
    return QuantizedModel(replace(fused, nodes=tuple(layer.node for layer in layers)), tuple(layers))


def as_it_runs(node: Node, outputs: Mapping[str, QParams | None]) -> Node:
    """Return the node, as a float layer if no kernel takes codes as wide as those of its inputs."""
    sources = [source for source in map(outputs.get, node.inputs) if source is not None]
    on_integers = bool(sources) and len(sources) == len(node.inputs)
    reason = reason_for_float(node, sources) if on_integers else None
    return node if reason is None else kept_in_float(node, reason)


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
        stacklevel=4,
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
        return _scaled_like_its_input(is_qparams(qparams, choice.scheme), table[node.name], node, outputs)
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
        qparams = weight_grid(node, choice, None if x is None else x.scale)
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
