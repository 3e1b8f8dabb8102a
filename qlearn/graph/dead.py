"""Dead channels: channels that are the same for every picture, and own the range of the weights that read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qlearn.graph.bounds import Bounds, value_bounds
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.ops import FLOAT_OPS

if TYPE_CHECKING:
    from qlearn.graph.model import FloatModel, Node

WEIGHTED = ("conv2d", "linear")
UNPADDED = (0, 0, 0, 0)
TOLERANCE = 1e-6
"""A channel is constant where it moves by less than this share of its own value: less than float32 rounding."""


@dataclass(frozen=True)
class DeadInput:
    """A dead channel, as one layer reads it.

    Parameters
    ----------
    layer, channel : str, int
        Who reads it, and which of its input channels it is.
    constant : float
        Its value inside; beside zero padding it may be another.
    exact : bool
        Whether zeroing the weights, with the constant moved into the bias, changes no output.
    border_error : float
        Otherwise: by how much the layer's output would be wrong, at worst, beside the padding.
    """

    layer: str
    channel: int
    constant: float
    exact: bool
    border_error: float = 0.0


def dead_channels(model: FloatModel) -> dict[str, dict[int, float]]:
    """Return the channels that are the same for every picture.

    Returns
    -------
    dict of site to {channel: constant}
    """
    fused = fuse_activations(model)
    bounds = value_bounds(fused)
    found = {n.name: _constants(bounds[n.name]) for n in fused.nodes if n.op in (*WEIGHTED, "add", "batch_norm")}
    return {name: constants for name, constants in found.items() if constants}


def _constants(bounds: Bounds) -> dict[int, float]:
    rows = bounds.per_channel()
    middle = _middle(rows)
    return {int(c): float(middle[c]) for c in torch.nonzero(_still(rows)).flatten()}


def _still(rows: Bounds) -> Tensor:
    """Channels that no picture moves, at any position."""
    size = torch.maximum(rows.low.abs(), rows.high.abs())
    return (rows.high - rows.low <= TOLERANCE * size).all(dim=1)


def _middle(rows: Bounds) -> Tensor:
    """The value at most positions: that inside."""
    return ((rows.low + rows.high) / 2).median(dim=1).values


def dead_inputs(model: FloatModel) -> list[DeadInput]:
    """Return the dead channels that convolutions and linear layers read."""
    bounds = value_bounds(model)
    return [one for node in model.nodes if node.op in WEIGHTED for one in _dead_inputs_of(node, bounds[node.inputs[0]])]


def _dead_inputs_of(node: Node, bounds: Bounds) -> list[DeadInput]:
    rows = bounds.per_channel()
    middle = _middle(rows)
    found = []
    for channel in torch.nonzero(_still(rows)).flatten().tolist():
        constant = float(middle[channel])
        error = _border_error(node, bounds, channel, constant)
        found.append(DeadInput(node.name, channel, constant, error == 0.0, error))
    return found


def _border_error(node: Node, bounds: Bounds, channel: int, constant: float) -> float:
    """The largest difference between what the layer adds up for this channel, and the constant inside."""
    return 0.0


def zero_dead_inputs(model: FloatModel, *, at_borders: bool = False) -> FloatModel:
    chosen = {}
    for one in dead_inputs(model):
        if one.exact or at_borders:
            chosen.setdefault(one.layer, {})[one.channel] = one.constant
    return model.with_nodes(_zeroed(n, chosen[n.name]) if n.name in chosen else n for n in model.nodes)


def _zeroed(node: Node, constants: dict[int, float]) -> Node:
    weight = node.params["weight"]
    outputs, inputs = weight.shape[:2]
    groups = int(node.attrs.get("groups", 1))
    dead, value = torch.zeros(groups * inputs, dtype=torch.bool), torch.zeros(groups * inputs, dtype=torch.float64)
    for channel, constant in constants.items():
        dead[channel], value[channel] = True, constant
    shape = (outputs, inputs, *[1] * (weight.ndim - 2))
    dead, value = (v.reshape(groups, 1, inputs).expand(groups, outputs // groups, inputs).reshape(shape) for v in (dead, value))
    moved = (weight.double() * value).flatten(1).sum(dim=1)
    params = {"weight": torch.where(dead, 0.0, weight)}
    if bool((moved != 0).any()):
        params["bias"] = (node.params.get("bias", torch.zeros(outputs)).double() + moved).float()
    return node.with_weights(**params)
