"""A network of which only some layers are quantized: what analysis switches on and off."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qlearn.errors import GraphError
from qlearn.integer.layers import SHARING_OPS
from qlearn.pipeline.simulate import QuantizedLayer, QuantizedModel

if TYPE_CHECKING:
    from collections.abc import Collection

    from qlearn.numbers.qparams import QParams


def partly(
    quantized: QuantizedModel, *, weights: Collection[str] | None = None, activations: Collection[str] | None = None
) -> QuantizedModel:
    """Return the network with only some of its layers quantized; the others are in float.

    The grids stay those of the quantized network, so no calibration is repeated.

    Parameters
    ----------
    quantized : QuantizedModel
        Not changed.
    weights, activations : collection of str, optional
        Layers whose weights (with their bias) and whose outputs stay quantized; None keeps all of them.
        Pooling windows, reshapes and the like follow their input.

    Returns
    -------
    QuantizedModel

    Raises
    ------
    GraphError
        If there is no layer of that name.

    Examples
    --------
    >>> import torch, qlearn as ql
    >>> net = ql.trace(torch.nn.Conv2d(1, 2, 3), torch.zeros(1, 1, 8, 8))
    >>> quantized = ql.quantize_model(net, ql.Recipe(), ql.calibrate(net, [torch.ones(1, 1, 8, 8)], ql.Recipe()))
    >>> [layer.output is None for layer in partly(quantized, activations=["input"]).layers]
    [False, True]
    """
    names = {layer.node.name for layer in quantized.layers}
    unknown = sorted({*(weights or ()), *(activations or ())} - names)
    if unknown:
        raise GraphError(f"no layer {unknown[0]!r} in {quantized.name}; there are {', '.join(sorted(names))}")
    outputs: dict[str, QParams | None] = {}
    layers = []
    for layer in quantized.layers:
        name, op = layer.node.name, layer.node.op
        if op in SHARING_OPS:
            outputs[name] = outputs[layer.node.inputs[0]]
        else:
            outputs[name] = layer.output if activations is None or name in activations else None
        mine = replace(layer, output=outputs[name], clamp=None if outputs[name] is None else layer.clamp)
        if weights is not None and name not in weights:
            mine = replace(mine, weight=None, weight_qparams=None, bias=None)
        layers.append(mine)
    return QuantizedModel(quantized.model, tuple(layers))


def sites_of(quantized: QuantizedModel) -> list[str]:
    """Return the layers that can be quantized by themselves: those with weights or a range of their own."""
    return [layer.node.name for layer in quantized.layers if _is_site(layer)]


def _is_site(layer: QuantizedLayer) -> bool:
    own_range = layer.output is not None and layer.node.op not in SHARING_OPS
    return own_range or layer.weight is not None
