"""Dead channels: the same for every picture, and often the owners of the range of the weights that read them (§5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qlearn.graph.bounds import Bounds, value_bounds
from qlearn.graph.constants import border_error, by_input, moved_into_bias
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.ops import WEIGHTED_OPS, along_channels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qlearn.graph.model import FloatModel, Node

TOLERANCE = 1e-6
"""A channel is dead where no picture moves it by more than this share of its own value: less than float32 resolves."""


@dataclass(frozen=True)
class DeadInput:
    """A dead channel, as one layer reads it.

    Parameters
    ----------
    layer, channel : str, int
        Who reads it, and which of the layer's inputs it is (a feature, for a linear layer).
    constant : float
        Its value; beside zero padding, and only there, it may be another.
    weight_share : float
        The largest |weight| that reads it, over the largest one of the layer's other inputs: above 1, a dead channel
        owns the layer's per-tensor range.
    border_error : float
        By how much the layer's sum would be wrong, at worst and beside padding, with the constant moved into its bias.
    """

    layer: str
    channel: int
    constant: float
    weight_share: float
    border_error: float

    @property
    def exact(self) -> bool:
        """Whether the weights that read it can go, its constant moved into the bias, and no output changes."""
        return self.border_error == 0.0


def dead_channels(model: FloatModel) -> dict[str, dict[int, float]]:
    """Return the channels that are the same for every picture, by the layer that computes them.

    A convolution whose weights are zero for an output channel makes a dead channel.
    So does one whose result a ReLU always cuts to zero, or the other end of a ReLU6 always cuts to six.
    This is proved by interval arithmetic (`value_bounds`), not observed on pictures.

    Parameters
    ----------
    model : FloatModel
        Batch norms folded.

    Returns
    -------
    dict of layer to dict of channel to constant
        The constant is the value after the layer's ReLU; that inside, where the borders differ.

    Examples
    --------
    >>> from torch import nn
    >>> from qlearn.graph.trace import trace
    >>> conv = nn.Conv2d(1, 2, 1)
    >>> _ = nn.init.zeros_(conv.weight[1]), nn.init.constant_(conv.bias, -3.0)
    >>> dead_channels(trace(nn.Sequential(conv, nn.ReLU()), torch.zeros(1, 1, 4, 4)))
    {'0': {1: 0.0}}
    """
    fused = fuse_activations(model)
    bounds = value_bounds(fused)
    found = {}
    for node in fused.nodes:
        rows = bounds[node.name].per_channel()
        still = torch.nonzero(_still(rows)).flatten().tolist()
        if still and node.op in (*WEIGHTED_OPS, "add"):
            found[node.name] = {channel: float(_inside(rows)[channel]) for channel in still}
    return found


def dead_inputs(model: FloatModel) -> list[DeadInput]:
    """Return the dead channels that convolutions and linear layers read.

    Parameters
    ----------
    model : FloatModel
        Batch norms folded.
    """
    bounds = value_bounds(model)
    return [
        one for node in model.nodes if node.op in WEIGHTED_OPS for one in _dead_inputs_of(node, bounds[node.inputs[0]])
    ]


def zero_dead_inputs(model: FloatModel, *, at_borders: bool = False) -> FloatModel:
    """Return the same function with weights of zero wherever they read a dead channel.

    Folding a batch norm with variance 0 multiplies by 1 / √ε, so that the weights around a dead channel are often the
    largest of their layer. They then own the per-tensor range and do nothing with it, and they keep equalization
    from working. What they add to the sum is known: 0 where the channel is 0, else a constant, for the bias to add.

    Beside zero padding, a channel with the constant c reads as 0 and not as c. There the constant would be wrong, so
    such a channel is left alone unless `at_borders`; `dead_inputs` tells the error.
    A channel that is 0 has no such error.

    Parameters
    ----------
    model : FloatModel
        Batch norms folded. Not changed.
    at_borders : bool
        Treat also the channels for which the layer's sum is then wrong beside padding.

    Returns
    -------
    FloatModel
        Equal outputs up to float32 rounding, unless `at_borders`.

    References
    ----------
    Paper §5.1 (folding), Table 1 (what happens per tensor).

    Examples
    --------
    >>> from torch import nn
    >>> from qlearn.graph.trace import trace
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1)).requires_grad_(False)
    >>> _ = nn.init.zeros_(net[0].weight[1]), nn.init.constant_(net[0].bias, 0.5)
    >>> _ = nn.init.constant_(net[2].weight, 100.0), nn.init.zeros_(net[2].bias)
    >>> mended = zero_dead_inputs(trace(net, torch.zeros(1, 1, 4, 4))).node("2")
    >>> mended.params["weight"].flatten().tolist(), mended.params["bias"].tolist()
    ([100.0, 0.0], [50.0])
    """
    chosen: dict[str, dict[int, float]] = {}
    for one in dead_inputs(model):
        if one.exact or at_borders:
            chosen.setdefault(one.layer, {})[one.channel] = one.constant
    return model.with_nodes(_zeroed(node, chosen[node.name]) if node.name in chosen else node for node in model.nodes)


def _dead_inputs_of(node: Node, bounds: Bounds) -> list[DeadInput]:
    rows = bounds.per_channel()
    still, inside = _still(rows), _inside(rows)
    largest = torch.zeros(len(still)).scatter_reduce_(0, *_largest_by_input(node, len(still)), "amax")
    others = float(largest[~still].max()) if bool((~still).any()) else 0.0
    found = []
    for channel in torch.nonzero(still).flatten().tolist():
        constant, share = float(inside[channel]), float(largest[channel])
        only = torch.arange(len(still)) == channel
        x = torch.where(along_channels(only, bounds.low.ndim), (bounds.low + bounds.high) / 2, 0.0)
        error = border_error(node, x, torch.where(only, inside, 0.0)) if bool(x.any()) else 0.0
        negligible = error <= TOLERANCE * float(x.abs().max()) * share
        found.append(DeadInput(node.name, channel, constant, share / others if others else share,
                               0.0 if negligible else error))  # fmt: skip
    return found


def _largest_by_input(node: Node, channels: int) -> tuple[Tensor, Tensor]:
    """Which input channel each weight reads, and its size, flat."""
    weight = node.params["weight"]
    which = by_input(node, torch.arange(channels)).expand(weight.shape)
    return which.flatten(), weight.abs().flatten()


def _still(rows: Bounds) -> Tensor:
    """Channels that no picture moves, at any position."""
    size = torch.maximum(rows.low.abs(), rows.high.abs())
    return (rows.high - rows.low <= TOLERANCE * size).all(dim=1)


def _inside(rows: Bounds) -> Tensor:
    """The value at most positions."""
    return ((rows.low + rows.high) / 2).median(dim=1).values


def _zeroed(node: Node, constants: Mapping[int, float]) -> Node:
    weight = node.params["weight"]
    groups = int(node.attrs.get("groups", 1))
    values = torch.zeros(groups * weight.shape[1], dtype=torch.float64)
    dead = torch.zeros_like(values, dtype=torch.bool)
    for channel, constant in constants.items():
        dead[channel], values[channel] = True, constant
    moved = moved_into_bias(node, values)
    params = {"weight": torch.where(by_input(node, dead), 0.0, weight)}
    if bool((moved != 0).any()):
        params["bias"] = (node.params.get("bias", torch.zeros(len(weight))).double() + moved).float()
    return node.with_params(**params)
