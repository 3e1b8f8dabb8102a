"""From the accumulator back to bytes in torch: the requantizations of `qlearn.integer.requantize`, bit for bit.

``requantize_float32`` and ``requantize_fixed`` are written in torch; the rest are left to NumPy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qlearn.integer.requantize import FixedMultiplier, fixed_multiplier, requantize_fixed, requantize_float32
from qlearn.integer.torch_values import is_byte, offset, pack
from qlearn.numbers.qparams import along_axis

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike
    from torch import Tensor

    from qlearn.integer.layers import IntegerLayer

    Scales = tuple[ArrayLike, ArrayLike, ArrayLike]
    Steps = Callable[[Tensor], Tensor]

MAGIC = 1.5 * 2.0**23
"""A float32 number plus this one is rounded to an integer, ties to even, and holds it in its last bits."""


def requantizer(function: Callable[..., Any], scales: Scales, layer: IntegerLayer) -> Steps:
    """Return what brings an accumulator (N, C, H, W) to kept codes. It may overwrite the accumulator.

    Parameters
    ----------
    function : callable
        The profile's requantization.
    scales : S_x, S_w, S_y
    layer : IntegerLayer
        Its output and its limits.
    """
    if is_byte(layer.output) and function is requantize_float32:
        return Float32Steps(scales, layer)
    if is_byte(layer.output) and function is requantize_fixed:
        s_in, s_weight, s_out = (np.asarray(scale, np.float64) for scale in scales)
        multiplier = fixed_multiplier(s_in * s_weight / s_out)
        usual = (-multiplier.shift >= FixedSteps.SHIFTS[0]) & (-multiplier.shift <= FixedSteps.SHIFTS[1])
        if usual.all():
            return FixedSteps(multiplier, layer)
        if usual.any():
            return _with_unusual_channels(function, scales, layer, multiplier, np.flatnonzero(~usual))
    return NumpySteps(function, scales, layer)


def _with_unusual_channels(
    function: Callable[..., Any], scales: Scales, layer: IntegerLayer, multiplier: FixedMultiplier, which: Any
) -> Steps:
    """Nearly dead channels have multipliers that are far smaller than the others: NumPy for these few alone."""
    mantissa, shift = multiplier.mantissa.copy(), multiplier.shift.copy()
    mantissa[which], shift[which] = 2**30, -1
    most = FixedSteps(FixedMultiplier(mantissa, shift), layer)
    low, high = (limit if np.ndim(limit) == 0 else np.asarray(limit)[which] for limit in layer.limits)
    some = replace(layer, clamp=(low, high))
    rest = NumpySteps(function, (scales[0], np.asarray(scales[1])[which], scales[2]), some)
    index = torch.from_numpy(which)

    def steps(accumulator: Tensor) -> Tensor:
        unusual = rest(accumulator.index_select(1, index))
        kept = most(accumulator)
        kept[:, index] = unusual
        return kept

    return steps


class Float32Steps:
    """rint(float32(acc) * M) + Z_y, clamped.

    M has been rounded to float32; adding `MAGIC` rounds the product to an integer, and the last byte of the sum,
    read as an integer, is the code. Converting float32 to bytes directly is ten times slower in torch.
    An even zero point can be added together with `MAGIC`: ties stay with the even step. An odd one comes last.
    """

    def __init__(self, scales: Scales, layer: IntegerLayer) -> None:
        s_in, s_weight, s_out = (np.asarray(scale, np.float32) for scale in scales)
        self.multiplier = _operand(s_in * s_weight / s_out)
        zero = int(layer.output.zero_point) + offset(layer.output)
        self.even, self.odd = zero - zero % 2, zero % 2
        self.low, self.high = _limits(layer, MAGIC - self.odd)

    def __call__(self, accumulator: Tensor) -> Tensor:
        """Return the kept codes."""
        steps = accumulator.float().mul_(self.multiplier).add_(MAGIC + self.even)
        kept = torch.clamp_(steps, self.low, self.high).view(torch.int32).to(torch.uint8)
        return kept.add_(self.odd) if self.odd else kept


class FixedSteps:
    """The 31-bit mantissa in float64, the shift in int32: rounded twice, halves up and then halves away.

    While |p| <= 2**21, the product p = acc m / 2**31 is exact in float64, and so is p + 2**21 + 1/2.
    Being positive, that is cut to floor(p + 1/2) + 2**21 by a conversion to int32.
    Half away from zero is ``(v + 2**(right - 1) - (v < 0)) >> right``.
    A larger |p| is clamped first: at most 12 bits further right it is beyond 511 steps, which saturates any byte.
    """

    LIMIT = 21
    SHIFTS = (1, 12)

    def __init__(self, multiplier: FixedMultiplier, layer: IntegerLayer) -> None:
        right, zero = -multiplier.shift, int(layer.output.zero_point) + offset(layer.output)
        mantissa = multiplier.mantissa * 2.0**-31
        self.farthest = _operand(np.floor(2.0**self.LIMIT / mantissa).astype(np.float32))
        self.nearest = -self.farthest
        self.mantissa, self.right = _operand(mantissa), _operand(right.astype(np.int32))
        half = (np.int64(1) << right) >> 1
        constant = half + (np.int64(zero) << right) - 2**self.LIMIT - 1  # (v + 2**21) >> 21 is 1 - (v < 0)
        self.constant = _operand(constant.astype(np.int32))
        self.low, self.high = _limits(layer, 0)

    def __call__(self, accumulator: Tensor) -> Tensor:
        """Return the kept codes."""
        near = torch.clamp_(accumulator, self.nearest, self.farthest)
        once = near.double().mul_(self.mantissa).add_(2.0**self.LIMIT + 0.5).to(torch.int32)
        codes = once.add_(once >> self.LIMIT).add_(self.constant).bitwise_right_shift_(self.right)
        return torch.clamp_(codes, self.low, self.high).to(torch.uint8)


class NumpySteps:
    """Any other requantization, or an output of more than 8 bits: the reference function on the accumulator."""

    def __init__(self, function: Callable[..., Any], scales: Scales, layer: IntegerLayer) -> None:
        self.function, self.scales, self.output = function, scales, layer.output
        self.low, self.high = (along_axis(np.asarray(limit), 1 if np.ndim(limit) else None, 4)
                               for limit in layer.limits)  # fmt: skip

    def __call__(self, accumulator: Tensor) -> Tensor:
        """Return the kept codes."""
        steps = self.function(accumulator.to(torch.int64).contiguous().numpy(), *self.scales, 1)
        return pack(np.clip(steps + self.output.zero_point, self.low, self.high), self.output)


def _limits(layer: IntegerLayer, more: float) -> tuple[Any, Any]:
    """Smallest and largest kept code, plus something: two numbers, or two tensors."""
    dtype = np.float32 if isinstance(more, float) else np.int32
    low, high = (limit + (offset(layer.output) + more) for limit in np.broadcast_arrays(*layer.limits))
    return _operand(low.astype(dtype)), _operand(high.astype(dtype))


def _operand(values: Any) -> Any:
    """A number, or a tensor of shape (1, C, 1, 1)."""
    array = np.asarray(values)
    if array.ndim == 0:
        return array.item()
    return torch.from_numpy(np.ascontiguousarray(along_axis(array, 1, 4)))
