"""High-bias absorption: what a channel always has, the next layer's bias can add instead (paper §7.2)."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qlearn.graph.channels import site_shapes
from qlearn.graph.constants import border_error, moved_into_bias
from qlearn.graph.fold import OutputStatistics
from qlearn.graph.ops import FLOAT_OPS, WEIGHTED_OPS, along_channels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qlearn.graph.model import FloatModel, Node

CARRIERS = frozenset({"pad", "max_pool2d", "avg_pool2d", "global_avg_pool", "mean", "flatten"})
"""Operations behind which a constant is still that constant, but for padded zeros."""


@dataclass(frozen=True, eq=False)
class HighBias:
    """What one layer always adds, and who can take it over.

    Parameters
    ----------
    layer : str
        Whose ReLU hardly ever cuts these channels.
    amounts : Tensor, shape (C,), float32
        c = max(0, mean - sigmas · std) per channel; 0 for most.
    readers : mapping of layer to Tensor, float64
        For each layer that reads it, what goes into its bias, shape (O,).
    border_error : float
        By how much a reader's sum is then wrong, at worst, beside zero padding: there it reads 0 and not c.
        0 where no reader is padded.
    """

    layer: str
    amounts: Tensor
    readers: Mapping[str, Tensor]
    border_error: float


def absorb_high_bias(model: FloatModel, *, sigmas: float = 3.0, at_borders: bool = False) -> FloatModel:
    """Return nearly the same function with smaller activations.

    Where a batch norm says that a channel has mean β and standard deviation γ before its ReLU, it is nearly always
    above c = β - 3 γ. With c > 0 the ReLU hardly ever cuts it, and c is no news: the layer leaves it out, and the bias
    of the next layer adds what it would have become, Σ w c. The upper end of a ReLU6 moves down by c too.
    Per tensor, the channel with the largest c sets the range of all; without it, the steps are finer.

    It is approximate twice. A value below c (0.135 % of them, if the distribution is normal) is cut to c.
    And beside zero padding the next layer reads 0 and not c, where its bias adds c all the same;
    layers with such readers are left alone unless `at_borders`. `high_biases` measures that error.

    Parameters
    ----------
    model : FloatModel
        Batch norms folded by `fold_batch_norm`, whose statistics it uses. Not changed. Equalize before, not after.
    sigmas : float
        How many standard deviations lie between mean and c.
    at_borders : bool
        Absorb also where a reader is padded.

    Returns
    -------
    FloatModel

    References
    ----------
    M. Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019, §4.1.3;
    paper §7.2.
    """
    chosen = {one.layer: one for one in high_biases(model, sigmas=sigmas) if at_borders or one.border_error == 0.0}
    gains: dict[str, list[Tensor]] = defaultdict(list)
    for one in chosen.values():
        for reader, gain in one.readers.items():
            gains[reader].append(gain)
    clamps = {_clamp_after(model, one.layer): one for one in chosen.values()}
    nodes = []
    for original in model.nodes:
        node = original
        if node.name in chosen:
            node = _lowered(node, chosen[node.name].amounts)
        if node.name in clamps:
            node = _clamped_lower(node, clamps[node.name].amounts)
        nodes.append(_raised(node, gains[node.name]) if node.name in gains else node)
    return model.with_nodes(nodes)


def high_biases(model: FloatModel, *, sigmas: float = 3.0) -> list[HighBias]:
    """Return what could be absorbed, layer by layer, and the error that it would make beside padding."""
    shapes = site_shapes(model)
    found = []
    for node in model.nodes:
        amounts = _amounts(model, node, sigmas)
        if amounts is None:
            continue
        start = along_channels(amounts, len(shapes[node.name])).expand(shapes[node.name])
        paths = _paths(model, _clamp_after(model, node.name) or node.name, start)
        if paths is None:
            continue
        inside = {reader.name: _inside(x) for reader, x in paths}
        found.append(HighBias(
            node.name, amounts,
            {reader.name: moved_into_bias(reader, inside[reader.name]) for reader, _ in paths},
            max(_rounded_error(reader, x, inside[reader.name]) for reader, x in paths)))  # fmt: skip
    return found


def _amounts(model: FloatModel, node: Node, sigmas: float) -> Tensor | None:
    """C of every channel; None where nothing can be absorbed."""
    clamp = _clamp_after(model, node.name) if "bn" in node.attrs and node.op in WEIGHTED_OPS else None
    if clamp is None:
        return None
    low, high = model.node(clamp).attrs["clamp"]
    if bool((torch.as_tensor(low) != 0).any()):
        return None
    mean, std = node.attrs["bn"]
    amounts = torch.clamp(mean - sigmas * std, min=0.0)
    amounts = torch.minimum(amounts, torch.as_tensor(high, dtype=amounts.dtype))
    return amounts if bool((amounts > 0).any()) else None


def _clamp_after(model: FloatModel, name: str) -> str | None:
    """Name of the node that clamps a layer's value: itself, or a ReLU that alone reads it."""
    if model.node(name).attrs.get("clamp") is not None:
        return name
    readers = [node for node in model.nodes if name in node.inputs]
    return readers[0].name if len(readers) == 1 and readers[0].op == "clamp" and name != model.output else None


def _paths(model: FloatModel, site: str, x: Tensor) -> list[tuple[Node, Tensor]] | None:
    """The layers that read a constant, each with the constant as it arrives; None if something else reads it."""
    try:
        return list(_followed(model, site, x))
    except _OtherReaderError:
        return None


class _OtherReaderError(Exception):
    """A sum or a table reads the constant, or the network returns it."""


def _followed(model: FloatModel, site: str, x: Tensor) -> Iterator[tuple[Node, Tensor]]:
    if site == model.output:
        raise _OtherReaderError
    for node in model.nodes:
        if site not in node.inputs:
            continue
        if node.op in WEIGHTED_OPS:
            yield node, x
        elif node.op in CARRIERS:
            yield from _followed(model, node.name, FLOAT_OPS[node.op](node, [x]))
        else:
            raise _OtherReaderError


def _inside(x: Tensor) -> Tensor:
    """One constant per channel: the largest, since padding only makes it smaller."""
    return x[0] if x.ndim == 2 else x[0].flatten(1).amax(dim=1)


def _rounded_error(reader: Node, x: Tensor, inside: Tensor) -> float:
    error = border_error(reader, x, inside)
    size = float((reader.params["weight"].abs().flatten(1).sum(dim=1)).max() * inside.max())
    return 0.0 if error <= 1e-6 * size else error


def _lowered(node: Node, amounts: Tensor) -> Node:
    mean, std = node.attrs["bn"]
    bias = node.params.get("bias", torch.zeros_like(amounts)).double() - amounts
    lowered = node.with_attrs(bn=OutputStatistics(mean - amounts, std))
    return replace(lowered, params={**node.params, "bias": bias.float()})


def _clamped_lower(node: Node, amounts: Tensor) -> Node:
    low, high = node.attrs["clamp"]
    if not isinstance(high, Tensor) and math.isinf(high):
        return node
    return node.with_attrs(clamp=(low, torch.as_tensor(high) - amounts))


def _raised(node: Node, gains: list[Tensor]) -> Node:
    bias = node.params.get("bias", torch.zeros(len(node.params["weight"]))).double()
    for gain in gains:
        bias = bias + gain
    return replace(node, params={**node.params, "bias": bias.float()})
