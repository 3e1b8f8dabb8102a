"""Bias correction: quantized weights shift the mean of a layer's sum; its bias takes the shift back (paper §7.2)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qlearn.graph.fuse import fuse_activations
from qlearn.graph.moments import expected_moments
from qlearn.graph.ops import FLOAT_OPS, WEIGHTED_OPS, channel_rows
from qlearn.numbers.affine import dequantize
from qlearn.pipeline.quantize import quantize_model
from qlearn.pipeline.weights import bias_codes
from qlearn.progress import progress
from qlearn.repair.pictures import checked_pictures
from qlearn.repair.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from qlearn.graph.model import FloatModel, Node
    from qlearn.numbers.qparams import ClipRange, QParams
    from qlearn.pipeline.recipe import Recipe
    from qlearn.pipeline.simulate import QuantizedLayer


def correct_bias(
    model: FloatModel, recipe: Recipe, table: Mapping[str, ClipRange], batches: Iterable[Any] | None = None
) -> FloatModel:
    """Return the network with biases that undo the mean error of its quantization. Quantize it with the same recipe.

    Rounding a channel's few weights leaves an error ε, which does not average out: with inputs that are positive on
    average, as behind a ReLU, the layer's sum moves by Σ ε E[x]. The next ReLU turns that into a loss of information.

    - With `batches`, **empirical**: layer by layer, in order, the mean of each channel's sum in the float network minus
      that in the quantized one, whose earlier layers are corrected already, goes into the bias.
      This takes back whatever moved the mean: rounded weights, clipped activations, all earlier layers.
    - Without, **analytic**: E[x] comes from the statistics of the folded batch norms (`expected_moments`), and
      the bias loses Σ ε E[x], averaged over all positions, padding included. No picture is needed.
      It believes ``attrs["bn"]``. Passes of qlearn scale and shift these statistics along. Whoever changes folded
      weights by hand must do so too, or drop them: stale statistics can do harm, and without pictures nothing tells.

    Parameters
    ----------
    model : FloatModel
        Batch norms folded. Not changed.
    recipe : Recipe
    table : mapping of site to ClipRange
        From `calibrate`, for this model and recipe.
    batches : iterable, optional
        Pictures as for `calibrate`, without labels. All of them are kept in memory, with the two values between which
        the pass stands: about 3 MB for each picture of 224 x 224 in MobileNetV1-0.25.

    Returns
    -------
    FloatModel
        In float it is *not* the same function: its biases are made for the quantized one.

    Raises
    ------
    CalibrationError
        If there are no batches, a value is NaN or Inf, or the table is of another network.
    GraphError
        If a batch is empty or has the wrong shape.

    References
    ----------
    M. Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019, §4.2;
    paper §7.2.
    """
    shifts = _expected_shifts(model, recipe, table) if batches is None else _seen_shifts(model, recipe, table, batches)
    return model.with_nodes(_shifted(node, shifts[node.name]) if node.name in shifts else node for node in model.nodes)


def _expected_shifts(model: FloatModel, recipe: Recipe, table: Mapping[str, ClipRange]) -> dict[str, Tensor]:
    """-Σ ε E[x] for every layer."""
    fused = fuse_activations(model)
    moments = expected_moments(fused)
    shifts = {}
    for node, layer in zip(fused.nodes, quantize_model(model, recipe, table).layers, strict=True):
        if layer.weight is None or layer.weight_qparams is None:
            continue
        rounding = dequantize(layer.weight, layer.weight_qparams).double() - node.params["weight"].double()
        error = replace(node, params={"weight": rounding}, attrs={**node.attrs, "clamp": None})
        shifts[node.name] = -_channel_mean([FLOAT_OPS[node.op](error, [moments[node.inputs[0]].mean])]).float()
    return shifts


def _seen_shifts(
    model: FloatModel, recipe: Recipe, table: Mapping[str, ClipRange], batches: Iterable[Any]
) -> dict[str, Tensor]:
    """Walk through both networks with all pictures, and correct each layer before the next one reads it."""
    fused, quantized = fuse_activations(model), quantize_model(model, recipe, table)
    walk, shifts = Walk(fused, checked_pictures(fused, batches, "to correct biases on")), {}
    with torch.no_grad():
        for layer in progress(quantized.layers, "correct bias", unit="layer"):
            if layer.node.op not in WEIGHTED_OPS:
                walk.advance(layer)
                continue
            exact = walk.unclamped(layer)
            shift = (_channel_mean(exact) - _channel_mean(_rounded_sums(layer, walk))).float()
            shifts[layer.node.name] = shift
            walk.advance(_corrected(layer, shift, walk.source(layer).output), exact)
    return shifts


def _rounded_sums(layer: QuantizedLayer, walk: Walk) -> Iterator[Tensor]:
    """What the layer makes of quantized inputs with quantized weights, before its clamp, batch by batch."""
    node = layer.node
    bare = replace(node.with_attrs(clamp=None), params={**node.params, "weight": _real_weight(node, layer)})
    return (FLOAT_OPS[node.op](bare, [x]) for x in walk.read(layer))


def _corrected(layer: QuantizedLayer, shift: Tensor, x: QParams | None) -> QuantizedLayer:
    """The layer with its new bias: what the next layers read."""
    shifted = _shifted(layer.node, shift)
    if layer.weight_qparams is None or x is None:
        return replace(layer, node=shifted)
    codes = bias_codes(shifted.params["bias"].numpy(), x.scale, layer.weight_qparams.scale)
    return replace(layer, node=shifted, bias=codes)


def _real_weight(node: Node, layer: QuantizedLayer) -> Tensor:
    if layer.weight is None or layer.weight_qparams is None:
        return node.params["weight"]
    return dequantize(layer.weight, layer.weight_qparams)


def _channel_mean(values: Iterable[Tensor]) -> Tensor:
    """Mean of each channel over pictures and positions, float64."""
    total, count = torch.zeros(()).double(), 0
    for value in values:
        rows = channel_rows(value).double()
        total, count = total + rows.sum(dim=1), count + rows.shape[1]
    return total / count


def _shifted(node: Node, shift: Tensor) -> Node:
    bias = node.params.get("bias", torch.zeros_like(shift)).double() + shift
    return replace(node, params={**node.params, "bias": bias.float()})
