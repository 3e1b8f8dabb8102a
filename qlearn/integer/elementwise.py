"""Sums and products of two tensors, and changes of scale: codes in, codes out, as each runtime computes them.

Every function takes codes with their `QParams` and returns the codes of `out`, zero point included, not yet clamped.
Scales are float32, so that every product below is that of float32 numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.integer.requantize import fixed_multiplier, multiply_by_fixed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qlearn.numbers.qparams import QParams

    Codes = NDArray[Any]

ADD_LEFT_SHIFT, ADD_LEFT_SHIFT_WIDE = 20, 15
"""Bits that LiteRT's ADD shifts its inputs left, 8-bit and wider ones: headroom for what the rescaling rounds off."""


def add_fixed(a: Codes, b: Codes, qa: QParams, qb: QParams, out: QParams, *, sign: int = 1) -> Codes:
    """Compute a ± b: bring both to the scale 2 max(S_a, S_b) / 2**20, add, rescale the sum.

    Three fixed-point products, each rounded twice.

    References
    ----------
    LiteRT, reference kernels of ADD and SUB (``AddElementwise``, ``left_shift = 20``).

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> half, whole = QParams(0.5, 0, -128, 127), QParams(1.0, 0, -128, 127)
    >>> add_fixed(np.int8([1, 3, -1]), np.int8([0, 0, 0]), half, half, whole)     # 0.5, 1.5, -0.5: halves go away
    array([ 1,  2, -1])
    """
    shift = ADD_LEFT_SHIFT if max(qa.bits, qb.bits) <= 8 else ADD_LEFT_SHIFT_WIDE
    twice_max = 2.0 * max(float(qa.scale), float(qb.scale))
    left, right = (
        multiply_by_fixed(_centred(codes, q) << shift, fixed_multiplier(float(q.scale) / twice_max))
        for codes, q in ((a, qa), (b, qb))
    )
    steps = multiply_by_fixed(left + sign * right, fixed_multiplier(twice_max / (2**shift * float(out.scale))))
    return steps + out.zero_point


def add_float32(a: Codes, b: Codes, qa: QParams, qb: QParams, out: QParams, *, sign: int = 1) -> Codes:
    """Compute a ± b = rint(a (S_a / S_y) ± b (S_b / S_y)) + Z_y, every operation in float32.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> half, whole = QParams(0.5, 0, -128, 127), QParams(1.0, 0, -128, 127)
    >>> add_float32(np.int8([1, 3, -1]), np.int8([0, 0, 0]), half, half, whole)   # ties to even
    array([0, 2, 0])
    """
    left = _centred(a, qa).astype(np.float32) * (qa.scale / out.scale)
    right = _centred(b, qb).astype(np.float32) * (qb.scale / out.scale)
    return np.asarray(np.rint(left + sign * right).astype(np.int64)) + out.zero_point


def add_xnnpack(a: Codes, b: Codes, qa: QParams, qb: QParams, out: QParams, *, sign: int = 1) -> Codes:
    """Compute a ± b: both ratios S / S_y are integers over one power of two; rounded once, halves up.

    The larger ratio gets 21 bits. Ratios from 256 on XNNPACK leaves to LiteRT's kernels, which is `add_fixed`.

    References
    ----------
    XNNPACK, ``qs8-vadd``.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> half, whole = QParams(0.5, 0, -128, 127), QParams(1.0, 0, -128, 127)
    >>> add_xnnpack(np.int8([1, 3, -1]), np.int8([0, 0, 0]), half, half, whole)
    array([1, 2, 0])
    """
    ratios = np.array([qa.scale / out.scale, qb.scale / out.scale], np.float32)
    if ratios.max() >= 256:
        return add_fixed(a, b, qa, qb, out, sign=sign)
    shift = min(21 - int(np.frexp(ratios.max())[1]), 62)  # the larger ratio becomes an integer in [2**20, 2**21)
    left, right = np.rint(np.ldexp(ratios.astype(np.float64), shift)).astype(np.int64)
    total = _centred(a, qa) * left + sign * _centred(b, qb) * right
    return np.asarray(((total + (np.int64(1) << (shift - 1))) >> shift) + out.zero_point)


def add_onnxruntime(a: Codes, b: Codes, qa: QParams, qb: QParams, out: QParams, *, sign: int = 1) -> Codes:
    """Compute a + b = rint(a r_a + (b r_b + c)) in float32, on uint8 codes.

    r = S / S_y and c = Z_y - (r_a Z_a + r_b Z_b).
    Both sums are fused multiply-adds (one rounding), as MLAS computes them on CPUs that have the instruction.
    There is no integer SUB: it runs in float, between dequantize and quantize.

    References
    ----------
    ONNX Runtime, ``QLinearAdd``.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> half, whole = QParams(0.5, 1, 0, 255), QParams(1.0, 0, 0, 255)
    >>> add_onnxruntime(np.uint8([2, 4, 1]), np.uint8([1, 1, 3]), half, half, whole)
    array([0, 2, 1])
    """
    if sign < 0:
        real = _real(a, qa) - _real(b, qb)
        return np.asarray(np.rint(real / out.scale).astype(np.int64)) + out.zero_point
    (a, za), (b, zb) = ((x.astype(np.int64) + unsigned_offset(q), int(q.zero_point) + unsigned_offset(q))
                        for x, q in ((a, qa), (b, qb)))  # fmt: skip
    zo, ratio_a, ratio_b = int(out.zero_point) + unsigned_offset(out), qa.scale / out.scale, qb.scale / out.scale
    constant = np.float32(zo) - fused_multiply_add(np.asarray(za), ratio_a, ratio_b * np.float32(zb))
    total = fused_multiply_add(a, ratio_a, fused_multiply_add(b, ratio_b, constant))
    return np.asarray(np.rint(total).astype(np.int64)) - unsigned_offset(out)


def multiply_fixed(a: Codes, b: Codes, qa: QParams, qb: QParams, out: QParams) -> Codes:
    """Compute a b: the product of the codes times S_a S_b / S_y (computed in float32), in fixed point.

    References
    ----------
    LiteRT, reference kernel of MUL.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> q = QParams(0.5, 0, -128, 127)
    >>> multiply_fixed(np.int8([3, -3]), np.int8([3, 3]), q, q, q)              # M = 1/2 needs no shift: halves go up
    array([ 5, -4])
    """
    real = float(np.float32(qa.scale * qb.scale) / out.scale)
    return multiply_by_fixed(_centred(a, qa) * _centred(b, qb), fixed_multiplier(real)) + out.zero_point


def multiply_float32(a: Codes, b: Codes, qa: QParams, qb: QParams, out: QParams) -> Codes:
    """Compute a b = rint(float32(product of the codes) * float32(S_a S_b / S_y)) + Z_y.

    References
    ----------
    XNNPACK, ``qs8-vmul``.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> q = QParams(0.5, 0, -128, 127)
    >>> multiply_float32(np.int8([3, -3]), np.int8([3, 3]), q, q, q)
    array([ 4, -4])
    """
    product = (_centred(a, qa) * _centred(b, qb)).astype(np.float32)
    return np.asarray(np.rint(product * (qa.scale * qb.scale / out.scale)).astype(np.int64)) + out.zero_point


def multiply_onnxruntime(a: Codes, b: Codes, qa: QParams, qb: QParams, out: QParams) -> Codes:
    """Compute a b as `multiply_float32`, but the zero point (of uint8 codes) is added before rounding.

    References
    ----------
    ONNX Runtime, ``QLinearMul``.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> q, odd = QParams(0.5, 0, -128, 127), QParams(0.5, 1, -128, 127)
    >>> multiply_onnxruntime(np.int8([3, -3]), np.int8([3, 3]), q, q, odd)     # 5.5 and -3.5: ties to the even code
    array([ 6, -4])
    """
    product = (_centred(a, qa) * _centred(b, qb)).astype(np.float32) * (qa.scale * qb.scale / out.scale)
    offset = unsigned_offset(out)
    return np.asarray(np.rint(product + np.float32(int(out.zero_point) + offset)).astype(np.int64)) - offset


def convert_fixed(x: Codes, qx: QParams, out: QParams) -> Codes:
    """The same real numbers on another scale, in fixed point: LiteRT's reference kernel of QUANTIZE from int8.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> convert_fixed(np.int8([1, -1]), QParams(0.5, 0, -128, 127), QParams(1.0, 10, -128, 127))
    array([11, 10])
    """
    return multiply_by_fixed(_centred(x, qx), fixed_multiplier(float(qx.scale) / float(out.scale))) + out.zero_point


def convert_float32(x: Codes, qx: QParams, out: QParams) -> Codes:
    """The same real numbers on another scale: rint(S_x (q - Z_x) / S_y) + Z_y in float32, as ONNX Runtime computes it.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> convert_float32(np.int8([1, -1]), QParams(0.5, 0, -128, 127), QParams(1.0, 10, -128, 127))
    array([10, 10])
    """
    return np.asarray(np.rint(_real(x, qx) / out.scale).astype(np.int64)) + out.zero_point


def convert_xnnpack(x: Codes, qx: QParams, out: QParams) -> Codes:
    """The same real numbers on another scale: S_x / S_y is rounded to 8 fractional bits, halves go up.

    So a ratio below 1/512 is zero: XNNPACK trades the last bit of a change of scale for speed.

    References
    ----------
    XNNPACK, ``qs8-vcvt``.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> convert_xnnpack(np.int8([1, -1]), QParams(0.5, 0, -128, 127), QParams(1.0, 10, -128, 127))
    array([11, 10])
    """
    multiplier = np.int64(np.rint(np.float32(256) * (qx.scale / out.scale)))
    return ((_centred(x, qx) * multiplier + 128) >> 8) + out.zero_point


def fused_multiply_add(a: Codes, b: Any, c: Any) -> NDArray[np.float32]:
    """Return float32(a b + c), rounded once: an 8-bit integer times a float32 number is exact in float64.

    Examples
    --------
    >>> float(fused_multiply_add(np.uint8([255]), np.float32(0.1), np.float32(-25.5))[0])
    3.7997961044311523e-07
    """
    return np.asarray((a.astype(np.float64) * np.float64(b) + np.asarray(c, np.float64)).astype(np.float32))


def _centred(codes: Codes, q: QParams) -> NDArray[np.int64]:
    return np.asarray(codes.astype(np.int64) - q.zero_point)


def _real(codes: Codes, q: QParams) -> NDArray[np.float32]:
    return np.asarray(_centred(codes, q).astype(np.float32) * q.scale)


def unsigned_offset(q: QParams) -> int:
    """Return what is added to codes to make them uint8, the dtype of ONNX Runtime's fast kernels: 128 for int8.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> unsigned_offset(QParams(0.5, 1, -128, 127)), unsigned_offset(QParams(0.5, 1, 0, 255))
    (128, 0)
    """
    return 128 if q.qmin < 0 else 0
