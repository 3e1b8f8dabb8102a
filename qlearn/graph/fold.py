"""Fold batch normalization into the layer before it (paper §5.1, eq. 5-7)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from qlearn.graph.absorb import absorb

if TYPE_CHECKING:
    from qlearn.graph.model import FloatModel, Node


def fold_batch_norm(model: FloatModel) -> FloatModel:
    r"""Return the same function with every batch norm folded into the convolution or linear layer before it.

    w_fold = w · γ / √(σ² + ε) and b_fold = β + (b − μ) · γ / √(σ² + ε), per output channel, computed in float64.
    The paper's eq. 7 leaves out b, the layer's own bias, and writes b for β.
    A batch norm that follows something else, or whose layer is read by others too, stays as it is.

    Parameters
    ----------
    model : FloatModel
        Not changed.

    Returns
    -------
    FloatModel
        Equal outputs up to float32 rounding. A folded node keeps the name of its convolution.

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
    """
    return absorb(model, "batch_norm", into=("conv2d", "linear"), merge=_folded)


def _folded(layer: Node, norm: Node) -> Node:
    gamma, beta, mean, variance = (
        norm.params[key].double() for key in ("weight", "bias", "running_mean", "running_var")
    )
    weight = layer.params["weight"].double()
    bias = layer.params["bias"].double() if "bias" in layer.params else torch.zeros_like(mean)
    factor = gamma / torch.sqrt(variance + norm.attrs["eps"])
    per_output = factor.reshape(-1, *[1] * (weight.ndim - 1))
    return replace(
        layer, params={"weight": (weight * per_output).float(), "bias": (beta + (bias - mean) * factor).float()}
    )
