"""From the int32 accumulator back to 8 bits: two policies (paper §7, Fig. 10).

The accumulator counts in steps of S_x S_w, the output in steps of S_y.
So the code is round(acc * M) + Z_y with M = S_x S_w / S_y, and the policies differ in how they compute that product:

``fixed``
    M is an integer mantissa of 31 bits and a shift: integer arithmetic only, for chips without floating point.
    It rounds twice, as gemmlowp and LiteRT's reference kernels do.
``float32``
    One float32 multiplication, rounded half to even, as XNNPACK and ONNX Runtime do.

They differ in fewer than one output in a thousand, and then by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from qlearn.errors import KernelError
from qlearn.numbers.qparams import along_axis

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

ADD_LEFT_SHIFT, ADD_LEFT_SHIFT_WIDE = 20, 15
"""Bits that LiteRT's ADD shifts its inputs left, 8-bit and wider ones: headroom for what the rescaling rounds off."""


@dataclass(frozen=True, eq=False)
class FixedMultiplier:
    """M = mantissa * 2**(shift - 31), with a mantissa in [2**30, 2**31): shape () or (C,)."""

    mantissa: NDArray[np.int64]
    shift: NDArray[np.int64]


class Policy(Protocol):
    """How an integer model brings accumulators back to 8 bits."""

    name: str

    def requantize(
        self, accumulator: NDArray[Any], s_in: ArrayLike, s_weight: ArrayLike, s_out: ArrayLike, axis: int | None
    ) -> NDArray[np.int64]:
        """Return round(acc * S_in S_weight / S_out), without zero point; `axis` is the axis of a (C,) S_weight."""
        ...

    def add(
        self, a: NDArray[Any], b: NDArray[Any], s_a: np.float32, s_b: np.float32, s_out: np.float32, *, bits: int = 8
    ) -> NDArray[np.int64]:
        """Return round((a S_a + b S_b) / S_out), without zero point; a and b have theirs subtracted."""
        ...


class Float32Policy:
    """One float32 multiplication, rounded half to even: XNNPACK on x86, and ONNX Runtime.

    Examples
    --------
    >>> Float32Policy().requantize(np.int32([5, 15, -5]), 0.5, 0.1, 0.5, axis=None)     # M = 0.1
    array([0, 2, 0])
    """

    name = "float32"

    def requantize(
        self, accumulator: NDArray[Any], s_in: ArrayLike, s_weight: ArrayLike, s_out: ArrayLike, axis: int | None
    ) -> NDArray[np.int64]:
        """Return rint(float32(acc) * float32(float32(S_in S_weight) / S_out))."""
        multiplier = np.asarray(s_in, np.float32) * np.asarray(s_weight, np.float32) / np.asarray(s_out, np.float32)
        scaled = accumulator.astype(np.float32) * _along(multiplier, axis, accumulator.ndim)
        return np.asarray(np.rint(scaled).astype(np.int64))

    def add(
        self, a: NDArray[Any], b: NDArray[Any], s_a: np.float32, s_b: np.float32, s_out: np.float32, *, bits: int = 8
    ) -> NDArray[np.int64]:  # (bits matter to the fixed policy only)
        """Return rint(a (S_a / S_out) + b (S_b / S_out)), every operation in float32."""
        left = a.astype(np.float32) * (np.float32(s_a) / np.float32(s_out))
        right = b.astype(np.float32) * (np.float32(s_b) / np.float32(s_out))
        return np.asarray(np.rint(left + right).astype(np.int64))


class FixedPolicy:
    """Integer arithmetic only, rounding twice: gemmlowp, and LiteRT's reference kernels.

    Examples
    --------
    >>> FixedPolicy().requantize(np.int32([5, 15, -5]), 0.5, 0.1, 0.5, axis=None)       # M = 0.1, halves go away
    array([ 1,  2, -1])
    """

    name = "fixed"

    def requantize(
        self, accumulator: NDArray[Any], s_in: ArrayLike, s_weight: ArrayLike, s_out: ArrayLike, axis: int | None
    ) -> NDArray[np.int64]:
        """Multiply by the 31-bit mantissa of S_in S_weight / S_out (computed in float64), then shift."""
        real = np.asarray(s_in, np.float64) * np.asarray(s_weight, np.float64) / np.asarray(s_out, np.float64)
        multiplier = fixed_multiplier(real)
        return multiply_by_fixed(
            accumulator,
            FixedMultiplier(
                _along(multiplier.mantissa, axis, accumulator.ndim), _along(multiplier.shift, axis, accumulator.ndim)
            ),
        )

    def add(
        self, a: NDArray[Any], b: NDArray[Any], s_a: np.float32, s_b: np.float32, s_out: np.float32, *, bits: int = 8
    ) -> NDArray[np.int64]:
        """Bring both inputs to the scale 2 max(S_a, S_b) / 2**shift, add, and requantize the sum."""
        shift = ADD_LEFT_SHIFT if bits <= 8 else ADD_LEFT_SHIFT_WIDE
        twice_max = 2.0 * max(float(s_a), float(s_b))
        total = sum(
            multiply_by_fixed(values.astype(np.int64) << shift, fixed_multiplier(float(s) / twice_max))
            for values, s in ((a, s_a), (b, s_b))
        )
        return multiply_by_fixed(np.asarray(total), fixed_multiplier(twice_max / (2**shift * float(s_out))))


POLICIES: dict[str, Policy] = {"fixed": FixedPolicy(), "float32": Float32Policy()}


def policy_named(name: str) -> Policy:
    """Return the policy of that name; KernelError lists the names if there is none."""
    if name not in POLICIES:
        raise KernelError(f"no requantization policy {name!r}: choose one of {', '.join(sorted(POLICIES))}")
    return POLICIES[name]


def fixed_multiplier(real: ArrayLike) -> FixedMultiplier:
    """Write positive real multipliers as mantissa * 2**(shift - 31).

    Multipliers below 2**-32 become zero, as in LiteRT.

    Examples
    --------
    >>> m = fixed_multiplier(0.1)
    >>> int(m.mantissa), int(m.shift)
    (1717986918, -3)
    """
    fraction, exponent = np.frexp(np.asarray(real, np.float64))
    mantissa = np.floor(fraction * 2.0**31 + 0.5).astype(np.int64)  # half away: fraction > 0
    full = mantissa == 2**31  # rounding reached the next power of two
    mantissa, shift = np.where(full, mantissa // 2, mantissa), exponent.astype(np.int64) + full
    vanished = shift < -31
    return FixedMultiplier(np.where(vanished, 0, mantissa), np.where(vanished, 0, shift))


def multiply_by_fixed(values: NDArray[Any], multiplier: FixedMultiplier) -> NDArray[np.int64]:
    """Return values * mantissa * 2**(shift - 31), rounded twice.

    First the high half of the doubled 64-bit product, halves up (gemmlowp's SaturatingRoundingDoublingHighMul);
    then the shift to the right, halves away from zero (RoundingDivideByPOT).
    A shift to the left comes first and saturates at int32.

    Examples
    --------
    >>> multiply_by_fixed(np.int64([1000, -1000]), fixed_multiplier(0.1))
    array([ 100, -100])
    """
    left, right = np.maximum(multiplier.shift, 0), np.maximum(-multiplier.shift, 0)
    shifted = np.clip(values.astype(np.int64) << np.minimum(left, 31), -(2**31), 2**31 - 1)
    high = (shifted * multiplier.mantissa + 2**30) >> 31
    half = (np.int64(1) << right) >> 1
    return np.asarray(np.sign(high) * ((np.abs(high) + half) >> right))


def _along(values: Any, axis: int | None, ndim: int) -> NDArray[Any]:
    array = np.asarray(values)
    return array if array.ndim == 0 else along_axis(array, axis, ndim)
