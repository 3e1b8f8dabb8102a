"""What a constant input channel adds to a layer's sum, inside and beside zero padding."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qlearn.graph.ops import FLOAT_OPS, along_channels

if TYPE_CHECKING:
    from torch import Tensor

    from qlearn.graph.model import Node


def by_input(layer: Node, values: Tensor) -> Tensor:
    """Spread one value per input channel, shape (I,), over the weights: shape (O, I / groups, 1, …).

    A grouped convolution has weights for the channels of its own group only.

    Examples
    --------
    >>> import torch
    >>> from qlearn.graph.model import Node
    >>> depthwise = Node("d", "conv2d", ("x",), {"groups": 2}, {"weight": torch.zeros(4, 1, 3, 3)})
    >>> by_input(depthwise, torch.tensor([5, 7])).flatten().tolist()
    [5, 5, 7, 7]
    """
    weight = layer.params["weight"]
    outputs, inputs = weight.shape[:2]
    groups = int(layer.attrs.get("groups", 1))
    spread = values.reshape(groups, 1, inputs).expand(groups, outputs // groups, inputs)
    return spread.reshape(outputs, inputs, *[1] * (weight.ndim - 2))


def moved_into_bias(layer: Node, constants: Tensor) -> Tensor:
    """Return what constant input channels add to each output, away from any padding: Σ w c, shape (O,), float64.

    Parameters
    ----------
    layer : Node
        A convolution or linear layer.
    constants : Tensor, shape (I,)
        One per input channel, 0 for channels that stay.
    """
    weight = layer.params["weight"].double()
    return (weight * by_input(layer, constants.double())).flatten(1).sum(dim=1)


def border_error(layer: Node, x: Tensor, constants: Tensor) -> float:
    """Return by how much the layer's sum is wrong at worst, if constants are moved into its bias.

    The bias adds Σ w c everywhere. Beside zero padding, part of the kernel reads zeros instead of c, and the sum
    should be smaller.

    Parameters
    ----------
    layer : Node
        A convolution or linear layer.
    x : Tensor
        Its input with the constants where they are: shape of the input with a batch of one.
        Zero for other channels, and where a padding before this layer has put zeros.
    constants : Tensor, shape (I,)
    """
    bare = replace(layer, attrs={**layer.attrs, "clamp": None}, params={"weight": layer.params["weight"].double()})
    true = FLOAT_OPS[layer.op](bare, [x.double()])
    return float((true - along_channels(moved_into_bias(layer, constants), true.ndim)).abs().max())
