"""The rounding of one layer as a problem by itself, and two ways to solve it: AdaRound, and flips one at a time.

Each weight may go down or up to the next level; which of the two is best depends on all others of its channel,
because their errors add up in the output. Rounding each to the nearest level ignores that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

ZETA, GAMMA = 1.1, -0.1
"""The sigmoid is stretched to (GAMMA, ZETA) and clipped to [0, 1], so that a weight can arrive at either end."""

WARM_UP = 0.2
"""Share of the iterations without regularization."""

BETAS = 20.0, 2.0
"""The exponent of the regularization, from first to last: at first it moves only weights that are nearly decided."""

_BATCH = 512  # positions in one iteration
_FEW = 12  # values of which all roundings may be tried
_REFRESH = 64  # flips after which the gradient is computed anew, so that float32 rounding does not add up
_WORTH = 1e-4  # a flip must save this share of the error that it makes alone


@dataclass(frozen=True, eq=False)
class RoundingProblem:
    """Which way to round each weight of a layer, so that its output on quantized inputs is that of the float layer.

    G groups of M output channels each read K values; a plain convolution or linear layer is one group.
    The output for rounding u in [0, 1] is clamp(x · S (floor + freedom u) + bias).

    Parameters
    ----------
    inputs : Tensor, shape (G, P, K), float32
        Quantized inputs (real numbers) at P positions, in random order.
    targets : Tensor, shape (G, P, M), float32
        Output of the float layer at the same positions, before its clamp.
    bias : Tensor, shape (G, 1, M), float32
    limits : (Tensor, Tensor) of shape (G, 1, M), or None
        Of the fused ReLU or ReLU6.
    scale : Tensor, shape (G, M, 1), float32
    floor : Tensor, shape (G, M, K), float32
        The weight rounded down, in steps, zero point subtracted, and not below the grid's lower border.
    freedom : Tensor, shape (G, M, K), float32
        1 where the weight may go up one step; 0 at the upper border, where it may not.
    fraction : Tensor, shape (G, M, K), float32
        How far between the two levels the float weight lies, in [0, 1].
    nearest : Tensor, shape (G, M, K), float32
        1 where rounding to the nearest level goes up.
    shrinkage : float
        How strongly weights are held near their float values where positions are few: `cost` adds to the error
        shrinkage · K / P · (mean square of the inputs) · ‖W̃ - W‖². Without it, a layer that reads more values than
        there are positions learns those positions by heart.
    """

    inputs: Tensor
    targets: Tensor
    bias: Tensor
    limits: tuple[Tensor, Tensor] | None
    scale: Tensor
    floor: Tensor
    freedom: Tensor
    fraction: Tensor
    nearest: Tensor
    shrinkage: float = 0.0

    def weight(self, up: Tensor) -> Tensor:
        """Return the weights for a rounding, shape (G, M, K)."""
        return self.scale * (self.floor + self.freedom * up)

    def error(self, up: Tensor) -> Tensor:
        """Return the mean squared error of each output channel, shape (G, M), after the clamp."""
        outputs = torch.baddbmm(self.bias, self.inputs, self.weight(up).transpose(1, 2))
        return (self._clamped(outputs) - self._clamped(self.targets)).square_().mean(dim=1)

    def cost(self, up: Tensor) -> Tensor:
        """Return the error and the pull to the float weights, shape (G, M)."""
        pull = self._ridge * (self.weight(up) - self.weight(self.fraction)).square()
        return self.error(up) + pull.sum(dim=2)

    @cached_property
    def gram(self) -> Tensor:
        """Mean products of two inputs, shape (G, K, K): the cost without clamp is a quadratic form with them."""
        positions, inputs = self.inputs.shape[1:]
        return self.inputs.transpose(1, 2) @ self.inputs / positions + self._ridge * torch.eye(inputs)

    @cached_property
    def cross(self) -> Tensor:
        """Mean products of target and input, shape (G, M, K)."""
        products = (self.targets - self.bias).transpose(1, 2) @ self.inputs / self.inputs.shape[1]
        return products + self._ridge * self.weight(self.fraction)

    @cached_property
    def _ridge(self) -> Tensor:
        """What is added to the diagonal of the Gram matrix, shape (G, 1, 1)."""
        positions, inputs = self.inputs.shape[1:]
        return self.shrinkage * inputs / positions * self.inputs.square().mean(dim=(1, 2), keepdim=True)

    @cached_property
    def unit(self) -> float:
        """Mean squared change of an output when one weight moves by a step: makes errors of all layers comparable."""
        power = torch.diagonal(self.gram, dim1=1, dim2=2)[:, None]
        return float(((self.scale * self.freedom).square() * power).mean())

    def gradient(self, weight: Tensor, rows: slice) -> Tensor:
        """Return the gradient of the summed costs for the weights, shape (G, M, K).

        Without a clamp it is exact, over all positions; with one, it is that of some rows.
        """
        if self.limits is None:
            return 2 * (weight @ self.gram - self.cross)
        x = self.inputs[:, rows]
        outputs = torch.baddbmm(self.bias, x, weight.transpose(1, 2))
        low, high = self.limits
        wrong = self._clamped(outputs) - self._clamped(self.targets[:, rows])
        wrong *= (outputs > low) & (outputs < high)
        pull = 2 * self._ridge * (weight - self.weight(self.fraction))
        return 2 / x.shape[1] * (wrong.transpose(1, 2) @ x) + pull

    def _clamped(self, outputs: Tensor) -> Tensor:
        return outputs if self.limits is None else torch.clamp(outputs, *self.limits)


def learn(problem: RoundingProblem, iterations: int, regularization: float, learning_rate: float) -> Tensor:
    r"""AdaRound: learn the rounding by gradient descent on a soft version of it.

    The soft rounding is h(V) = clip(σ(V)(ζ - γ) + γ, 0, 1), at first the fraction of each weight, so that the first
    soft weights are the float weights. Adam lowers cost / unit + λ Σ (1 - |2h - 1|^β). The second term pushes h to
    0 or 1; it is absent in the warm-up, and β then falls linearly from 20 to 2.

    Returns
    -------
    Tensor, shape (G, M, K)
        0 and 1: the soft rounding, rounded.

    References
    ----------
    M. Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020, eq. 21-25.
    """
    positions = problem.inputs.shape[1]
    batches = max(1, positions // _BATCH)
    v = -torch.log((ZETA - GAMMA) / (problem.fraction - GAMMA) - 1)
    adam = _Adam(v, learning_rate)
    for i in range(iterations):
        squashed = torch.sigmoid(v)
        stretched = squashed * (ZETA - GAMMA) + GAMMA
        h = stretched.clamp(0, 1)
        start = i % batches * _BATCH
        slope = problem.gradient(problem.weight(h), slice(start, start + _BATCH)) * (problem.scale * problem.freedom)
        slope = slope / problem.unit + regularization * _push(h, i / iterations)
        inside = (stretched >= 0) & (stretched <= 1)
        adam.step(slope * inside * squashed * (1 - squashed) * (ZETA - GAMMA))
    return (torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA >= 0.5).float()


def _push(h: Tensor, done: float) -> Tensor | float:
    r"""Return the gradient of Σ (1 - |2h - 1|^β) after a share of the iterations."""
    if done < WARM_UP:
        return 0.0
    beta = BETAS[1] + (BETAS[0] - BETAS[1]) * (1 - done) / (1 - WARM_UP)
    side = 2 * h - 1
    return -2 * beta * side.abs().pow(beta - 1) * side.sign()


class _Adam:
    """Adam on one tensor, in place; torch.optim would need autograd around the closed form of the gradient."""

    def __init__(self, value: Tensor, learning_rate: float, decay: tuple[float, float] = (0.9, 0.999)) -> None:
        self.value, self.learning_rate, self.decay = value, learning_rate, decay
        self.mean, self.square, self.steps = torch.zeros_like(value), torch.zeros_like(value), 0

    def step(self, gradient: Tensor) -> None:
        first, second = self.decay
        self.steps += 1
        self.mean.lerp_(gradient, 1 - first)
        self.square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        deviation = (self.square / (1 - second**self.steps)).sqrt_().add_(1e-8)
        self.value.addcdiv_(self.mean, deviation, value=-self.learning_rate / (1 - first**self.steps))


def flip(problem: RoundingProblem, up: Tensor) -> Tensor:
    """Turn round, in every channel, the one weight that lowers its cost most, until none does.

    The cost is that before the clamp, a quadratic form of the rounding: one product with the Gram matrix gives what
    every flip would save, and a flip changes that by one column of it. All channels flip side by side.

    Returns
    -------
    Tensor, shape (G, M, K)
        0 and 1. No single flip lowers the cost before the clamp.
    """
    up = up.clone()
    power = torch.diagonal(problem.gram, dim1=1, dim2=2)[:, None]
    slope = torch.zeros_like(up)
    for i in range(4 * up.shape[2]):
        if i % _REFRESH == 0:
            slope = problem.weight(up) @ problem.gram - problem.cross
        change = problem.scale * problem.freedom * (1 - 2 * up)
        alone = change.square() * power
        saved, place = (-2 * change * slope - (1 + _WORTH) * alone).max(dim=2, keepdim=True)
        chosen = saved > 0
        if not chosen.any():
            break
        turned = torch.where(chosen, 1 - up.gather(2, place), up.gather(2, place))
        moved = change.gather(2, place) * chosen
        up.scatter_(2, place, turned)
        slope += moved * problem.gram.gather(1, place.expand(-1, -1, up.shape[2]))
    return up


def try_all(problem: RoundingProblem) -> Tensor:
    """Return the rounding with the least cost before the clamp, of all 2^K; only for layers that read few values.

    A depthwise 3 x 3 filter has 512 roundings.

    Returns
    -------
    Tensor, shape (G, M, K)
        0 and 1.
    """
    inputs = problem.floor.shape[2]
    every = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * inputs).reshape(-1, inputs)  # (2^K, K)
    weights = problem.scale[..., None] * (problem.floor[:, :, None] + problem.freedom[:, :, None] * every)
    products = weights @ problem.gram[:, None] - 2 * problem.cross[:, :, None]
    return every[(products * weights).sum(dim=3).argmin(dim=2)]


def few_enough(problem: RoundingProblem) -> bool:
    """Whether `try_all` takes little time and memory."""
    groups, outputs, inputs = problem.floor.shape
    return inputs <= _FEW and groups * outputs * inputs * 2**inputs <= 2**24


def least(problem: RoundingProblem, candidates: Iterable[Tensor]) -> Tensor:
    """Return, for every output channel, the candidate with the least cost after the clamp; the first one in a tie.

    The pull is least for the nearest rounding. So where that is a candidate, no other with a greater error wins.
    """
    best: Tensor | None = None
    lowest = torch.zeros(())
    for candidate in candidates:
        cost = problem.cost(candidate)
        if best is None:
            best, lowest = candidate, cost
            continue
        better = cost < lowest
        best = torch.where(better[..., None], candidate, best)
        lowest = torch.where(better, cost, lowest)
    assert best is not None
    return best
