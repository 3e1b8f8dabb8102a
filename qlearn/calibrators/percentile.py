"""Percentile: let the largest few values go."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from qlearn.calibrators.base import HistogramCalibrator, checked_number
from qlearn.errors import CalibrationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qlearn.numbers.histogram import StreamingHistogram
    from qlearn.schemes.base import Scheme

DEFINITIONS = ("absolute", "tails")


class PercentileCalibrator(HistogramCalibrator):
    r"""Keep `percent` of the values, by one of two definitions; libraries use at least four under this one name.

    ``of="absolute"``, the paper's: one threshold t that `percent` of all |x| do not exceed.
    The range is [-t, t], cut to what was seen.

    ``of="tails"``: each tail loses half of the rest.
    With ``percent=99`` the range runs from the 0.5th to the 99.5th percentile of x.

    A bound is the outer edge of the histogram bin in which the percentile falls,
    so at least `percent` of the values are kept, and a bound is at most one bin too far out.
    With ``percent=100`` the range is exactly that of ``minmax``.

    Parameters
    ----------
    percent : float, 0 < percent <= 100
        The share to KEEP: 99.99 clips one value in ten thousand.
    of : str
        ``"absolute"`` or ``"tails"``.
    channel_axis : int or None
        Axis with one range per channel; None for one range in all.
    bins : int
        Histogram bins on each side of zero. A bin is at most 2/bins of the largest |x| wide.

    Raises
    ------
    CalibrationError
        If percent is not in (0, 100], or the definition is unknown.

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

    name = "percentile"

    def __init__(
        self, *, percent: float = 99.99, of: str = "absolute", channel_axis: int | None = None, bins: int = 2048
    ) -> None:
        if of not in DEFINITIONS:
            raise CalibrationError(f"of is one of {', '.join(DEFINITIONS)}: got {of!r}")
        super().__init__(channel_axis=channel_axis, bins=bins)
        self.percent = checked_number(percent, "percent is the share to keep, in (0, 100]", most=100.0)
        self.of = of

    def bounds(self, statistic: StreamingHistogram, scheme: Scheme) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the range; the scheme makes no difference."""
        if self.of == "absolute":
            threshold = absolute_percentile(statistic, exact(self.percent))
            lo, hi = -threshold, threshold
        else:
            share = (100 + exact(self.percent)) / 2
            lo, hi = -upper_percentile(statistic, share, flipped=True), upper_percentile(statistic, share)
        return np.maximum(statistic.lo, lo), np.minimum(statistic.hi, hi)


def exact(percent: float) -> Fraction:
    """Return the number that was written: as a float, 99.9 / 100 is a little more than 0.999 and keeps one value more.

    Examples
    --------
    >>> exact(99.9) * 1000 / 100
    Fraction(999, 1)
    """
    return Fraction(repr(float(percent)))


def absolute_percentile(histogram: StreamingHistogram, percent: Fraction) -> NDArray[np.float64]:
    """Return, per channel, the upper edge of the bin in which the percentile of |x| falls, shape (channels,)."""
    edge = _bins_that_keep(histogram.counts_of_absolute, percent)
    return np.asarray(edge * histogram.widths)


def upper_percentile(histogram: StreamingHistogram, percent: Fraction, *, flipped: bool = False) -> NDArray[np.float64]:
    """Return, per channel, the upper edge of the bin in which the percentile of x (or of -x) falls."""
    counts = histogram.counts.numpy()
    edge = _bins_that_keep(counts[:, ::-1] if flipped else counts, percent)
    return np.asarray((edge - histogram.bins) * histogram.widths)


def _bins_that_keep(counts: NDArray[np.int64], percent: Fraction) -> NDArray[np.int64]:
    """Return how many of the first bins hold at least `percent` of the values, shape (channels,)."""
    cumulative = np.cumsum(counts, axis=1)
    needed = np.array([math.ceil(int(total) * percent / 100) for total in cumulative[:, -1]])
    return np.asarray(np.argmax(cumulative >= needed[:, None], axis=1) + 1)
