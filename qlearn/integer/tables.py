"""Functions of one number as a table of 256 codes (paper §4), and softmax.

An 8-bit tensor takes at most 256 values, so any function of one number is a table, and running it is one look-up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import KernelError
from qlearn.integer.requantize import (
    doubling_high_mul,
    fixed_multiplier,
    multiply_by_fixed,
    round_half_away,
    rounding_shift,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from qlearn.numbers.qparams import QParams

    Real = NDArray[np.float64]
    Codes = NDArray[Any]

INT16 = np.iinfo(np.int16)


def _sigmoid(x: Real) -> Real:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))  # no overflow for large |x|


UNARY: dict[str, Callable[[Real], Real]] = {
    "sigmoid": _sigmoid,
    "tanh": lambda x: np.asarray(np.tanh(x)),
    "silu": lambda x: x * _sigmoid(x),
    "hard_swish": lambda x: x * np.clip(x + 3.0, 0.0, 6.0) / 6.0,
    "hard_sigmoid": lambda x: np.clip(x + 3.0, 0.0, 6.0) / 6.0,
}
"""The functions that a ``unary`` layer may name, in float64."""

FIXED_OUTPUTS = {"sigmoid": (1 / 256, -128), "tanh": (1 / 128, 0), "softmax": (1 / 256, -128)}
"""Scale and zero point of int8 outputs that LiteRT prescribes: their range is known beforehand."""


def unary_table(function: str, qx: QParams, out: QParams) -> Codes:
    """Return the code of f(S_x (q - Z_x)) for every code q from qmin to qmax: computed in float64, halves away.

    Parameters
    ----------
    function : str
        A key of `UNARY`.
    qx, out : QParams

    Returns
    -------
    integer array, shape (qx.qmax - qx.qmin + 1,), dtype of out

    References
    ----------
    Paper §4 (look-up tables). LiteRT, LOGISTIC and TANH; ONNX Runtime, ``QLinearSigmoid``.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> unary_table("sigmoid", QParams(1.0, 0, -2, 1), QParams(1 / 256, -128, -128, 127))
    array([-97, -59,   0,  59], dtype=int8)
    """
    if function not in UNARY:
        raise KernelError(f"no unary function {function!r}: choose one of {', '.join(sorted(UNARY))}")
    steps = np.arange(qx.qmin - int(qx.zero_point), qx.qmax - int(qx.zero_point) + 1)
    real = steps.astype(np.float64) * float(qx.scale)
    return _saturated(round_half_away(UNARY[function](real) / float(out.scale)) + out.zero_point, out)


def unary_table_litert(function: str, qx: QParams, out: QParams) -> Codes:
    """As `unary_table`, except hard-swish, which LiteRT computes in 16-bit fixed point on all its kernels.

    References
    ----------
    LiteRT, ``HardSwish`` of the reference kernels: x on a scale 128 times finer, times relu6(x + 3) / 6 on the
    scale 3 / 2**15.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> unary_table_litert("hard_swish", QParams(1.0, 0, -4, 3), QParams(0.1, 0, -128, 127))
    array([ 0,  0, -3, -3,  0,  7, 17, 30], dtype=int8)
    """
    if function != "hard_swish":
        return unary_table(function, qx, out)
    fine = np.arange(qx.qmin - int(qx.zero_point), qx.qmax - int(qx.zero_point) + 1, dtype=np.int64) << 7
    fine_scale = float(np.float32(1 / 128) * qx.scale)
    to_out, out_shift = _int16_multiplier(float(np.float32(fine_scale) / out.scale))
    to_gate, gate_shift = _int16_multiplier(float(np.float32(fine_scale) / np.float32(3 / 32768)))
    gate = fine
    if gate_shift > 0:
        gate = np.clip(gate << (gate_shift - 1), INT16.min, INT16.max)
    gate = _high_mul16(gate, to_gate)
    if gate_shift > 0:
        gate = np.clip(gate << 1, INT16.min, INT16.max)
    gate = rounding_shift(gate, max(-gate_shift, 0))
    gate = (gate + 2**15) >> 1  # from [-1, 1] to [0, 1]
    product = (gate * _high_mul16(fine, to_out) * 2) >> 16
    return _saturated(rounding_shift(product, max(-out_shift, 0)) + out.zero_point, out)


def softmax_float(x: Codes, qx: QParams, out: QParams, beta: float = 1.0) -> Codes:
    """Softmax over the last axis: e**(beta S_x (q - max)), divided by the sum; a table of 256 float32 exponentials.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> softmax_float(np.int8([[0, 0], [0, 10]]), QParams(0.1, 0, -128, 127), QParams(1 / 256, -128, -128, 127))
    array([[  0,   0],
           [-59,  59]])
    """
    codes = x.astype(np.int64)
    below = codes.max(axis=-1, keepdims=True) - codes
    table = np.exp(-float(np.float32(qx.scale * np.float32(beta))) * np.arange(2**qx.bits)).astype(np.float32)
    powers = table[below]
    total = np.cumsum(powers, axis=-1, dtype=np.float32)[..., -1:]
    factor = np.float32(1) / (total * out.scale)
    return np.asarray(np.rint(powers * factor).astype(np.int64)) + out.zero_point


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


def _int16_multiplier(real: float) -> tuple[int, int]:
    """A mantissa of 15 bits and a shift."""
    multiplier = fixed_multiplier(real)
    mantissa = int(multiplier.mantissa)
    return (0x7FFF if mantissa >= 0x7FFF8000 else (mantissa + 2**15) >> 16), int(multiplier.shift)


def _high_mul16(a: NDArray[np.int64], b: int) -> NDArray[np.int64]:
    """The high half of the doubled 32-bit product, halves up."""
    return np.asarray((a * b + 2**14) >> 15)


def _saturated(codes: NDArray[Any], out: QParams) -> Codes:
    return np.asarray(np.clip(codes, out.qmin, out.qmax).astype(out.dtype))
