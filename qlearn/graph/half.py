"""Weights rounded to float16: half the bytes of float32, for layers that must not be quantized (paper §7.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from qlearn.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from qlearn.graph.model import FloatModel, Node

LARGEST_HALF = 65504.0


def round_to_float16(model: FloatModel, layers: Sequence[str] | None = None) -> FloatModel:
    """Return the network with weights and biases rounded to the nearest float16; arithmetic stays float32.

    That is what LiteRT's float16 format does on a CPU: it stores halves, and computes on float32.
    Together with a recipe that leaves these layers in float, it shows what FP16 would rescue:
    ``recipe.with_layer(name, weights=None, activations=None)``.

    Parameters
    ----------
    model : FloatModel
        Not changed. Fold batch norms first: what is rounded is what will be stored.
    layers : sequence of str, optional
        Only these; all layers with parameters if not given.

    Raises
    ------
    GraphError
        If a layer is unknown, or a number is too large for float16 (65504) or not finite.

    References
    ----------
    Paper §7.3.

    Examples
    --------
    >>> from torch import nn
    >>> from qlearn.graph.trace import trace
    >>> linear = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(linear.weight, 0.1)
    >>> half = round_to_float16(trace(nn.Sequential(linear), torch.zeros(1, 1)))
    >>> half.node("0").params["weight"].item()
    0.0999755859375
    """
    for name in layers or ():
        model.node(name)  # names those that there are
    return model.with_nodes(_rounded(node) if layers is None or node.name in layers else node for node in model.nodes)


def _rounded(node: Node) -> Node:
    return replace(node, params={key: _half(value, f"{key} of {node.name!r}") for key, value in node.params.items()})


def _half(value: Tensor, where: str) -> Tensor:
    half = value.to(torch.float16).to(torch.float32)
    if not torch.isfinite(half).all():
        raise GraphError(
            f"the {where} reaches {value.abs().max().item():.4g}: float16 ends at {LARGEST_HALF:.0f}. "
            "Leave this layer in float32"
        )
    return half
