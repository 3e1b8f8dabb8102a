"""From the accumulator back to bytes in torch: the requantizations of `qlearn.integer.requantize`, bit for bit.

``requantize_float32`` and ``requantize_fixed`` are written in torch; the rest are left to NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qlearn.integer.requantize import fixed_multiplier, requantize_fixed, requantize_float32
from qlearn.integer.torch_values import is_byte, offset, pack
from qlearn.numbers.qparams import along_axis

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike
    from torch import Tensor

    from qlearn.integer.layers import IntegerLayer
    from qlearn.integer.requantize import FixedMultiplier

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
        if (multiplier.shift <= 0).all():  # a shift to the left saturates: seldom, and left to NumPy
            return FixedSteps(multiplier, layer)
    return NumpySteps(function, scales, layer)


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
    """The 31-bit mantissa and the shift to the right, in int64: rounded twice, halves up and then halves away.

    Half away from zero is ``(v + 2**(right - 1) - (v < 0)) >> right``.
    """

    def __init__(self, multiplier: FixedMultiplier, layer: IntegerLayer) -> None:
        right, zero = -multiplier.shift, int(layer.output.zero_point) + offset(layer.output)
        self.mantissa, self.right = _operand(multiplier.mantissa), _operand(right)
        self.rounds = None if (right > 0).all() else _operand((right > 0).astype(np.int64))
        self.constant = _operand(((np.int64(1) << right) >> 1) + (np.int64(zero) << right))
        self.low, self.high = _limits(layer, 0)

    def __call__(self, accumulator: Tensor) -> Tensor:
        """Return the kept codes."""
        once = accumulator.to(torch.int64).mul_(self.mantissa).add_(2**30).bitwise_right_shift_(31)
        below = once >> 63  # -1 where negative
        if self.rounds is not None:  # where there is no shift, nothing is rounded again
            below.mul_(self.rounds)
        codes = once.add_(below).add_(self.constant).bitwise_right_shift_(self.right)
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
    low, high = np.broadcast_arrays(*layer.limits)
    return _operand(low + (offset(layer.output) + more)), _operand(high + (offset(layer.output) + more))


def _operand(values: Any) -> Any:
    """A number, or a tensor of shape (1, C, 1, 1)."""
    array = np.asarray(values)
    if array.ndim == 0:
        return array.item()
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(along_axis(array, 1, 4)))
