"""Fake quantization with a gradient: the straight-through estimator, and the learned step size (paper §8).

Rounding has the derivative 0 almost everywhere, so that nothing could be learned through it.
The straight-through estimator takes 1 instead, wherever the value is not clipped.
Every pass works in place on one new tensor: memory traffic, not arithmetic, is what fake quantization costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlearn.errors import NumbersError
from qlearn.numbers.qparams import SMALLEST_SCALE


@dataclass(frozen=True)
class Grid:
    """What is fixed about a grid whose step size is learned.

    Parameters
    ----------
    qmin, qmax : int
    axis : int or None
        Channel axis where scale and zero point have shape (C,).
    relu : bool
        A ReLU comes first: values below zero become zero and pass no gradient.
    gradient_scale : float
        The gradients of scale and zero point are multiplied by this.
    """

    qmin: int
    qmax: int
    axis: int | None = None
    relu: bool = False
    gradient_scale: float = 1.0


def lsq_gradient_scale(count: int, largest_code: float) -> float:
    """Return 1 / √(N · Q_P), which brings the gradient of a step size to the size of the weights' own.

    Parameters
    ----------
    count : int
        N, the values that share one step size: ``numel`` per tensor, ``numel / C`` per channel.
        For activations the values of one picture, so that it does not depend on the batch.
    largest_code : float
        Q_P, the largest code above zero: qmax - Z.

    References
    ----------
    Esser et al.: Learned Step Size Quantization (2020), §2.2.

    Examples
    --------
    >>> lsq_gradient_scale(count=25, largest_code=4)
    0.1
    """
    return 1.0 / math.sqrt(max(count, 1) * max(largest_code, 1.0))


def fake_quantize_learned(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    qmin: int,
    qmax: int,
    *,
    axis: int | None = None,
    relu: bool = False,
    gradient_scale: float | None = None,
) -> Tensor:
    """Fake-quantize with gradients for the values, the scale S and the zero point Z.

    With v = x / S, the gradients are those of Learned Step Size Quantization:

    - for x: 1 inside the range, 0 where the value is clipped (the straight-through estimator);
    - for S: round(v) - v inside, qmin - Z below and qmax - Z above;
    - for Z: 0 inside, -S where the value is clipped.

    Parameters
    ----------
    x : Tensor, any shape, float32 or float64
    scale : Tensor, shape () or (C,), dtype of x
        Positive. Per channel along ``axis``.
    zero_point : Tensor, shape of scale
        Integers, or real numbers if it is learned too: they are rounded half to even and kept in [qmin, qmax].
    qmin, qmax : int
    axis : int, optional
    relu : bool
        Do a ReLU on the way, at no cost.
    gradient_scale : float, optional
        For S and Z; `lsq_gradient_scale` of x if not given.

    Returns
    -------
    Tensor
        Shape and dtype of x. The values equal ``torch.fake_quantize_per_tensor_affine`` bit for bit;
        but NaN stays NaN.

    Raises
    ------
    NumbersError
        If x is not float32 or float64, a scale is not positive and finite, or shapes or dtypes do not fit.

    References
    ----------
    Paper §8. Esser et al. (2020), eq. 1-3.

    Examples
    --------
    >>> x = torch.tensor([0.1, 0.6, 9.0], requires_grad=True)
    >>> scale = torch.tensor(0.5, requires_grad=True)
    >>> y = fake_quantize_learned(x, scale, torch.tensor(0), -4, 3, gradient_scale=1.0)
    >>> y.detach()
    tensor([0.0000, 0.5000, 1.5000])
    >>> y.sum().backward()
    >>> x.grad, scale.grad                       # (0 - 0.2) + (1 - 1.2) + 3
    (tensor([1., 1., 0.]), tensor(2.6000))
    """
    if not all(isinstance(value, Tensor) for value in (x, scale, zero_point)):
        raise NumbersError("values, scale and zero point are tensors: got a number? torch.tensor(0.1)")
    if x.dtype not in (torch.float32, torch.float64):
        raise NumbersError(f"fake quantization takes float32 or float64, got {x.dtype}")
    if scale.dtype != x.dtype:
        raise NumbersError(f"scale has the dtype of the values, {x.dtype}: got {scale.dtype}")
    _check_shapes(x, scale, zero_point, axis)
    if not bool(((scale >= SMALLEST_SCALE) & torch.isfinite(scale)).all()):
        raise NumbersError(f"a scale must be finite and positive: got {scale.detach().flatten()[:3].tolist()}")
    if not bool(torch.isfinite(zero_point).all()):
        raise NumbersError(f"a zero point must be finite: got {zero_point.detach().flatten()[:3].tolist()}")
    if not qmin < qmax:
        raise NumbersError(f"qmin must be below qmax: got {qmin} and {qmax}")
    if gradient_scale is None:
        smallest = float(zero_point.detach().min()) if zero_point.numel() else 0.0
        gradient_scale = lsq_gradient_scale(x.numel() // max(scale.numel(), 1), qmax - smallest)
    return straight_through(x, scale, zero_point, Grid(qmin, qmax, axis, relu, gradient_scale))


def _check_shapes(x: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None) -> None:
    if axis is not None and not -x.ndim <= axis < x.ndim:
        raise NumbersError(f"no channel axis {axis} in shape {tuple(x.shape)}")
    wanted = () if axis is None else (x.shape[axis],)
    if tuple(scale.shape) != wanted or tuple(zero_point.shape) != wanted:
        raise NumbersError(
            f"scale and zero point of shape {wanted} expected for values of shape {tuple(x.shape)} and axis={axis}: "
            f"got {tuple(scale.shape)} and {tuple(zero_point.shape)}"
        )


def straight_through(x: Tensor, scale: Tensor, zero_point: Tensor, grid: Grid) -> Tensor:
    """Do what `fake_quantize_learned` does, without its checks."""
    result: Tensor = _StraightThrough.apply(x, scale, zero_point, grid)  # type: ignore[no-untyped-call]
    return result


class _StraightThrough(torch.autograd.Function):
    """One pass there, one pass back; x is kept, and everything else is computed again from it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, grid: Grid) -> Tensor:
        limits = _Limits.of(zero_point, grid, x)
        ctx.save_for_backward(x, scale)
        ctx.limits, ctx.grid = limits, grid
        codes = _steps(x, scale, grid).round_().clamp_(limits.lo, limits.hi)
        if scale.ndim == 0:
            # 0 + S q, and not S q, turns -0 into 0 as a trip through the integers does
            return torch.add(x.new_zeros(()), codes, alpha=float(scale), out=codes)
        return codes.mul_(_broadcast(scale, grid, x)).add_(0.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        x, scale = ctx.saved_tensors
        limits, grid = ctx.limits, ctx.grid
        for_x, for_scale, for_zero_point, _ = ctx.needs_input_grad
        steps = _steps(x, scale, grid)
        passed = limits.pass_on(gradient, steps)
        to_zero_point = None
        if for_zero_point:
            stopped = _sum(gradient, grid, x) - _sum(passed, grid, x)
            to_zero_point = -scale * stopped * grid.gradient_scale
        to_scale = _to_scale(ctx, gradient, steps) if for_scale else None
        return passed if for_x else None, to_scale, to_zero_point, None


def _to_scale(ctx: Any, gradient: Tensor, steps: Tensor) -> Tensor:
    """Σ g (round(v) - v) inside, Σ g q where v is clipped. Overwrites steps."""
    limits, grid = ctx.limits, ctx.grid
    codes = steps.round().clamp_(limits.lo, limits.hi)
    slope = codes.sub_(limits.pass_on(steps, steps, overwrite=True))
    total: Tensor = _inner_product(gradient, slope, grid) * grid.gradient_scale
    return total


@dataclass(frozen=True)
class _Limits:
    """The codes that values are clipped to, counted from the zero point; floats, or tensors per channel.

    A gradient passes where ``first < v < last``, both excluded.
    """

    lo: Any
    hi: Any
    first: float | None = None
    last: float | None = None

    @classmethod
    def of(cls, zero_point: Tensor, grid: Grid, x: Tensor) -> _Limits:
        if zero_point.ndim == 0:
            zero = float(min(max(round(float(zero_point.detach())), grid.qmin), grid.qmax))
        else:
            zeros = zero_point.detach().to(x.dtype).round().clamp(grid.qmin, grid.qmax)
            zero = float(zeros[0]) if len(zeros) else 0.0
            if bool((zeros != zero).any()):
                below, above = (limit - _broadcast(zeros, grid, x) for limit in (grid.qmin, grid.qmax))
                return cls(below.clamp_min(0.0) if grid.relu else below, above)
        lo, hi = grid.qmin - zero, grid.qmax - zero
        first, last = _open_interval(lo, hi, np.float32 if x.dtype == torch.float32 else np.float64)
        return cls(max(lo, 0.0), hi, max(first, 0.0), last) if grid.relu else cls(lo, hi, first, last)

    def pass_on(self, gradient: Tensor, steps: Tensor, *, overwrite: bool = False) -> Tensor:
        """Return the gradient where the value is not clipped, else 0."""
        if self.first is None or self.last is None:
            rounded = steps.round()
            inside = (rounded >= self.lo) & (rounded <= self.hi)
            if bool((self.lo == 0).any()):  # a ReLU cuts at 0, not at -1/2
                inside &= (steps > 0) | (self.lo != 0)
            return torch.where(inside, gradient, 0.0)
        derivative = torch.ops.aten.hardtanh_backward  # one vectorised pass: torch.where takes ten times as long
        if overwrite:
            return derivative.grad_input(gradient, steps, self.first, self.last, grad_input=gradient)  # type: ignore[no-any-return]
        return derivative(gradient, steps, self.first, self.last)  # type: ignore[no-any-return]


def _open_interval(lo: float, hi: float, kind: type[np.floating[Any]]) -> tuple[float, float]:
    """Return the open interval of the numbers that round, half to even, to an integer from lo to hi.

    Examples
    --------
    >>> _open_interval(-4.0, 3.0, np.float64)       # 3.5 rounds to 4, -4.5 to -4
    (-4.500000000000001, 3.5)
    """
    first, last = kind(lo - 0.5), kind(hi + 0.5)
    first = np.nextafter(first, kind(-np.inf)) if lo % 2 == 0 else first
    last = np.nextafter(last, kind(np.inf)) if hi % 2 == 0 else last
    return float(first), float(last)


def _steps(x: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """V = x · (1 / S), a new tensor: torch and XNNPACK multiply by the reciprocal, too."""
    return torch.mul(x, _broadcast(scale.detach().reciprocal(), grid, x))


def _broadcast(values: Tensor, grid: Grid, x: Tensor) -> Tensor:
    if values.ndim == 0 or grid.axis is None:
        return values
    shape = [1] * x.ndim
    shape[grid.axis] = -1
    return values.reshape(shape)


def _others(grid: Grid, x: Tensor) -> list[int]:
    """All axes but that of the channels."""
    return [axis for axis in range(x.ndim) if grid.axis is None or axis != grid.axis % x.ndim]


def _sum(values: Tensor, grid: Grid, x: Tensor) -> Tensor:
    return values.sum(dim=_others(grid, x)) if x.ndim else values


def _inner_product(left: Tensor, right: Tensor, grid: Grid) -> Tensor:
    """Σ left · right, for all or per channel; one pass without a product in memory where the layouts agree."""
    if grid.axis is None:
        for layout in (torch.contiguous_format, torch.channels_last):
            if left.ndim != 4 and layout is torch.channels_last:
                continue
            if left.is_contiguous(memory_format=layout) and right.is_contiguous(memory_format=layout):
                shape = (left.numel(),)
                return torch.dot(left.as_strided(shape, (1,)), right.as_strided(shape, (1,)))
    return _sum(left * right, grid, left)
