"""Kernels that move codes and compute nothing: pad, slice, reshape, transpose.

Scale and zero point of the output are those of the input. The first axis is the batch, and stays the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[Any]


def pad(x: Codes, *, amounts: tuple[tuple[int, int], ...], x_zero: int = 0) -> Codes:
    """Put real zeros, that is ``x_zero``, before and after along each axis.

    Examples
    --------
    >>> pad(np.int8([[5]]), amounts=((0, 0), (1, 2)), x_zero=-3)
    array([[-3,  5, -3, -3]], dtype=int8)
    """
    return np.pad(x, amounts, constant_values=x_zero)


def strided_slice(x: Codes, *, slices: tuple[tuple[int | None, int | None, int | None], ...]) -> Codes:
    """Every step-th element of a window.

    Examples
    --------
    >>> strided_slice(np.int8([[1, 2, 3, 4]]), slices=((None, None, None), (0, None, 2)))
    array([[1, 3]], dtype=int8)
    """
    return x[tuple(slice(*bounds) for bounds in slices)]


def reshape(x: Codes, *, shape: tuple[int, ...]) -> Codes:
    """The same codes in another shape, given without the batch.

    Examples
    --------
    >>> reshape(np.int8([[1, 2, 3, 4]]), shape=(2, 2)).tolist()
    [[[1, 2], [3, 4]]]
    """
    return x.reshape(x.shape[0], *shape)


def transpose(x: Codes, *, axes: tuple[int, ...]) -> Codes:
    """The axes in another order; axis 0, the batch, stays.

    Examples
    --------
    >>> transpose(np.int8([[[1, 2], [3, 4]]]), axes=(0, 2, 1)).tolist()
    [[[1, 3], [2, 4]]]
    """
    return x.transpose(axes)
