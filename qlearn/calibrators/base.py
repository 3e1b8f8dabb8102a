"""What the built-in calibrators share; the protocol and the record are in `spec`, which imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from qlearn.calibrators.spec import Calibrator, CalibratorSpec, Trait
from qlearn.errors import CalibrationError, NotCalibratedError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

__all__ = ["Calibrator", "CalibratorSpec", "Trait", "channel_rows", "not_calibrated"]


def channel_rows(x: Tensor | ArrayLike, channel_axis: int | None) -> Tensor:
    """Check a batch and lay it out as one row per channel.

    Parameters
    ----------
    x : Tensor or array_like, any shape, floating point
    channel_axis : int or None
        None for one row in all.

    Returns
    -------
    Tensor
        Shape (C, n) or (1, n), detached, the dtype of x.

    Raises
    ------
    CalibrationError
        If x is empty, not floating point, holds NaN or Inf, or has no such axis.

    Examples
    --------
    >>> channel_rows(torch.zeros(2, 3, 4, 4), channel_axis=1).shape
    torch.Size([3, 32])
    """
    values = x.detach() if isinstance(x, torch.Tensor) else torch.as_tensor(np.asarray(x))
    if not values.is_floating_point():
        raise CalibrationError(f"a calibrator needs floating point values, got {values.dtype}")
    if values.numel() == 0:
        raise CalibrationError(f"a calibrator needs at least one value, got shape {tuple(values.shape)}")
    finite = torch.isfinite(values)
    if not finite.all():
        bad = int(values.numel() - finite.sum())
        raise CalibrationError(f"{bad} of {values.numel()} values are NaN or Inf: clean the data, or find the layer")
    if channel_axis is None:
        return values.reshape(1, -1)
    if not -values.ndim <= channel_axis < values.ndim:
        raise CalibrationError(f"no channel axis {channel_axis} in shape {tuple(values.shape)}")
    return values.movedim(channel_axis, 0).flatten(1) if values.ndim > 1 else values.reshape(-1, 1)


def not_calibrated(name: str) -> NotCalibratedError:
    """Return the error for a range that was asked for too early."""
    return NotCalibratedError(f"{name}: no data seen yet; call observe() before compute_range()")
