"""Which channels of a network hang together: those that can only be scaled by one common factor.

A channel's scale passes unchanged through ReLU, pooling, padding, sums and everything that only moves values.
A convolution or linear layer sets it anew: its rows can take in any factor for what it writes, its columns any for
what it reads. So channels fall into classes, and each class may have a factor of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from qlearn.graph.ops import FLOAT_OPS, along_channels, channel_axis

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qlearn.graph.model import FloatModel, Node

ZERO, FIXED = 0, 1
"""Classes that every network has: padded zeros, which any factor leaves as they are, and channels whose factor is 1."""

MOVES = frozenset({"flatten", "reshape", "transpose", "slice", "pad", "concat"})
"""Operations that compute nothing: where a channel goes, its class goes."""


@dataclass(frozen=True, eq=False)
class ChannelClasses:
    """For every layer, the classes of the channels that it writes, reads and clamps.

    Parameters
    ----------
    count : int
        Number of classes. Class 0 (`ZERO`) holds padded zeros, class 1 (`FIXED`) what must not be scaled.
    writes, reads : mapping of layer to int64 Tensor, shape (O,) and (I,)
        Of every convolution and linear layer: one class per output and per input channel.
    outputs : mapping of node to int64 Tensor, shape (C,)
        Of every node: one class per channel.
    """

    count: int
    writes: Mapping[str, Tensor]
    reads: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


def channel_classes(model: FloatModel) -> ChannelClasses:
    """Return which channels of a network share a factor.

    Where a value is not scaled along with its input (the tables of sigmoid and SiLU, softmax, products of two
    values that both move, layers in float, batch norms), and at the network's input and output, the factor is 1.

    Parameters
    ----------
    model : FloatModel

    Returns
    -------
    ChannelClasses

    Examples
    --------
    >>> from torch import nn
    >>> from qlearn.graph.trace import trace
    >>> layers = nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4)
    >>> classes = channel_classes(trace(nn.Sequential(*layers), torch.zeros(1, 3, 2, 2)))
    >>> classes.writes["0"].tolist(), classes.reads["3"].tolist()
    ([2, 3], [2, 2, 2, 2, 3, 3, 3, 3])
    """
    shapes = site_shapes(model)
    walk = _Walk()
    for node in model.nodes:
        walk.visit(node, shapes[node.name])
    walk.forest.join(walk.labels[model.output], FIXED)
    return walk.result(model)


def site_shapes(model: FloatModel) -> dict[str, tuple[int, ...]]:
    """Return the shape of every node's value for one input, with a batch of one."""
    shapes: dict[str, tuple[int, ...]] = {}

    def watch(node: Node, value: Tensor) -> None:
        shapes[node.name] = tuple(value.shape)

    model(torch.zeros(1, *model.input_shape), watch)
    return shapes


class _Forest:
    """Classes of labels that have been joined (union-find)."""

    def __init__(self) -> None:
        self.parents = [ZERO, FIXED]

    def fresh(self, count: int) -> Tensor:
        first = len(self.parents)
        self.parents.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def root(self, label: int) -> int:
        while self.parents[label] != label:
            self.parents[label] = self.parents[self.parents[label]]
            label = self.parents[label]
        return label

    def join(self, labels: Tensor, others: Tensor | int) -> None:
        """Join element by element; zeros join nothing."""
        pairs = torch.stack([labels, torch.as_tensor(others).expand_as(labels)]).reshape(2, -1)
        pairs = pairs[:, (pairs != ZERO).all(dim=0) & (pairs[0] != pairs[1])]
        for pair in np.unique(pairs.numpy(), axis=1).T:
            low, high = sorted((self.root(int(pair[0])), self.root(int(pair[1]))))
            self.parents[high] = low

    def along(self, labels: Tensor, dims: tuple[int, ...], *, keepdim: bool = False) -> Tensor:
        """Join all that lie behind each other along some axes, and return one label for them."""
        largest = labels.amax(dim=dims, keepdim=True) if dims else labels
        self.join(labels, largest)
        return largest if keepdim or not dims else largest.amax(dim=dims)


class _Walk:
    """One pass over the nodes with a tensor of labels for every value."""

    def __init__(self) -> None:
        self.forest = _Forest()
        self.labels: dict[str, Tensor] = {}
        self.reads: dict[str, Tensor] = {}

    def visit(self, node: Node, shape: tuple[int, ...]) -> None:
        rule = _RULES.get(node.op, _fixed)
        if node.op in MOVES:
            rule = _moved
        self.labels[node.name] = rule(self, node, [self.labels[name] for name in node.inputs], shape)

    def per_channel(self, labels: Tensor) -> Tensor:
        """One label per channel, shape (C,)."""
        axis = channel_axis(labels.ndim) % labels.ndim
        return self.forest.along(labels, tuple(d for d in range(labels.ndim) if d != axis)).flatten()

    def result(self, model: FloatModel) -> ChannelClasses:
        outputs = {name: self.per_channel(labels) for name, labels in self.labels.items()}
        roots = [self.forest.root(label) for label in range(len(self.forest.parents))]
        kept, numbered = np.unique([ZERO, FIXED, *roots], return_inverse=True)
        number = torch.from_numpy(numbered[2:])
        weighted = [node.name for node in model.nodes if node.op in ("conv2d", "linear")]
        return ChannelClasses(
            len(kept),
            {name: number[outputs[name]] for name in weighted},
            {name: number[self.reads[name]] for name in weighted},
            {name: number[labels] for name, labels in outputs.items()},
        )


def _weighted(walk: _Walk, node: Node, inputs: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    walk.reads[node.name] = walk.per_channel(inputs[0])
    fresh = walk.forest.fresh(node.params["weight"].shape[0])
    return along_channels(fresh, len(shape)).expand(shape)


def _moved(walk: _Walk, node: Node, inputs: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    return FLOAT_OPS[node.op](node, inputs)


def _same(walk: _Walk, node: Node, inputs: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    return inputs[0]


def _pooled(walk: _Walk, node: Node, inputs: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    return walk.forest.along(inputs[0], (2, 3), keepdim=True).expand(shape)


def _mean(walk: _Walk, node: Node, inputs: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    return walk.forest.along(inputs[0], tuple(node.attrs.get("axes", (2, 3)))).reshape(shape)


def _sum(walk: _Walk, node: Node, inputs: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    walk.forest.join(*inputs)
    return torch.maximum(*inputs)


def _product(walk: _Walk, node: Node, inputs: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Linear in either operand: where one never moves (a gate), the other's classes go on."""
    for moving, other in (inputs, inputs[::-1]):
        if all(walk.forest.root(label) <= FIXED for label in np.unique(other.numpy())):
            return moving.expand(shape)
    return _fixed(walk, node, inputs, shape)


def _fixed(walk: _Walk, node: Node, inputs: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    for labels in inputs:
        walk.forest.join(labels, FIXED)
    return torch.full(shape, FIXED)


_RULES: dict[str, Callable[[_Walk, Node, Sequence[Tensor], Any], Tensor]] = {
    "conv2d": _weighted,
    "linear": _weighted,
    "clamp": _same,
    "max_pool2d": _pooled,
    "avg_pool2d": _pooled,
    "global_avg_pool": _mean,
    "mean": _mean,
    "add": _sum,
    "subtract": _sum,
    "multiply": _product,
}
