"""What bits take: bytes of weights and bit-operations, as functions of the bits of every tensor (paper §7.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from qlearn.graph.fuse import fuse_activations
from qlearn.graph.ops import WEIGHTED_OPS
from qlearn.integer.layers import SHARING_OPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from qlearn.analysis.mixed_precision.choices import Choice, Slot
    from qlearn.graph.model import FloatModel, Node
    from qlearn.pipeline.recipe import Recipe, TensorRecipe

FLOAT_BITS = 32


@dataclass(frozen=True)
class Term:
    """One part of a resource: ``count`` times the bits of one tensor, or times those of two.

    Parameters
    ----------
    count : int
    slots : tuple of (layer, tensor)
        One tensor or two.
    divisor : int
        8 turns bits into bytes. Each term is rounded up by itself, because each tensor starts at a byte.

    Examples
    --------
    >>> weights = Term(count=27, slots=(("conv", "weights"),), divisor=8)
    >>> weights.amount({("conv", "weights"): 3})
    11
    """

    count: int
    slots: tuple[Slot, ...]
    divisor: int = 1

    def amount(self, bits: Mapping[Slot, int]) -> int:
        """Return the amount for these bits."""
        return -(-self.count * math.prod(bits[slot] for slot in self.slots) // self.divisor)


@dataclass(frozen=True)
class Resource:
    """Something that a network uses more of with every bit, and that a budget can limit.

    Parameters
    ----------
    name, unit : str
    terms : tuple of Term
    base : mapping of (layer, tensor) to int
        The bits of every tensor under the recipe; 32 in float.
    fixed : int
        What is used whatever the bits are.
    """

    name: str
    unit: str
    terms: tuple[Term, ...]
    base: Mapping[Slot, int]
    fixed: int = 0

    def usage(self, choices: Iterable[Choice] = ()) -> int:
        """Return what the network uses with these choices; all other tensors have the bits of the recipe."""
        bits = dict(self.base) | {choice.slot: choice.bits for choice in choices}
        return self.fixed + sum(term.amount(bits) for term in self.terms)


def weight_bytes(model: FloatModel, recipe: Recipe) -> Resource:
    """Return the bytes of weights and biases when the codes are packed without gaps.

    Biases are int32 whatever the bits of the weights. Scales are not counted, as nowhere in qlearn.
    The integer engines store one int8 per weight up to 8 bits: that number is ``IntegerModel.weight_bytes``,
    this one is ``IntegerModel.packed_bytes``.

    Examples
    --------
    >>> from torch import nn
    >>> from qlearn.graph.trace import trace
    >>> from qlearn.pipeline.recipe import Recipe
    >>> network = trace(nn.Sequential(nn.Conv2d(3, 5, 1)), torch.zeros(1, 3, 8, 8))
    >>> resource = weight_bytes(network, Recipe())
    >>> resource.usage()                                 # 15 weights in 8 bits, 5 biases in 32
    35
    """
    fused = fuse_activations(model)
    weighted = [node for node in fused.nodes if node.op in WEIGHTED_OPS]
    terms = tuple(Term(node.params["weight"].numel(), ((node.name, "weights"),), 8) for node in weighted)
    counted = sum(value.numel() for node in fused.nodes for value in node.params.values())
    weights = sum(term.count for term in terms)
    return Resource("weight bytes", "bytes", terms, _base(fused, recipe), fixed=4 * (counted - weights))


def bit_operations(model: FloatModel, recipe: Recipe) -> Resource:
    """Return the bit-operations (BOPs) of one picture: multiplications, times the bits of both their factors.

    A multiplier of b by c bits takes about b c one-bit adders: that makes BOPs a measure of the work of hardware that
    can use few bits. A CPU with int8 instructions gains nothing below 8 bits.

    References
    ----------
    C. Baskin et al., "UNIQ: uniform noise injection for non-uniform quantization of neural networks", 2018.

    Examples
    --------
    >>> from torch import nn
    >>> from qlearn.graph.trace import trace
    >>> from qlearn.pipeline.recipe import Recipe
    >>> network = trace(nn.Sequential(nn.Conv2d(3, 5, 1)), torch.zeros(1, 3, 8, 8))
    >>> bit_operations(network, Recipe()).usage() == 3 * 5 * 8 * 8 * (8 * 8)
    True
    """
    fused = fuse_activations(model)
    macs = multiplications(fused)
    nodes = {node.name: node for node in fused.nodes}
    terms = tuple(
        Term(count, ((name, "weights"), (scale_owner(nodes, nodes[name].inputs[0]), "activations")))
        for name, count in macs.items()
    )
    return Resource("bit-operations", "BOPs", terms, _base(fused, recipe))


def multiplications(model: FloatModel) -> dict[str, int]:
    """Return how many multiplications each convolution and linear layer does for one picture.

    Examples
    --------
    >>> from torch import nn
    >>> from qlearn.graph.trace import trace
    >>> multiplications(trace(nn.Sequential(nn.Conv2d(3, 5, 3, groups=1)), torch.zeros(1, 3, 8, 8)))
    {'0': 4860}
    """
    counts: dict[str, int] = {}

    def watch(node: Node, value: torch.Tensor) -> None:
        if node.op in WEIGHTED_OPS:
            weight = node.params["weight"]
            counts[node.name] = value.numel() * (weight.numel() // weight.shape[0])

    model(torch.zeros(1, *model.input_shape), watch=watch)
    return counts


def scale_owner(nodes: Mapping[str, Node], name: str) -> str:
    """Return the node whose scale a value has: pooling windows, slices and reshapes keep that of their input."""
    while nodes[name].op in SHARING_OPS:
        name = nodes[name].inputs[0]
    return name


def _base(fused: FloatModel, recipe: Recipe) -> dict[Slot, int]:
    bits: dict[Slot, int] = {}
    for node in fused.nodes:
        mine = recipe.for_layer(node.name)
        bits[node.name, "activations"] = _bits(mine.activations)
        if node.op in WEIGHTED_OPS:
            bits[node.name, "weights"] = _bits(mine.weights)
    return bits


def _bits(choice: TensorRecipe | None) -> int:
    return FLOAT_BITS if choice is None else choice.bits
