"""Cross-layer equalization: move factors between layers until no channel owns the range (paper §5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qlearn.errors import GraphError
from qlearn.graph.channels import FIXED, ZERO, ChannelClasses, channel_classes
from qlearn.graph.fold import OutputStatistics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qlearn.graph.model import FloatModel, Node

WEIGHTED = ("conv2d", "linear")


def cross_layer_equalize(model: FloatModel, *, sweeps: int = 100, tolerance: float = 1e-4) -> FloatModel:
    """Return the same function with weights whose channels have more equal ranges."""
    return scale_channels(model, equalizing_factors(model, sweeps=sweeps, tolerance=tolerance))


def equalizing_factors(model: FloatModel, *, sweeps: int = 100, tolerance: float = 1e-4) -> Tensor:
    """Return the factors."""
    classes = channel_classes(model)
    ranges = {node.name: WeightRanges(node, classes) for node in model.nodes if node.op in WEIGHTED}
    factors = torch.ones(classes.count, dtype=torch.float64)
    for _ in range(sweeps):
        farthest = 0.0
        for name in ranges:
            members = classes.writes[name].unique()
            members = members[members > FIXED]
            near = [r for r in ranges.values() if r.touches(members)]
            written, read = torch.zeros(2, classes.count, dtype=torch.float64)
            for layer in near:
                layer.raise_to_ranges(factors, written, read)
            step = torch.sqrt(written[members] / read[members])
            step = torch.where(torch.isfinite(step) & (step > 0), step, 1.0)
            factors[members] *= step
            farthest = max(farthest, float(step.log().abs().max(initial=0)) if False else (float(step.log().abs().max()) if step.numel() else 0.0))
        if farthest < tolerance:
            break
    return factors


class WeightRanges:
    """The largest |weight| between every output and input channel of one layer."""

    def __init__(self, node: Node, classes: ChannelClasses) -> None:
        weight = node.params["weight"].double().abs()
        self.table = weight.flatten(2).amax(dim=2) if weight.ndim > 2 else weight
        self.writes = classes.writes[node.name]
        self.reads = read_classes(node, classes)
        self.members = torch.cat([self.writes, self.reads.flatten()]).unique()

    def touches(self, members: Tensor) -> bool:
        return bool(torch.isin(self.members, members).any())

    def raise_to_ranges(self, factors: Tensor, written: Tensor, read: Tensor) -> None:
        scaled = self.table * factors[self.reads] / factors[self.writes][:, None]
        written.scatter_reduce_(0, self.writes, scaled.amax(dim=1), "amax")
        read.scatter_reduce_(0, self.reads.flatten(), scaled.flatten(), "amax")


def read_classes(node: Node, classes: ChannelClasses) -> Tensor:
    """The class that each weight reads, shape (O, I / groups)."""
    outputs, inputs = node.params["weight"].shape[:2]
    groups = int(node.attrs.get("groups", 1))
    per_group = classes.reads[node.name].reshape(groups, 1, inputs)
    return per_group.expand(groups, outputs // groups, inputs).reshape(outputs, inputs)


def scale_channels(model: FloatModel, factors: Tensor) -> FloatModel:
    """Divide what is written by the factor of its class, and multiply what is read."""
    classes = channel_classes(model)
    return model.with_nodes(_scaled(node, classes, factors.double()) for node in model.nodes)


def _scaled(node: Node, classes: ChannelClasses, factors: Tensor) -> Node:
    written = factors[classes.outputs[node.name]]
    if bool((written != 1).any()) and "clamp" in node.attrs:
        node = node.with_attrs(clamp=tuple(_scaled_limit(limit, written) for limit in node.attrs["clamp"]))
    if node.op not in WEIGHTED:
        return node
    weight = node.params["weight"].double()
    read = factors[read_classes(node, classes)]
    shape = (*weight.shape[:2], *[1] * (weight.ndim - 2))
    params = {"weight": (weight * (read / written[:, None]).reshape(shape)).float()}
    if "bias" in node.params:
        params["bias"] = (node.params["bias"].double() / written).float()
    if "bn" in node.attrs:
        mean, std = node.attrs["bn"]
        node = node.with_attrs(bn=OutputStatistics((mean / written).float(), (std / written).float()))
    return node.with_weights(**params)


def _scaled_limit(limit, written):
    if not isinstance(limit, Tensor) and limit in (0.0, float("inf"), float("-inf")):
        return limit
    return (torch.as_tensor(limit).double() / written).float()
