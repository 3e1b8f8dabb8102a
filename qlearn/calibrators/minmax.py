"""Min-max: keep everything that was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from qlearn.calibrators.base import channel_rows, not_calibrated
from qlearn.errors import CalibrationError
from qlearn.numbers.qparams import ClipRange

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from qlearn.schemes.base import Scheme


class MinMaxCalibrator:
    """The clip range is the smallest and the largest value seen, and zero.

    Nothing is clipped, so one outlier makes the steps coarse for all other values.

    Parameters
    ----------
    channel_axis : int or None
        Axis with one range per channel; None for one range in all.

    References
    ----------
    Paper §7.5.

    Examples
    --------
    >>> from qlearn.schemes.affine import AffineScheme
    >>> calibrator = MinMaxCalibrator()
    >>> calibrator.observe(torch.tensor([0.5, 2.0]))
    >>> calibrator.observe(torch.tensor([-1.0]))
    >>> calibrator.compute_range(AffineScheme())
    ClipRange(lo=-1, hi=2)
    """

    def __init__(self, *, channel_axis: int | None = None) -> None:
        self.channel_axis = channel_axis
        self._lo: NDArray[np.float64] | None = None
        self._hi: NDArray[np.float64] | None = None

    def observe(self, x: Tensor | ArrayLike) -> None:
        """Take one batch into account."""
        rows = channel_rows(x, self.channel_axis)
        lo, hi = (extreme.to("cpu", torch.float64).numpy() for extreme in torch.aminmax(rows, dim=1))
        self._take(lo, hi)

    def compute_range(self, scheme: Scheme) -> ClipRange:
        """Return the observed range; the scheme makes no difference."""
        if self._lo is None or self._hi is None:
            raise not_calibrated("minmax")
        if self.channel_axis is None:
            return ClipRange.including_zero(self._lo[0], self._hi[0])
        return ClipRange.including_zero(self._lo, self._hi)

    def merge(self, other: Self) -> None:
        """Take over what another calibrator saw."""
        if other._lo is not None and other._hi is not None:
            self._take(other._lo, other._hi)

    def reset(self) -> None:
        """Forget everything."""
        self._lo = self._hi = None

    def _take(self, lo: NDArray[np.float64], hi: NDArray[np.float64]) -> None:
        if self._lo is None or self._hi is None:
            self._lo, self._hi = lo, hi
            return
        if lo.shape != self._lo.shape:
            raise CalibrationError(f"minmax: {self._lo.size} channels so far, now {lo.size}")
        self._lo, self._hi = np.minimum(self._lo, lo), np.maximum(self._hi, hi)
