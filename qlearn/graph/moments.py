"""Mean and variance of every site from the batch norms' statistics, without a picture (paper §7.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qlearn.graph.channels import MOVES, site_shapes
from qlearn.graph.ops import FLOAT_OPS, along_channels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qlearn.graph.model import FloatModel, Node


@dataclass(frozen=True, eq=False)
class Moments:
    """What one site is expected to be, at every position.

    Parameters
    ----------
    mean, variance : Tensor, shape of the site with a batch of one, float64
    """

    mean: Tensor
    variance: Tensor


def clipped_normal(mean: Tensor, std: Tensor, low: Any, high: Any) -> tuple[Tensor, Tensor]:
    r"""Return mean and variance of min(max(z, low), high), where z is normal.

    With α = (low - μ) / σ and β = (high - μ) / σ, Φ the normal distribution and φ its density,

    .. math:: E = low\,Φ(α) + high\,(1 - Φ(β)) + μ\,(Φ(β) - Φ(α)) + σ\,(φ(α) - φ(β)).

    ReLU has low = 0 and high = ∞, ReLU6 a second end at 6. Where σ = 0 the value is the clamped mean.

    Parameters
    ----------
    mean, std : Tensor
    low, high : float or Tensor
        Any shape that broadcasts; ±inf for no end.

    Returns
    -------
    tuple of Tensor
        Mean and variance, float64.

    Examples
    --------
    >>> mean, variance = clipped_normal(torch.tensor(0.0), torch.tensor(1.0), 0.0, float("inf"))
    >>> round(mean.item(), 4), round(variance.item(), 4)  # 1 / √(2π), and (1 - 1 / π) / 2
    (0.3989, 0.3408)
    """
    mean, std = mean.double(), std.double()
    low, high = (torch.as_tensor(end, dtype=torch.float64).expand_as(mean) for end in (low, high))
    still = std <= 0
    sigma = torch.where(still, 1.0, std)
    a, b = (low - mean) / sigma, (high - mean) / sigma
    below, above, inside = _phi(a), _phi(-b), _phi(b) - _phi(a)
    density_a, density_b = _density(a), _density(b)
    first = _times(low, below) + _times(high, above) + mean * inside + sigma * (density_a - density_b)
    moved = _times(a, density_a) - _times(b, density_b)
    second = _times(low**2, below) + _times(high**2, above) + (mean**2 + sigma**2) * inside
    second = second + 2 * mean * sigma * (density_a - density_b) + sigma**2 * moved
    clamped = torch.minimum(torch.maximum(mean, low), high)
    return torch.where(still, clamped, first), torch.where(still, 0.0, (second - first**2).clamp(min=0.0))


def expected_moments(model: FloatModel, *, before_clamps: bool = False) -> dict[str, Moments]:
    """Return what every site is expected to be, if each folded batch norm saw in training what it will see.

    The output of a layer with ``attrs["bn"]`` is taken as normal, with that mean and standard deviation.
    A ReLU or ReLU6 clips the normal distribution (`clipped_normal`); sums add means and variances, as if their terms
    were independent; pools and moves do with means what they do with values.
    The network's input is taken as 0 on average, which is what its normalization is for.
    A max pool gives the largest mean, and a table the function of the mean: both rough.

    Parameters
    ----------
    model : FloatModel
        Batch norms folded by `fold_batch_norm`.
    before_clamps : bool
        Return each site as it is before its own ReLU or ReLU6; all sites before it are clipped nevertheless.

    Returns
    -------
    dict of site to Moments
        Zero padding counts: the moments hold position by position.
    """
    shapes = site_shapes(model)
    found: dict[str, Moments] = {}
    before: dict[str, Moments] = {}
    with torch.no_grad():
        for node in model.nodes:
            inputs = [found[name] for name in node.inputs]
            double = replace(node, params={key: value.double() for key, value in node.params.items()})
            before[node.name] = _RULES.get(node.op, _function)(double, inputs, shapes[node.name])
            found[node.name] = _clipped(node, before[node.name], shapes[node.name])
    return before if before_clamps else found


def _standard(node: Node, inputs: Sequence[Moments], shape: tuple[int, ...]) -> Moments:
    zeros = torch.zeros(shape, dtype=torch.float64)
    return Moments(zeros, zeros + 1)


def _weighted(node: Node, inputs: Sequence[Moments], shape: tuple[int, ...]) -> Moments:
    if "bn" in node.attrs:
        mean, std = (along_channels(v.double(), len(shape)).expand(shape) for v in node.attrs["bn"])
        return Moments(mean, std**2)
    bare = node.with_attrs(clamp=None)
    squared = replace(bare, params={"weight": node.params["weight"] ** 2})
    run = FLOAT_OPS[node.op]
    return Moments(run(bare, [inputs[0].mean]), run(squared, [inputs[0].variance]))


def _clipped(node: Node, before: Moments, shape: tuple[int, ...]) -> Moments:
    if node.attrs.get("clamp") is None:
        return before
    ends = [along_channels(torch.as_tensor(end, dtype=torch.float64).reshape(-1), len(shape))
            for end in node.attrs["clamp"]]  # fmt: skip
    return Moments(*clipped_normal(before.mean, before.variance.sqrt(), *ends))


def _same(node: Node, inputs: Sequence[Moments], shape: tuple[int, ...]) -> Moments:
    return inputs[0]


def _sum(node: Node, inputs: Sequence[Moments], shape: tuple[int, ...]) -> Moments:
    left, right = inputs
    mean = left.mean + right.mean if node.op == "add" else left.mean - right.mean
    return Moments(mean, left.variance + right.variance)


def _linear_map(node: Node, inputs: Sequence[Moments], shape: tuple[int, ...]) -> Moments:
    """Moves and means: neighbouring positions are alike, so that a mean over them has their variance."""
    run = FLOAT_OPS[node.op]
    return Moments(run(node, [x.mean for x in inputs]), run(node, [x.variance for x in inputs]))


def _function(node: Node, inputs: Sequence[Moments], shape: tuple[int, ...]) -> Moments:
    """Anything else: the function of the mean, with the variance of its first input where that has the shape."""
    in_float = node.op == "float"
    mean = FLOAT_OPS[node.op](node, [x.mean.float() if in_float else x.mean for x in inputs]).double()
    variance = inputs[0].variance
    return Moments(mean, variance if variance.shape == mean.shape else torch.ones_like(mean))


_RULES: dict[str, Callable[[Node, Sequence[Moments], tuple[int, ...]], Moments]] = {
    "input": _standard,
    "conv2d": _weighted,
    "linear": _weighted,
    "clamp": _same,
    "add": _sum,
    "subtract": _sum,
    **dict.fromkeys((*MOVES, "avg_pool2d", "max_pool2d", "global_avg_pool", "mean"), _linear_map),
}


def _phi(x: Tensor) -> Tensor:
    return torch.special.ndtr(x)  # type: ignore[no-any-return]  # torch does not type it


def _density(x: Tensor) -> Tensor:
    return torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def _times(factor: Tensor, weight: Tensor) -> Tensor:
    """A product in which infinity times nothing is nothing."""
    return torch.where(torch.isinf(factor), 0.0, factor * weight)
