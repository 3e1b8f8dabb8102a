"""One checked batch, laid out as one row per channel: what every statistic takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from qlearn.errors import CalibrationError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

_LONG = 4096  # torch.aminmax over a whole row is vectorised, over a dimension it is not


@dataclass(frozen=True, eq=False)
class Rows:
    """A batch of finite values and its extremes, found once for all statistics that need them.

    Parameters
    ----------
    values : Tensor, floating point, shape (C, n)
    lo, hi : ndarray, float64, shape (C,)
        Smallest and largest value of each row.
    """

    values: Tensor
    lo: NDArray[np.float64]
    hi: NDArray[np.float64]

    @property
    def channels(self) -> int:
        """Number of rows C."""
        return int(self.values.shape[0])


def rows_of(x: Tensor | ArrayLike, channel_axis: int | None) -> Rows:
    """Check a batch and lay it out as one row per channel.

    Parameters
    ----------
    x : Tensor or array_like, any shape, floating point
    channel_axis : int or None
        None for one row in all.

    Raises
    ------
    CalibrationError
        If x is empty, not floating point, holds NaN or Inf, or has no such axis.

    Examples
    --------
    >>> rows = rows_of(torch.arange(6.0).reshape(2, 3), channel_axis=1)
    >>> rows.values.shape, rows.hi.tolist()
    (torch.Size([3, 2]), [3.0, 4.0, 5.0])
    """
    values = x.detach() if isinstance(x, torch.Tensor) else _tensor_of(x)
    if not values.is_floating_point():
        raise CalibrationError(f"a calibrator needs floating point values, got {values.dtype}")
    if values.numel() == 0:
        raise CalibrationError(f"a calibrator needs at least one value, got shape {tuple(values.shape)}")
    try:
        values = _by_channel(values, channel_axis)
        lo, hi = _extremes(values)
    except (RuntimeError, NotImplementedError) as error:
        kind = f"{values.dtype}, {values.layout}, on {values.device}"
        raise CalibrationError(f"values of {kind} have no order: make them dense float32 first ({error})") from error
    if not (np.isfinite(lo).all() and np.isfinite(hi).all()):  # aminmax passes NaN on
        bad = int(values.numel() - torch.isfinite(values).sum())
        raise CalibrationError(f"{bad} of {values.numel()} values are NaN or Inf: clean the data, or find the layer")
    return Rows(values, lo, hi)


def _tensor_of(x: ArrayLike) -> Tensor:
    """Copy anything array-like; masked, text, object and long double arrays are refused."""
    try:
        array = np.asarray(x)
    except ValueError as error:  # lists of different lengths
        raise CalibrationError(f"a calibrator needs floating point values, got {type(x).__name__}: {error}") from error
    if isinstance(x, np.ma.MaskedArray) or array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise CalibrationError(f"a calibrator needs floating point values, got {type(x).__name__} of {array.dtype}")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C", copy=True))


def _by_channel(values: Tensor, channel_axis: int | None) -> Tensor:
    if channel_axis is None:
        return values.reshape(1, -1)
    if not -values.ndim <= channel_axis < values.ndim:
        raise CalibrationError(f"no channel axis {channel_axis} in shape {tuple(values.shape)}")
    return values.movedim(channel_axis, 0).flatten(1) if values.ndim > 1 else values.reshape(-1, 1)


def _extremes(values: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if values.shape[1] < _LONG:
        found = [tuple(torch.aminmax(values, dim=1))]
    else:
        found = [tuple(extreme.reshape(1) for extreme in torch.aminmax(row)) for row in values]
    lo, hi = (torch.cat(side).cpu().double().numpy() for side in zip(*found, strict=True))
    return lo, hi
