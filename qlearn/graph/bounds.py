"""Between which values does every site lie, whatever the picture? Interval arithmetic, layer after layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qlearn.graph.channels import MOVES
from qlearn.graph.ops import FLOAT_OPS, channel_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qlearn.graph.model import FloatModel, Node

ANY_INPUT = 1e4
"""Inputs lie between plus and minus this, unless the preprocessing says more."""

ANYTHING = 1e30
"""Where nothing is known."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """The smallest and largest values that one site can take.

    Parameters
    ----------
    low, high : Tensor, shape of the site with a batch of one, float64
    """

    low: Tensor
    high: Tensor

    def per_channel(self) -> Bounds:
        """Return one row per channel, shape (C, positions)."""
        return Bounds(channel_rows(self.low), channel_rows(self.high))


def value_bounds(model: FloatModel) -> dict[str, Bounds]:
    """Return between which values every site of a network lies, for all pictures.

    The bounds hold for every position by itself, so that the effect of padding is in them.
    They are wide where layers add up many terms, and tight behind a ReLU6; a channel that never moves has low = high.

    Parameters
    ----------
    model : FloatModel
        Where it has a preprocessing, its input is what uint8 pictures become; else within ±1e4.

    Returns
    -------
    dict of site to Bounds

    Examples
    --------
    >>> from torch import nn
    >>> from qlearn.graph.trace import trace
    >>> layer = nn.Conv2d(1, 1, 1)
    >>> _ = nn.init.constant_(layer.weight, 2.0), nn.init.constant_(layer.bias, -1.0)
    >>> bounds = value_bounds(trace(nn.Sequential(nn.Hardtanh(0.0, 3.0), layer, nn.ReLU6()), torch.zeros(1, 1, 1, 1)))
    >>> bounds["1"].low.item(), bounds["1"].high.item(), bounds["2"].low.item(), bounds["2"].high.item()
    (-1.0, 5.0, 0.0, 5.0)
    """
    values: dict[str, Bounds] = {}
    with torch.no_grad():
        for node in model.nodes:
            inputs = [values[name] for name in node.inputs]
            values[node.name] = _of_input(model) if node.op == "input" else _rule(node)(_double(node), inputs)
    return values


def _of_input(model: FloatModel) -> Bounds:
    ends = torch.full((2, *model.input_shape), ANY_INPUT, dtype=torch.float64)
    ends[0] = -ANY_INPUT
    if model.preprocess is not None:
        mean, std = (torch.tensor(v, dtype=torch.float64) for v in (model.preprocess.mean, model.preprocess.std))
        colours = torch.stack([(0 - mean) / std, (1 - mean) / std])
        ends = colours[:, :, None, None].expand(2, *model.input_shape)
    return Bounds(ends.amin(0)[None], ends.amax(0)[None])


def _double(node: Node) -> Node:
    return replace(node, params={key: value.double() for key, value in node.params.items()})


def _rule(node: Node) -> Callable[[Node, Sequence[Bounds]], Bounds]:
    return _each_end if node.op in MOVES or node.op in _RISING else _RULES.get(node.op, _unknown)


def _each_end(node: Node, inputs: Sequence[Bounds]) -> Bounds:
    """For operations that never fall when an input rises."""
    run = FLOAT_OPS[node.op]
    return Bounds(run(node, [x.low for x in inputs]), run(node, [x.high for x in inputs]))


def _weighted(node: Node, inputs: Sequence[Bounds]) -> Bounds:
    """Positive weights take an end to the same end, negative ones to the other."""
    run, x, weight = FLOAT_OPS[node.op], inputs[0], node.params["weight"]
    rising, falling = (replace(node, attrs={**node.attrs, "clamp": None}, params={"weight": part})
                       for part in (weight.clamp(min=0), weight.clamp(max=0)))  # fmt: skip
    ends = [run(rising, [a]) + run(falling, [b]) for a, b in ((x.low, x.high), (x.high, x.low))]
    still = replace(
        node, params={**node.params, "weight": torch.zeros_like(weight)}, attrs={**node.attrs, "clamp": None}
    )
    bias = run(still, [torch.zeros_like(x.low)])
    low, high = (end + bias for end in ends)
    if node.attrs.get("clamp") is None:
        return Bounds(low, high)
    return Bounds(FLOAT_OPS["clamp"](node, [low]), FLOAT_OPS["clamp"](node, [high]))


def _batch_norm(node: Node, inputs: Sequence[Bounds]) -> Bounds:
    return _sorted([FLOAT_OPS["batch_norm"](node, [end]) for end in (inputs[0].low, inputs[0].high)])


def _unary(node: Node, inputs: Sequence[Bounds]) -> Bounds:
    """SiLU and hard-swish dip below zero between their ends."""
    ends = _each_end(node, inputs)
    dip = {"silu": -0.2785, "hard_swish": -0.375}.get(node.attrs["function"])
    if dip is None:
        return ends
    same = inputs[0].low == inputs[0].high
    return Bounds(torch.where(same, ends.low, dip), torch.maximum(ends.low, ends.high))


def _subtract(node: Node, inputs: Sequence[Bounds]) -> Bounds:
    return Bounds(inputs[0].low - inputs[1].high, inputs[0].high - inputs[1].low)


def _multiply(node: Node, inputs: Sequence[Bounds]) -> Bounds:
    a, b = inputs
    return _sorted([x * y for x in (a.low, a.high) for y in (b.low, b.high)])


def _softmax(node: Node, inputs: Sequence[Bounds]) -> Bounds:
    return Bounds(torch.zeros_like(inputs[0].low), torch.ones_like(inputs[0].low))


def _unknown(node: Node, inputs: Sequence[Bounds]) -> Bounds:
    shape = FLOAT_OPS[node.op](node, [x.low.float() for x in inputs])
    far = torch.full_like(shape, ANYTHING, dtype=torch.float64)
    return Bounds(-far, far)


def _sorted(ends: Sequence[Tensor]) -> Bounds:
    stacked = torch.stack(list(ends))
    return Bounds(stacked.amin(dim=0), stacked.amax(dim=0))


_RISING = frozenset({"clamp", "add", "max_pool2d", "avg_pool2d", "global_avg_pool", "mean"})
_RULES: dict[str, Callable[[Node, Sequence[Bounds]], Bounds]] = {
    "conv2d": _weighted,
    "linear": _weighted,
    "batch_norm": _batch_norm,
    "unary": _unary,
    "subtract": _subtract,
    "multiply": _multiply,
    "softmax": _softmax,
}
