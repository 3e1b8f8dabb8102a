"""The int8 kernels that add and multiply, in NumPy, written to be read: integers in, integers out.

A convolution or a linear layer returns its int32 accumulator; ``qlearn.integer.requantize`` brings it back to 8 bits.
Sums of products are computed in float64, whose integers are exact up to 2**53, because NumPy multiplies
float64 matrices ten times faster than int32 ones. The result is the integer sum, bit for bit.

Layout is (N, C, H, W) throughout. Zero points are subtracted first, so that padding adds real zeros.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import AccumulatorOverflowError
from qlearn.numbers.qparams import along_axis

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from qlearn.numbers.qparams import QParams

    Integers = NDArray[np.integer[Any]]

INT32_MAX = 2**31 - 1


def quantize(x: NDArray[np.float32], qparams: QParams) -> Integers:
    """Return clamp(round(x / S) + Z, qmin, qmax), ties to even (paper eq. 1). S is inverted in float32, as in torch.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> quantize(np.float32([-9, -0.6, 0.25, 0.75]), QParams(0.5, -1, -4, 3))
    array([-4, -2, -1,  1], dtype=int8)
    """
    scale = along_axis(qparams.scale, qparams.axis, np.ndim(x))
    zero_point = along_axis(qparams.zero_point, qparams.axis, np.ndim(x))
    with np.errstate(over="ignore"):  # an overflow saturates
        steps = np.rint(np.asarray(x, np.float32) * (np.float32(1) / scale))
    return np.asarray(np.clip(steps + zero_point.astype(np.float32), qparams.qmin, qparams.qmax).astype(qparams.dtype))


def dequantize(q: Integers, qparams: QParams) -> NDArray[np.float32]:
    """Return S (q - Z) in float32 (paper eq. 2).

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> dequantize(np.int8([-4, -1, 3]), QParams(0.5, -1, -4, 3))
    array([-1.5,  0. ,  2. ], dtype=float32)
    """
    scale = along_axis(qparams.scale, qparams.axis, np.ndim(q))
    zero_point = along_axis(qparams.zero_point, qparams.axis, np.ndim(q))
    return np.asarray((q.astype(np.int32) - zero_point).astype(np.float32) * scale)


def conv2d(
    x: Integers,
    weight: Integers,
    bias: NDArray[np.integer[Any]] | None = None,
    *,
    x_zero: int = 0,
    w_zero: ArrayLike = 0,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> NDArray[np.integer[Any]]:
    """Convolve: acc[n, o, y, x] = bias[o] + Σ (q_w - Z_w) (q_x - Z_x), one tap of the kernel after the other.

    Parameters
    ----------
    x : integer array, shape (N, C, H, W)
    weight : integer array, shape (O, C / groups, KH, KW)
        ``groups = C`` is a depthwise convolution.
    bias : int32 or int64 array, shape (O,), optional
        In steps of S_x S_w.
    x_zero : int
    w_zero : int or int array, shape () or (O,)
    stride, dilation : (int, int)
    padding : (top, bottom, left, right)

    Returns
    -------
    int32 array, shape (N, O, OH, OW)
        int64 where the bias is int64: 16-bit activations.

    Raises
    ------
    AccumulatorOverflowError
        If a sum leaves int32.

    References
    ----------
    Paper §7, Fig. 10. The same sums as LiteRT's reference_integer_ops/conv.h.

    Examples
    --------
    >>> x = np.arange(9, dtype=np.int8).reshape(1, 1, 3, 3)
    >>> conv2d(x, np.ones((1, 1, 2, 2), np.int8), np.int32([100]), x_zero=1)
    array([[[[104, 108],
             [116, 120]]]], dtype=int32)
    """
    top, bottom, left, right = padding
    (outputs, per_group, *kernel), images = weight.shape, x.shape[0]
    centred = np.pad(x.astype(np.float64) - x_zero, ((0, 0), (0, 0), (top, bottom), (left, right)))
    height, width = (
        (size - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip(centred.shape[2:], kernel, stride, dilation, strict=True)
    )
    taps = weight.astype(np.float64) - np.reshape(w_zero, (-1, 1, 1, 1))
    taps = taps.reshape(groups, outputs // groups, per_group, *kernel)
    accumulator = np.zeros((images, groups, outputs // groups, height * width))
    for row, column in np.ndindex(*kernel):
        rows = slice(row * dilation[0], row * dilation[0] + stride[0] * (height - 1) + 1, stride[0])
        columns = slice(column * dilation[1], column * dilation[1] + stride[1] * (width - 1) + 1, stride[1])
        seen = centred[:, :, rows, columns].reshape(images, groups, per_group, height * width)
        tap = taps[..., row, column]
        accumulator += tap * seen if per_group == 1 else tap @ seen
    return _with_bias(accumulator.reshape(images, outputs, height, width), bias, axis=1)


def linear(
    x: Integers,
    weight: Integers,
    bias: NDArray[np.integer[Any]] | None = None,
    *,
    x_zero: int = 0,
    w_zero: ArrayLike = 0,
) -> NDArray[np.integer[Any]]:
    """Fully connected: acc[n, o] = bias[o] + Σ (q_w[o, i] - Z_w) (q_x[n, i] - Z_x).

    Parameters
    ----------
    x : integer array, shape (..., I)
    weight : integer array, shape (O, I)
    bias : int32 array, shape (O,), optional
    x_zero : int
    w_zero : int or int array, shape () or (O,)

    Returns
    -------
    int32 array, shape (..., O)
        int64 where the bias is int64.

    Raises
    ------
    AccumulatorOverflowError
        If a sum leaves int32.

    Examples
    --------
    >>> linear(np.int8([[1, 2]]), np.int8([[3, 4], [5, 6]]), x_zero=-1)
    array([[18, 28]], dtype=int32)
    """
    centred = x.astype(np.float64) - x_zero
    matrix = weight.astype(np.float64) - np.reshape(w_zero, (-1, 1))
    return _with_bias(centred @ matrix.T, bias, axis=-1)


@dataclass(frozen=True, eq=False)
class Windows:
    """What a sliding window sees: one array per place in the window, shape (N, C, OH, OW).

    Parameters
    ----------
    values : list of integer array
        In the order of the rows of the window. Padded places hold the fill value.
    count : int64 array, shape (1, 1, OH, OW)
        Places that count at each position.
    whole : bool
        Whether the window is the whole picture.
    """

    values: list[Integers]
    count: NDArray[np.int64]
    whole: bool = False


def windows(
    x: Integers,
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, ...] = (0, 0),
    fill: int = 0,
    count_include_pad: bool = False,
) -> Windows:
    """Return x as each place of a window sees it while the window moves.

    Parameters
    ----------
    x : integer array, shape (N, C, H, W)
    kernel, stride : (int, int)
    padding : (rows, columns) or (top, bottom, left, right)
    fill : int
        The value of padded places.
    count_include_pad : bool
        Whether padded places count.

    Examples
    --------
    >>> seen = windows(np.int8([[[[1, 2], [3, 4]]]]), kernel=(2, 1), stride=(1, 1), padding=(0, 1, 0, 0))
    >>> [value.tolist() for value in seen.values], seen.count.tolist()
    ([[[[[1, 2], [3, 4]]]], [[[[3, 4], [0, 0]]]]], [[[[2, 2], [1, 1]]]])
    """
    ones = np.ones((1, 1, *x.shape[2:]), np.int64)
    count = sum(_seen(ones, kernel, stride, padding, int(count_include_pad)))
    whole = tuple(kernel) == x.shape[2:] and not any(padding)
    return Windows(_seen(x, kernel, stride, padding, fill), np.asarray(count), whole)


def avg_pool2d(
    x: Integers,
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, ...] = (0, 0),
    count_include_pad: bool = False,
    x_zero: int = 0,
) -> Integers:
    """Mean over a window, rounded half away from zero; scale and zero point stay those of the input.

    Padded places hold ``x_zero`` (real zero). They count only with ``count_include_pad``, torch's default;
    LiteRT never counts them.

    Examples
    --------
    >>> avg_pool2d(np.int8([[[[1, 2], [3, 4]]]]), kernel=(2, 2), stride=(2, 2))    # 2.5 becomes 3
    array([[[[3]]]], dtype=int8)
    """
    fill = x_zero if count_include_pad else 0
    seen = windows(x, kernel=kernel, stride=stride, padding=padding, fill=fill, count_include_pad=count_include_pad)
    total = sum(window.astype(np.int64) for window in seen.values)
    return np.asarray(divide_half_away(np.asarray(total), seen.count).astype(x.dtype))


def max_pool2d(
    x: Integers, *, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, ...] = (0, 0)
) -> Integers:
    """Largest integer of a window; padded places hold the smallest integer and never win.

    Examples
    --------
    >>> max_pool2d(np.int8([[[[1, 2], [3, 4]]]]), kernel=(2, 2), stride=(2, 2))
    array([[[[4]]]], dtype=int8)
    """
    return functools.reduce(np.maximum, _seen(x, kernel, stride, padding, np.iinfo(x.dtype).min))


def axis_sum(x: Integers, *, axes: tuple[int, ...] = (2, 3), keepdim: bool = True) -> NDArray[np.int64]:
    """Sum of the codes over some axes, by default height and width, exact in int64: what a mean starts from.

    Examples
    --------
    >>> axis_sum(np.int8([[[[1, 2], [3, 4]]]])).tolist()
    [[[[10]]]]
    """
    return np.asarray(x.sum(axis=axes, dtype=np.int64, keepdims=keepdim))


def divide_half_away(total: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """Divide integers, rounding to nearest and halves away from zero.

    Examples
    --------
    >>> divide_half_away(np.int64([5, -5, 4]), np.int64([2, 2, 3]))
    array([ 3, -3,  1])
    """
    return np.asarray(np.sign(total) * ((2 * np.abs(total) + count) // (2 * count)))


def _seen(
    x: Integers, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, ...], fill: int
) -> list[Integers]:
    (kh, kw), (sh, sw) = kernel, stride
    top, bottom, left, right = padding if len(padding) == 4 else (padding[0], padding[0], padding[1], padding[1])
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    height, width = (padded.shape[2] - kh) // sh + 1, (padded.shape[3] - kw) // sw + 1
    return [
        padded[:, :, row : row + sh * (height - 1) + 1 : sh, column : column + sw * (width - 1) + 1 : sw]
        for row, column in np.ndindex(kh, kw)
    ]


def _with_bias(
    accumulator: NDArray[np.float64], bias: NDArray[np.integer[Any]] | None, axis: int
) -> NDArray[np.integer[Any]]:
    if bias is not None and bias.dtype == np.int64:
        return np.asarray(accumulator.astype(np.int64) + along_axis(bias, axis, accumulator.ndim))
    total = accumulator if bias is None else accumulator + along_axis(bias, axis, accumulator.ndim)
    largest = max(total.max(initial=0.0), -total.min(initial=0.0))
    if largest > INT32_MAX:
        raise AccumulatorOverflowError(f"a sum of {largest:.0f} does not fit into an int32 accumulator")
    return np.asarray(total.astype(np.int32))
