"""Means over windows and over whole axes: codes in, codes out, as each runtime rounds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.integer import reference
from qlearn.integer.elementwise import unsigned_offset
from qlearn.integer.requantize import FixedMultiplier, fixed_multiplier, multiply_by_fixed, requantize_float32

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qlearn.numbers.qparams import QParams

    Codes = NDArray[Any]


def mean_fixed(total: Codes, count: int, qx: QParams, out: QParams) -> Codes:
    """Mean of `count` codes from their sum: the mantissa of S_x / S_y is divided by the count, rounded down.

    Parameters
    ----------
    total : int64 array
        Sum of the codes, zero points included.
    count : int
    qx, out : QParams

    Returns
    -------
    int64 array
        Codes of `out`, not yet clamped.

    References
    ----------
    LiteRT, reference kernel of MEAN for int8.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> q = QParams(0.5, 0, -128, 127)
    >>> mean_fixed(np.int64([3, -3, 5]), 2, q, q)
    array([ 2, -1,  3])
    """
    multiplier = fixed_multiplier(float(qx.scale) / float(out.scale))
    gained = min(count.bit_length() - 1, 32, 31 + int(multiplier.shift))
    mantissa = (int(multiplier.mantissa) << gained) // count
    share = FixedMultiplier(np.asarray(mantissa), np.asarray(multiplier.shift - gained))
    return multiply_by_fixed(_centred_sum(total, count, qx), share) + out.zero_point


def mean_float32(total: Codes, count: int, qx: QParams, out: QParams) -> Codes:
    """Mean from the sum: rint(float32(sum - count Z_x) * M) + Z_y, with M = float32(S_x * float32(1 / count)) / S_y.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> q = QParams(0.5, 0, -128, 127)
    >>> mean_float32(np.int64([3, -3, 5]), 2, q, q)
    array([ 2, -2,  2])
    """
    share = np.float32(1.0 / count)
    centred = _centred_sum(total, count, qx)
    return requantize_float32(centred, qx.scale, share, out.scale, axis=None) + out.zero_point


def mean_onnxruntime(total: Codes, count: int, qx: QParams, out: QParams) -> Codes:
    """Mean from the sum: as `mean_float32`, with M = S_x / float32(S_y count).

    References
    ----------
    ONNX Runtime, ``QLinearGlobalAveragePool``.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> q = QParams(0.5, 0, -128, 127)
    >>> mean_onnxruntime(np.int64([3, -3, 5]), 2, q, q)
    array([ 2, -2,  2])
    """
    steps = _centred_sum(total, count, qx).astype(np.float32) * (qx.scale / (out.scale * np.float32(count)))
    return np.asarray(np.rint(steps).astype(np.int64)) + out.zero_point


def mean_xnnpack(total: Codes, count: int, qx: QParams, out: QParams) -> Codes:
    """Mean from the sum: rint(float32(sum) m + c), with m = float32(S_x / S_y) * float32(1 / count).

    c = Z_y - (count Z_x) m.

    The zero point is added before rounding, so that a tie goes to the even *code*.

    References
    ----------
    XNNPACK, ``qs8-rsum`` and ``qs8-rdsum``; the formula was found by measuring (ADR 0012).

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> mean_xnnpack(np.int64([3, -3, 5]), 2, QParams(0.5, 0, -128, 127), QParams(0.5, 1, -128, 127))
    array([2, 0, 4])
    """
    multiplier = np.float32(qx.scale / out.scale) * (np.float32(1) / np.float32(count))
    constant = np.float32(out.zero_point) - np.float32(count * int(qx.zero_point)) * multiplier
    return np.asarray(np.rint(total.astype(np.float32) * multiplier + constant).astype(np.int64))


def average_half_away(windows: reference.Windows, qx: QParams, out: QParams) -> Codes:
    """Mean of the codes of each window in integers, halves away from zero; `out` has the scale of the input.

    Padded places hold the zero point; where they do not count, they are taken out of the sum.

    References
    ----------
    LiteRT, AVERAGE_POOL_2D for int8 (all kernels; XNNPACK leaves it to them).

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> q = QParams(0.5, 0, -128, 127)
    >>> windows = reference.windows(np.int8([[[[1, 2], [3, 4]]]]), kernel=(2, 2), stride=(2, 2))
    >>> average_half_away(windows, q, q)                 # 2.5 becomes 3
    array([[[[3]]]])
    """
    total = sum(window.astype(np.int64) for window in windows.values)
    uncounted = len(windows.values) - windows.count
    return reference.divide_half_away(np.asarray(total - uncounted * int(qx.zero_point)), windows.count)


def average_onnxruntime(windows: reference.Windows, qx: QParams, out: QParams) -> Codes:
    """Mean of each window in float32: dequantized values added one after the other, divided, and quantized.

    The zero point (of uint8 codes) is added before rounding.
    A window that is the whole picture runs as `mean_onnxruntime`.

    References
    ----------
    ONNX Runtime, ``QLinearAveragePool``.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> q = QParams(0.5, 1, -128, 127)
    >>> windows = reference.windows(np.int8([[[[1, 2], [4, 5]]]]), kernel=(1, 2), stride=(1, 1))
    >>> average_onnxruntime(windows, q, q)               # 1.5 becomes 2, and so would 2.5; 4.5 becomes 4
    array([[[[2],
             [4]]]])
    """
    if windows.whole:
        codes = np.asarray(np.sum(windows.values, axis=0, dtype=np.int64))
        return mean_onnxruntime(codes, len(windows.values), qx, out)
    total = np.zeros(windows.values[0].shape, np.float32)
    for window in windows.values:
        total += (window.astype(np.int64) - qx.zero_point).astype(np.float32) * qx.scale
    mean = total / windows.count.astype(np.float32)
    offset = unsigned_offset(out)
    return np.asarray(np.rint(mean / out.scale + np.float32(int(out.zero_point) + offset)).astype(np.int64)) - offset


def _centred_sum(total: Codes, count: int, qx: QParams) -> NDArray[np.int64]:
    return np.asarray(total.astype(np.int64) - count * int(qx.zero_point))
