"""Fold batch normalization into its neighbours (paper §5.1, eq. 5-7)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from qlearn.graph.absorb import absorb

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from qlearn.graph.model import FloatModel, Node

UNPADDED = (0, 0, 0, 0)


class OutputStatistics(NamedTuple):
    """What a folded batch norm knew about the output of its layer, before any activation. Take apart by name or order.

    ``mean`` is β and ``std`` is |γ| √(σ² / (σ² + ε)), each of shape (C,), float32.
    The second factor is 1 for most channels, and 0 for one that never moves.
    """

    mean: Tensor
    std: Tensor


def fold_batch_norm(model: FloatModel) -> FloatModel:
    r"""Return the same function without batch norms.

    With a = γ / √(σ² + ε) and c = β - μ a, computed in float64, a batch norm is y = a x + c for every channel.
    The first of three ways that keeps the function is taken:

    1. Into the convolution or linear layer **before** it, if nothing else reads that layer's value:
       w_fold = w a and b_fold = b a + c, per output channel.
       The paper's eq. 7 leaves out b, the layer's own bias, and writes b for β.
    2. Into the layer **after** it, if that is its only reader and pads nothing:
       w_fold = w a per input channel, and b_fold = b + Σ w c.
       Around padding this would be wrong: the padded zeros come after the batch norm, and get no c.
    3. Otherwise (pre-activation ResNets and DenseNets have a ReLU behind it) it becomes a **depthwise 1x1 convolution**
       with weights a and biases c, which runs on integers like any other.

    A batch norm over (N, features) or (N, C, L) with no layer to fold into stays as it is.

    Mean and standard deviation of the batch norm's output stay with the layer that now computes it (ways 1 and 3), as
    ``attrs["bn"]``, an `OutputStatistics`: high-bias absorption and analytic bias correction need them.

    Parameters
    ----------
    model : FloatModel
        Not changed.

    Returns
    -------
    FloatModel
        Equal outputs up to float32 rounding. A folded layer keeps its name; a depthwise one has that of the batch norm.

    References
    ----------
    Paper §5.1, eq. 5-7.

    Examples
    --------
    >>> from torch import nn
    >>> from qlearn.graph.trace import trace
    >>> net = trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), torch.zeros(1, 3, 8, 8))
    >>> [node.op for node in fold_batch_norm(net).nodes]
    ['input', 'conv2d', 'clamp']
    >>> net = trace(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3)), torch.zeros(1, 3, 8, 8))
    >>> fold_batch_norm(net).nodes[1]
    0 = conv2d(input, weight[3, 1, 1, 1], bias[3])
    """
    model = absorb(model, "batch_norm", into=("conv2d", "linear"), merge=_folded_back, fits=_same_channels)
    model = _fold_forward(model)
    return model.with_nodes(_depthwise(node) if _is_depthwise(node) else node for node in model.nodes)


def norms_behind(model: FloatModel) -> dict[str, Node]:
    """Return, by the layer's name, the batch norms that alone fold into the convolution or linear layer before them.

    These are the ones that training can keep separate: the first way of `fold_batch_norm`,
    in a layer that takes in no other batch norm.

    Examples
    --------
    >>> from torch import nn
    >>> from qlearn.graph.trace import trace
    >>> net = trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), torch.zeros(1, 3, 8, 8))
    >>> norms_behind(net)
    {'0': 1 = batch_norm(0, weight[4], bias[4], running_mean[4], running_var[4])}
    """
    reads = model.reader_counts()
    nodes = {node.name: node for node in model.nodes}
    norms = {node.inputs[0]: node for node in model.nodes if node.op == "batch_norm"}
    back: dict[str, Node] = {}
    for name, norm in norms.items():
        layer = nodes[name]
        alone = layer.op in ("conv2d", "linear") and reads[name] == 1 and "clamp" not in layer.attrs
        if alone and _same_channels(layer, norm):
            back[name] = norm
    gone = {norm.name for norm in back.values()}
    return {name: norm for name, norm in back.items() if norm.name not in norms and not _norm_before(nodes, name, gone)}


def _norm_before(nodes: Mapping[str, Node], name: str, gone: Collection[str]) -> bool:
    """Whether a batch norm that stays there precedes the layer, and may fold forward into it."""
    source = nodes[nodes[name].inputs[0]]
    return source.op == "batch_norm" and source.name not in gone


def _fold_forward(model: FloatModel) -> FloatModel:
    reads = model.reader_counts()
    norms = {node.name: node for node in model.nodes if node.op == "batch_norm" and reads[node.name] == 1}
    nodes = []
    for node in model.nodes:
        norm = norms.get(node.inputs[0]) if node.inputs else None
        fits = norm is not None and _same_channels(node, norm) and node.attrs.get("padding", UNPADDED) == UNPADDED
        nodes.append(_folded_forward(norm, node) if norm is not None and fits else node)
    return model.with_nodes(nodes)


def _same_channels(layer: Node, norm: Node) -> bool:
    """Whether the channels of the batch norm (axis 1) are those of the layer; a linear layer has them last."""
    return layer.op == "conv2d" or (layer.op == "linear" and norm.attrs["rank"] == 2)


def _is_depthwise(node: Node) -> bool:
    return node.op == "batch_norm" and node.attrs["rank"] == 4


def _factor_and_offset(norm: Node) -> tuple[Tensor, Tensor]:
    """Return a and c of y = a x + c, float64."""
    gamma, beta, mean, variance = (
        norm.params[key].double() for key in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gamma / torch.sqrt(variance + norm.attrs["eps"])
    return factor, beta - mean * factor


def _folded_back(layer: Node, norm: Node) -> Node:
    factor, offset = _factor_and_offset(norm)
    weight, bias = _weight_and_bias(layer)
    per_output = factor.reshape(-1, *[1] * (weight.ndim - 1))
    folded = layer.with_attrs(bn=_statistics(norm))
    return folded.with_params(**_float32(weight * per_output, bias * factor + offset))


def _statistics(norm: Node) -> OutputStatistics:
    """Mean and standard deviation of what a batch norm puts out; a channel with variance 0 never moves."""
    gamma, beta, variance = (norm.params[key].double() for key in ("weight", "bias", "running_var"))
    std = gamma.abs() * torch.sqrt(variance / (variance + norm.attrs["eps"]))
    return OutputStatistics(beta.float(), std.float())


def _folded_forward(norm: Node, layer: Node) -> Node:
    factor, offset = _factor_and_offset(norm)
    weight, bias = _weight_and_bias(layer)
    groups = int(layer.attrs.get("groups", 1))
    grouped = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    factor, offset = (values.reshape(groups, 1, -1, 1) for values in (factor, offset))
    constant = (grouped * offset).sum(dim=(2, 3)).flatten()
    params = _float32((grouped * factor).reshape(weight.shape), bias + constant)
    return replace(layer, inputs=norm.inputs).with_params(**params)


def _depthwise(norm: Node) -> Node:
    factor, offset = _factor_and_offset(norm)
    attrs: dict[str, Any] = {"stride": (1, 1), "padding": UNPADDED, "dilation": (1, 1), "groups": len(factor)}
    attrs["bn"] = _statistics(norm)
    return replace(norm, op="conv2d", attrs=attrs, params=_float32(factor.reshape(-1, 1, 1, 1), offset))


def _weight_and_bias(layer: Node) -> tuple[Tensor, Tensor]:
    weight = layer.params["weight"].double()
    return weight, layer.params["bias"].double() if "bias" in layer.params else torch.zeros(len(weight)).double()


def _float32(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    return {"weight": weight.float(), "bias": bias.float()}
