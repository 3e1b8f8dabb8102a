"""Percentile of the absolute values: let the largest few go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from qlearn.calibrators.base import channel_rows, not_calibrated
from qlearn.errors import CalibrationError
from qlearn.numbers.histogram import StreamingHistogram
from qlearn.numbers.qparams import ClipRange

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from qlearn.schemes.base import Scheme


class PercentileCalibrator:
    """Clip at the value t that `percent` of all |x| do not exceed.

    This is the paper's definition: one threshold for both signs, taken from the distribution of absolute values.
    The range is [-t, t], cut to what was seen.
    t is the upper edge of the histogram bin in which the percentile falls,
    so at least `percent` of the values are kept, and t is at most one bin too large.
    With ``percent=100`` the range is exactly that of ``minmax``.

    Parameters
    ----------
    percent : float, 0 < percent <= 100
        The share to KEEP: 99.99 clips one value in ten thousand.
    channel_axis : int or None
        Axis with one range per channel; None for one range in all.
    bins : int
        Histogram bins on each side of zero. A bin is at most 2/bins of the largest |x| wide.

    Raises
    ------
    CalibrationError
        If percent is not in (0, 100].

    References
    ----------
    Paper §7.5, "Histogram".

    Examples
    --------
    >>> import torch
    >>> from qlearn.schemes.affine import AffineScheme
    >>> calibrator = PercentileCalibrator(percent=99.0)
    >>> calibrator.observe(torch.linspace(0.0, 1.0, 1000))
    >>> calibrator.observe(torch.tensor([50.0]))                    # one outlier
    >>> calibrator.compute_range(AffineScheme())
    ClipRange(lo=0, hi=1)
    """

    def __init__(self, *, percent: float = 99.99, channel_axis: int | None = None, bins: int = 2048) -> None:
        if not 0.0 < percent <= 100.0:
            raise CalibrationError(f"percent is the share to keep, in (0, 100]: got {percent!r}")
        self.percent = float(percent)
        self.channel_axis = channel_axis
        self.bins = bins
        self._histogram: StreamingHistogram | None = None

    def observe(self, x: Tensor | ArrayLike) -> None:
        """Take one batch into account."""
        rows = channel_rows(x, self.channel_axis)
        if self._histogram is None:
            self._histogram = StreamingHistogram(self.bins, channels=rows.shape[0])
        if rows.shape[0] != self._histogram.channels:
            raise CalibrationError(f"percentile: {self._histogram.channels} channels so far, now {rows.shape[0]}")
        self._histogram.add(rows)

    def compute_range(self, scheme: Scheme) -> ClipRange:
        """Return the range; the scheme makes no difference."""
        if self._histogram is None:
            raise not_calibrated("percentile")
        threshold = absolute_percentile(self._histogram, self.percent)
        lo = np.maximum(self._histogram.lo.numpy(), -threshold)
        hi = np.minimum(self._histogram.hi.numpy(), threshold)
        if self.channel_axis is None:
            return ClipRange.including_zero(lo[0], hi[0])
        return ClipRange.including_zero(lo, hi)

    def merge(self, other: Self) -> None:
        """Take over what another calibrator saw; both need the same number of bins and channels."""
        if other._histogram is None:
            return
        if self._histogram is None:
            self._histogram = StreamingHistogram(other.bins, channels=other._histogram.channels)
        self._histogram.merge(other._histogram)

    def reset(self) -> None:
        """Forget everything."""
        self._histogram = None


def absolute_percentile(histogram: StreamingHistogram, percent: float) -> NDArray[np.float64]:
    """Return, per channel, the upper edge of the bin in which the percentile of |x| falls, shape (channels,)."""
    counts = histogram.counts.numpy()
    bins = histogram.bins
    folded = counts[:, bins:] + counts[:, :bins][:, ::-1]  # |x| in [i w, (i + 1) w)
    cumulative = np.cumsum(folded, axis=1)
    needed = np.ceil(cumulative[:, -1] * (percent / 100.0))
    edge = np.argmax(cumulative >= needed[:, None], axis=1) + 1
    return np.asarray(edge * histogram.widths)
