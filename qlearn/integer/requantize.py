"""From the accumulator back to 8 bits: one multiplication, in the ways of the runtimes (paper §7, Fig. 10).

The accumulator counts in steps of S_x S_w, the output in steps of S_y.
So the code is round(acc * M) + Z_y with M = S_x S_w / S_y, and the ways differ in how they compute that product:

``requantize_fixed``
    M is an integer mantissa of 31 bits and a shift: integer arithmetic only, for chips without floating point.
    It rounds twice, as gemmlowp and LiteRT's reference kernels do.
``requantize_float32``
    One float32 multiplication, rounded half to even, as XNNPACK and ONNX Runtime do.
``requantize_float64``
    One float64 multiplication, rounded half away from zero: LiteRT's fully connected layers since 2.3.
``requantize_wide``
    A mantissa of 15 bits for accumulators of 64: LiteRT's int16 activations.

The first two differ in fewer than one output in a thousand, and then by one.
`qlearn.integer.profiles` says which runtime takes which way for which operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.numbers.qparams import along_axis

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class FixedMultiplier:
    """M = mantissa * 2**(shift - 31), with a mantissa in [2**30, 2**31): shape () or (C,)."""

    mantissa: NDArray[np.int64]
    shift: NDArray[np.int64]

    def along(self, axis: int | None, ndim: int) -> FixedMultiplier:
        """Return the same multipliers, shaped to broadcast along `axis` of an array with `ndim` dimensions."""
        return FixedMultiplier(_along(self.mantissa, axis, ndim), _along(self.shift, axis, ndim))


def requantize_fixed(
    accumulator: NDArray[Any], s_in: ArrayLike, s_weight: ArrayLike, s_out: ArrayLike, axis: int | None
) -> NDArray[np.int64]:
    """Multiply by the 31-bit mantissa of S_in S_weight / S_out (computed in float64), then shift: rounded twice.

    Parameters
    ----------
    accumulator : integer array
    s_in, s_out : float32
    s_weight : float32, shape () or (C,)
    axis : int or None
        The axis of the accumulator that belongs to a (C,) s_weight.

    Returns
    -------
    int64 array
        round(acc S_in S_weight / S_out), without zero point.

    References
    ----------
    LiteRT, ``GetQuantizedConvolutionMultiplier`` and ``MultiplyByQuantizedMultiplier``.

    Examples
    --------
    >>> requantize_fixed(np.int32([5, 15, -5]), 0.5, 0.1, 0.5, axis=None)       # M = 0.1, halves go away
    array([ 1,  2, -1])
    """
    return multiply_by_fixed(accumulator, _fixed(s_in, s_weight, s_out).along(axis, accumulator.ndim))


def requantize_float32(
    accumulator: NDArray[Any], s_in: ArrayLike, s_weight: ArrayLike, s_out: ArrayLike, axis: int | None
) -> NDArray[np.int64]:
    """Return rint(float32(acc) * float32(float32(S_in S_weight) / S_out)), parameters as in `requantize_fixed`.

    References
    ----------
    XNNPACK, ``xnn_qs8_requantize_fp32``; ONNX Runtime, ``QLinearConv``.

    Examples
    --------
    >>> requantize_float32(np.int32([5, 15, -5]), 0.5, 0.1, 0.5, axis=None)     # M = 0.1
    array([0, 2, 0])
    """
    multiplier = np.asarray(s_in, np.float32) * np.asarray(s_weight, np.float32) / np.asarray(s_out, np.float32)
    scaled = accumulator.astype(np.float32) * _along(multiplier, axis, accumulator.ndim)
    return np.asarray(np.rint(scaled).astype(np.int64))


def requantize_float64(
    accumulator: NDArray[Any], s_in: ArrayLike, s_weight: ArrayLike, s_out: ArrayLike, axis: int | None
) -> NDArray[np.int64]:
    """Return round(acc * (S_in S_weight / S_out)) in float64, halves away from zero.

    References
    ----------
    LiteRT 2.3, the reference kernel of FULLY_CONNECTED (older versions computed `requantize_fixed`).

    Examples
    --------
    >>> requantize_float64(np.int32([5, 15, -5]), 0.5, 0.25, 1.25, axis=None)   # M = 0.1
    array([ 1,  2, -1])
    """
    multiplier = np.asarray(s_in, np.float64) * np.asarray(s_weight, np.float64) / np.asarray(s_out, np.float64)
    return round_half_away(accumulator.astype(np.float64) * _along(multiplier, axis, accumulator.ndim))


def requantize_wide(
    accumulator: NDArray[Any], s_in: ArrayLike, s_weight: ArrayLike, s_out: ArrayLike, axis: int | None
) -> NDArray[np.int64]:
    """Multiply a 64-bit accumulator by a 15-bit mantissa and shift, halves up: int16 activations, int8 weights.

    References
    ----------
    LiteRT, ``MultiplyByQuantizedMultiplier`` for int64.

    Examples
    --------
    >>> requantize_wide(np.int64([2**40, -(2**40)]), 1.0, 2.0**-32, 1.0, axis=None)
    array([ 256, -256])
    """
    multiplier = _fixed(s_in, s_weight, s_out).along(axis, accumulator.ndim)
    mantissa = np.where(multiplier.mantissa < 0x7FFF0000, (multiplier.mantissa + 2**15) >> 16, 0x7FFF)
    shift = 15 - multiplier.shift
    return np.asarray((accumulator.astype(np.int64) * mantissa + (np.int64(1) << (shift - 1))) >> shift)


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

    First `doubling_high_mul`, then `rounding_shift` to the right.
    A shift to the left comes first and saturates at int32.

    Examples
    --------
    >>> multiply_by_fixed(np.int64([1000, -1000]), fixed_multiplier(0.1))
    array([ 100, -100])
    """
    left, right = np.maximum(multiplier.shift, 0), np.maximum(-multiplier.shift, 0)
    shifted = np.clip(values.astype(np.int64) << np.minimum(left, 31), -(2**31), 2**31 - 1)
    return rounding_shift(doubling_high_mul(shifted, multiplier.mantissa), right)


def doubling_high_mul(a: NDArray[np.int64], b: ArrayLike) -> NDArray[np.int64]:
    """Return the high half of the doubled 64-bit product, a b / 2**31, halves up.

    References
    ----------
    gemmlowp, ``SaturatingRoundingDoublingHighMul``.

    Examples
    --------
    >>> doubling_high_mul(np.int64([3, -3]), 2**30)
    array([ 2, -1])
    """
    return np.asarray((a * np.asarray(b, np.int64) + 2**30) >> 31)


def rounding_shift(values: NDArray[np.int64], right: ArrayLike) -> NDArray[np.int64]:
    """Return values / 2**right, halves away from zero.

    References
    ----------
    gemmlowp, ``RoundingDivideByPOT``.

    Examples
    --------
    >>> rounding_shift(np.int64([3, -3]), 1)
    array([ 2, -2])
    """
    half = (np.int64(1) << np.asarray(right, np.int64)) >> 1
    return np.asarray(np.sign(values) * ((np.abs(values) + half) >> right))


def round_half_away(values: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Round real numbers to nearest, halves away from zero, as C's ``round`` does.

    Examples
    --------
    >>> round_half_away(np.float64([0.5, 1.5, -0.5, 0.49999999999999994]))
    array([ 1,  2, -1,  0])
    """
    whole = np.trunc(values)
    return np.asarray((whole + np.sign(values) * (np.abs(values - whole) >= 0.5)).astype(np.int64))


def _fixed(s_in: ArrayLike, s_weight: ArrayLike, s_out: ArrayLike) -> FixedMultiplier:
    return fixed_multiplier(
        np.asarray(s_in, np.float64) * np.asarray(s_weight, np.float64) / np.asarray(s_out, np.float64)
    )


def _along(values: Any, axis: int | None, ndim: int) -> NDArray[Any]:
    array = np.asarray(values)
    return array if array.ndim == 0 else along_axis(array, axis, ndim)
