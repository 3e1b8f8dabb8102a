"""What a layer reads and makes at some positions, as the rows of two matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qlearn.graph.ops import pad_spatial

if TYPE_CHECKING:
    from torch import Tensor

    from qlearn.graph.model import Node


def sample(node: Node, x: Tensor, y: Tensor, each: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return inputs and outputs of a layer at random positions of every picture.

    Parameters
    ----------
    node : Node
        A convolution or a linear layer.
    x : Tensor, shape (N, C, H, W) or (N, ..., K), float32
        Its input.
    y : Tensor, shape (N, O, h, w) or (N, ..., O), float32
        Its output.
    each : int
        Positions of each picture; fewer where it has not as many.
    generator : torch.Generator
        Chooses them.

    Returns
    -------
    Tensor, shape (G, P, K)
        What each output reads: in each of G groups, K = C / G · kh · kw values, padding zeros among them.
    Tensor, shape (G, P, M)
        The outputs, M = O / G of each group.

    Examples
    --------
    A matrix product with the weights gives the outputs:

    >>> from qlearn.graph.model import Node
    >>> x, weight = torch.rand(2, 3, 8, 8), torch.rand(4, 3, 3, 3)
    >>> attrs = {"stride": (2, 2), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
    >>> y = torch.nn.functional.conv2d(x, weight, stride=2, padding=1)
    >>> node = Node("conv", "conv2d", ("x",), attrs, {"weight": weight})
    >>> inputs, outputs = sample(node, x, y, each=5, generator=torch.Generator().manual_seed(0))
    >>> inputs.shape, torch.allclose(inputs[0] @ weight.flatten(1).T, outputs[0], atol=1e-5)
    (torch.Size([1, 10, 27]), True)
    """
    count = y[0].numel() // y.shape[-1] if node.op == "linear" else y.shape[2] * y.shape[3]
    draws = [torch.randperm(count, generator=generator)[:each] for _ in range(len(x))]
    places = torch.stack(draws)
    if node.op == "linear":
        return _rows(x, places)[None], _rows(y, places)[None]
    groups = node.attrs["groups"]
    outputs = _rows(y.flatten(2).transpose(1, 2), places)
    outputs = outputs.reshape(len(outputs), groups, -1).transpose(0, 1)
    return _patches(node, x, places, y.shape[3]), outputs


def _rows(values: Tensor, places: Tensor) -> Tensor:
    """Take some rows (N, P) of the (N, ..., F) values, one below the other: (N P, F)."""
    rows = values.reshape(len(values), -1, values.shape[-1])
    return rows[torch.arange(len(rows))[:, None], places].flatten(0, 1)


def _patches(node: Node, x: Tensor, places: Tensor, width: int) -> Tensor:
    """Take what the convolution reads at some places (N, P) of its output: (G, N P, C / G kh kw)."""
    attrs, groups = node.attrs, node.attrs["groups"]
    kernel = node.params["weight"].shape[2:]
    top, left = places // width * attrs["stride"][0], places % width * attrs["stride"][1]
    rows = top[:, :, None, None] + torch.arange(kernel[0])[:, None] * attrs["dilation"][0]
    columns = left[:, :, None, None] + torch.arange(kernel[1]) * attrs["dilation"][1]
    pictures = torch.arange(len(x))[:, None, None, None]
    found = pad_spatial(x, attrs["padding"]).permute(0, 2, 3, 1)[pictures, rows, columns]  # (N, P, kh, kw, C)
    split = found.reshape(places.numel(), kernel[0] * kernel[1], groups, -1)  # (N P, kh kw, G, C / G)
    return split.permute(2, 0, 3, 1).flatten(2)
