"""Cross-layer equalization: move factors between layers until no channel owns the range of its layer (paper §7.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from qlearn.errors import GraphError
from qlearn.graph.channels import FIXED, ChannelClasses, channel_classes
from qlearn.graph.constants import by_input
from qlearn.graph.fold import OutputStatistics
from qlearn.graph.ops import WEIGHTED_OPS

if TYPE_CHECKING:
    from qlearn.graph.model import FloatModel, Node


def cross_layer_equalize(model: FloatModel, *, sweeps: int = 50, tolerance: float = 1e-3) -> FloatModel:
    r"""Return the same function with weights whose channels have like ranges, so that one scale per tensor suits all.

    ReLU lets a positive factor through: relu(x / s) = relu(x) / s. So what one layer writes may be divided by s, if the
    layers that read it multiply their weights by s. With r1 = max |w| of all weights that write a channel, and r2
    of all that read it, the factor

    .. math:: s = \sqrt{r_1 / r_2}

    gives both the range √(r1 r2). Layer after layer takes its turn, again and again, until no factor moves.
    Around a depthwise convolution that ends where r1, r2 and r3 are (r1 r2 r3)^⅓, the factors for a triple.

    - **ReLU6** becomes a clamp to [0, 6 / s], one end per channel: exact.
    - **Channels that meet** in a sum, or are read by several layers, share one factor: all their writers and all their
      readers count in r1 and r2 (`channel_classes`).
    - **Before a linear layer**, a channel of H x W positions owns H W columns.
    - A channel that nothing writes or reads (weights all zero), or that has NaN, keeps its factor.
    - What cannot be scaled keeps the factor 1: inputs and outputs of the network, of sigmoid, SiLU and other tables,
      of softmax, of products, of unfolded batch norms, of layers in float (PReLU among them).

    Dead channels must be zeroed first (`zero_dead_inputs`): they have large weights and no range to give.

    Parameters
    ----------
    model : FloatModel
        Batch norms folded. Not changed.
    sweeps : int
        At most so many rounds over all layers.
    tolerance : float
        Stop when no factor has moved by more than this share in one round.

    Returns
    -------
    FloatModel
        Equal outputs up to float32 rounding. Batch-norm statistics (``attrs["bn"]``) are scaled along.

    Raises
    ------
    GraphError
        If sweeps or tolerance are not positive.

    References
    ----------
    M. Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019, §4.1;
    paper §7.2.

    Examples
    --------
    >>> from torch import nn
    >>> from qlearn.graph.trace import trace
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU6(), nn.Conv2d(2, 1, 1)).requires_grad_(False)
    >>> _ = net[0].weight.copy_(torch.tensor([8.0, 0.5]).reshape(2, 1, 1, 1)), nn.init.constant_(net[2].weight, 2.0)
    >>> equal = cross_layer_equalize(trace(net, torch.zeros(1, 1, 4, 4)))
    >>> [node.params["weight"].flatten().tolist() for node in equal.nodes if node.op == "conv2d"]
    [[4.0, 1.0], [4.0, 1.0]]
    >>> equal.node("1").attrs["clamp"][1].tolist()
    [3.0, 12.0]
    """
    return scale_channels(model, equalizing_factors(model, sweeps=sweeps, tolerance=tolerance))


def unscaled_layers(model: FloatModel) -> tuple[str, ...]:
    """Return the convolutions and linear layers inside a network that write no channel an equalization can scale.

    Something behind them keeps the factor 1 (a table of sigmoid or SiLU, a product, a layer in float), so their ranges
    stay as they are. Layers that write the network's output are left out: nothing could be done there.

    Examples
    --------
    >>> from torch import nn
    >>> from qlearn.graph.trace import trace
    >>> layers = nn.Conv2d(1, 2, 1), nn.SiLU(), nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 1, 1)
    >>> unscaled_layers(trace(nn.Sequential(*layers), torch.zeros(1, 1, 4, 4)))
    ('0',)
    """
    classes = channel_classes(model)
    weighted = [node.name for node in model.nodes if node.op in WEIGHTED_OPS]
    read = {name for node in model.nodes for name in node.inputs}
    inside = [name for name in weighted if name in read and name not in _before_output(model)]
    return tuple(name for name in inside if bool((classes.writes[name] <= FIXED).all()))


def _before_output(model: FloatModel) -> set[str]:
    """The nodes that reach the output without another convolution or linear layer in between."""
    nodes = {node.name: node for node in model.nodes}
    reached, left = set(), [model.output]
    while left:
        name = left.pop()
        if name not in reached:
            reached.add(name)
            left.extend(() if nodes[name].op in WEIGHTED_OPS else nodes[name].inputs)
    return reached


def equalizing_factors(model: FloatModel, *, sweeps: int = 50, tolerance: float = 1e-3) -> Tensor:
    """Return the factor of every class of `channel_classes`, float64, as `cross_layer_equalize` applies them."""
    if sweeps < 1 or tolerance <= 0:
        raise GraphError(f"sweeps and tolerance must be positive, got {sweeps} and {tolerance}")
    classes = channel_classes(model)
    layers = [_WeightRanges(node, classes) for node in model.nodes if node.op in WEIGHTED_OPS]
    turns = [(members, [layer for layer in layers if layer.touches(members)]) for members in _turns(layers)]
    factors = torch.ones(classes.count, dtype=torch.float64)
    for _ in range(sweeps):
        before = factors.clone()
        for members, near in turns:
            _balance(factors, members, near)
        if float((factors / before).log().abs().max()) < tolerance:
            break
    return factors


def scale_channels(model: FloatModel, factors: Tensor) -> FloatModel:
    """Return the same function with every channel divided by the factor of its class.

    Parameters
    ----------
    model : FloatModel
        Not changed.
    factors : Tensor, shape (classes,), positive
        One per class of `channel_classes`; 1 for those that must not be scaled.

    Raises
    ------
    GraphError
        If a factor is not positive and finite, or one that must be 1 is not.
    """
    classes = channel_classes(model)
    if factors.shape != (classes.count,) or not bool((torch.isfinite(factors) & (factors > 0)).all()):
        raise GraphError(f"{classes.count} positive factors expected for {model.name}, got {factors}")
    if bool((factors[: FIXED + 1] != 1).any()):
        raise GraphError(f"{model.name}: the factors of padded zeros and of what must not be scaled are 1")
    return model.with_nodes(_scaled(node, classes, factors.double()) for node in model.nodes)


def weight_ranges(model: FloatModel) -> dict[str, Tensor]:
    """Return the largest |weight| of every output channel, shape (O,), of every convolution and linear layer.

    What equalization makes alike; a figure of it before and after shows what was gained.
    """
    layers = [node for node in model.nodes if node.op in WEIGHTED_OPS]
    return {node.name: node.params["weight"].abs().flatten(1).amax(dim=1) for node in layers}


class _WeightRanges:
    """The largest |weight| of one layer between every two channels, output and input."""

    def __init__(self, node: Node, classes: ChannelClasses) -> None:
        weight = node.params["weight"].double().abs()
        table = weight.flatten(2).amax(dim=2) if weight.ndim > 2 else weight
        writes = classes.writes[node.name]
        reads = by_input(node, classes.reads[node.name]).flatten(1)
        if bool((writes == FIXED).all() and (reads == reads[:1]).all()):  # nothing to tell the outputs apart
            table, reads, writes = table.amax(dim=0, keepdim=True), reads[:1], writes[:1]
        self.table, self.writes, self.reads = table, writes, reads
        self.members = _distinct(torch.cat([writes, reads.flatten()]))

    def touches(self, members: Tensor) -> bool:
        return bool(torch.isin(self.members, members).any())

    def couples(self, members: Tensor) -> bool:
        """Whether the layer reads some of the members and writes some."""
        return bool(torch.isin(self.writes, members).any() and torch.isin(self.reads, members).any())

    def raise_to_ranges(self, factors: Tensor, written: Tensor, read: Tensor) -> None:
        """Raise r1 and r2 of every class to what the scaled weights of this layer reach."""
        scaled = self.table * factors[self.reads] / factors[self.writes][:, None]
        written.scatter_reduce_(0, self.writes, scaled.amax(dim=1), "amax")
        read.scatter_reduce_(0, self.reads.flatten(), scaled.flatten(), "amax")


def _turns(layers: list[_WeightRanges]) -> list[Tensor]:
    """What each layer writes, and may be scaled."""
    written = [_distinct(layer.writes) for layer in layers]
    return [members[members > FIXED] for members in written if bool((members > FIXED).any())]


def _distinct(members: Tensor) -> Tensor:
    return torch.from_numpy(np.unique(members.numpy()))


def _balance(factors: Tensor, members: Tensor, near: list[_WeightRanges]) -> None:
    """Make r1 and r2 of some classes equal.

    All take their step at once. Where a layer both reads and writes them, as in a residual block, one's step moves the
    other's ranges, and whole steps would swing back and forth for ever: there, half of each step is taken.
    """
    written, read = torch.zeros(2, len(factors), dtype=torch.float64)
    for layer in near:
        layer.raise_to_ranges(factors, written, read)
    coupled = any(layer.couples(members) for layer in near)
    step = (written[members] / read[members]) ** (0.25 if coupled else 0.5)
    factors[members] *= torch.where(torch.isfinite(step) & (step > 0), step, 1.0)


def _scaled(node: Node, classes: ChannelClasses, factors: Tensor) -> Node:
    written = factors[classes.outputs[node.name]]
    if node.attrs.get("clamp") is not None:
        node = node.with_attrs(clamp=tuple(_scaled_limit(limit, written) for limit in node.attrs["clamp"]))
    if node.op not in WEIGHTED_OPS:
        return node
    weight = node.params["weight"].double()
    read = by_input(node, factors[classes.reads[node.name]])
    params = {"weight": weight * read / written.reshape(-1, *[1] * (weight.ndim - 1))}
    if "bias" in node.params:
        params["bias"] = node.params["bias"].double() / written
    if "bn" in node.attrs:
        mean, std = node.attrs["bn"]
        node = node.with_attrs(bn=OutputStatistics((mean / written).float(), (std / written).float()))
    return node.with_params(**{key: value.float() for key, value in params.items()})


def _scaled_limit(limit: Any, written: Tensor) -> Any:
    """One number where scaling changes nothing: ReLU stays ReLU."""
    scaled = torch.as_tensor(limit, dtype=torch.float64) / written
    same = not isinstance(limit, Tensor) and bool((scaled == limit).all())
    return limit if same else scaled.float()
