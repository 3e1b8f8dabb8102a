"""Softmax in integers: in float32 from a table, and in fixed point alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.integer.requantize import (
    doubling_high_mul,
    fixed_multiplier,
    multiply_by_fixed,
    round_half_away,
    rounding_shift,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qlearn.numbers.qparams import QParams

    Codes = NDArray[Any]


def softmax_float(x: Codes, qx: QParams, out: QParams, beta: float = 1.0) -> Codes:
    """Softmax over the last axis: e**(beta S_x (q - max)), divided by the sum; a table of 256 float32 exponentials.

    Everything is float32, the sum goes from left to right, halves go away from zero.

    References
    ----------
    LiteRT, optimized kernel of SOFTMAX, which its default interpreter uses (XNNPACK leaves it to them).

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> softmax_float(np.int8([[0, 0], [0, 10]]), QParams(0.1, 0, -128, 127), QParams(1 / 256, -128, -128, 127))
    array([[  0,   0],
           [-59,  59]])
    """
    codes = x.astype(np.int64)
    below = codes.max(axis=-1, keepdims=True) - codes
    exponents = (qx.scale * np.float32(beta)) * -np.arange(2**qx.bits).astype(np.float32)
    table = np.exp(exponents.astype(np.float64)).astype(np.float32)
    powers = table[below]
    total = np.cumsum(powers, axis=-1, dtype=np.float32)[..., -1:]
    factor = np.float32(1) / (total * out.scale)
    return round_half_away(powers * factor) + out.zero_point


def softmax_onnxruntime(x: Codes, qx: QParams, out: QParams, beta: float = 1.0) -> Codes:
    """Softmax as `softmax_float`, with a table so large that its small values keep all their bits.

    The exponents are raised by log(largest float32 / length) - 5.

    References
    ----------
    ONNX Runtime, ``QLinearSoftmax``.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> q = QParams(0.1, 0, -128, 127)
    >>> softmax_onnxruntime(np.int8([[0, 0], [0, 10]]), q, QParams(1 / 256, -128, -128, 127))
    array([[  0,   0],
           [-59,  59]])
    """
    codes = x.astype(np.int64)
    below = codes.max(axis=-1, keepdims=True) - codes
    raised = max(0.0, float(np.log(np.finfo(np.float32).max / np.float32(x.shape[-1]))) - 5.0)
    scale = float(qx.scale) * beta
    powers = np.exp((raised / scale - np.arange(2**qx.bits)) * scale).astype(np.float32)[below]
    total = np.cumsum(powers, axis=-1, dtype=np.float32)[..., -1:]
    return np.asarray(np.rint(powers / total * (np.float32(1) / out.scale)).astype(np.int64)) + out.zero_point


def softmax_fixed(x: Codes, qx: QParams, out: QParams, beta: float = 1.0) -> Codes:
    """Softmax over the last axis in integers alone: exponentials, their sum and its reciprocal in fixed point.

    A difference to the largest code has 5 integer and 26 fractional bits, the sum 12 and 19.
    The output has scale 1/256 and the smallest code as zero point.

    References
    ----------
    LiteRT, reference kernel of SOFTMAX; gemmlowp, ``fixedpoint.h``.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> softmax_fixed(np.int8([[0, 0], [0, 10]]), QParams(0.1, 0, -128, 127), QParams(1 / 256, -128, -128, 127))
    array([[  0,   0],
           [-59,  59]])
    """
    codes = x.astype(np.int64)
    difference = codes - codes.max(axis=-1, keepdims=True)
    multiplier = fixed_multiplier(min(float(beta) * float(qx.scale) * 2.0**26, 2.0**31 - 1.0))
    farthest = -np.floor(31 * 2.0**26 / 2.0 ** int(multiplier.shift))
    near = difference >= farthest
    powers = _exp(multiply_by_fixed(np.where(near, difference, 0), multiplier))
    total = np.where(near, rounding_shift(powers, 12), 0).sum(axis=-1, keepdims=True)
    bits = np.floor(np.log2(total.astype(np.float64))).astype(np.int64) + 1  # of the sum, in [2**19, 2**31)
    reciprocal = _one_over_one_plus((total << (32 - bits)) - 2**31)
    product = rounding_shift(doubling_high_mul(powers, reciprocal), 12 - (32 - bits) + 31 - 8)
    return np.where(near, product, 0) + out.qmin


def _exp(x: NDArray[np.int64]) -> NDArray[np.int64]:
    """e**x for x <= 0 with 26 fractional bits; 31 fractional bits come out.

    x = r - k/4 with r in [-1/4, 0): a polynomial for e**r, and one multiplication for every bit of k.
    """
    quarter = np.int64(1) << 24
    rest = (x & (quarter - 1)) - quarter
    centred = (rest << 5) + (1 << 28)  # r + 1/8, with 31 fractional bits
    square = doubling_high_mul(centred, centred)
    cube, fourth = doubling_high_mul(square, centred), doubling_high_mul(square, square)
    tail = doubling_high_mul(rounding_shift(fourth, 2) + cube, round(2**31 / 3)) + square
    at_eighth = round(np.exp(-1 / 8) * 2**31)
    result = at_eighth + doubling_high_mul(centred + rounding_shift(tail, 1), at_eighth)
    for bit in range(7):  # e**-(1/4), e**-(1/2), e**-1, ... e**-16
        factor = round(np.exp(-(2.0 ** (bit - 2))) * 2**31)
        result = np.where((rest - x) & (quarter << bit), doubling_high_mul(result, factor), result)
    return np.where(x == 0, 2**31 - 1, result)


def _one_over_one_plus(x: NDArray[np.int64]) -> NDArray[np.int64]:
    """1 / (1 + x) for x in [0, 1), 31 fractional bits, by three steps of Newton's division."""
    half = (x + 2**31) >> 1  # (1 + x) / 2
    guess = round(48 / 17 * 2**29) + doubling_high_mul(half, -round(32 / 17 * 2**29))
    for _ in range(3):
        error = (1 << 29) - doubling_high_mul(half, guess)
        guess = guess + (doubling_high_mul(guess, error) << 2)
    return np.asarray(np.clip(guess << 1, -(2**31), 2**31 - 1))
