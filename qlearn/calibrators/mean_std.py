"""Mean and standard deviation: keep mu - k sigma to mu + k sigma."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qlearn.calibrators.base import HistogramCalibrator, checked_number, densities_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qlearn.numbers.histogram import StreamingHistogram
    from qlearn.schemes.base import Scheme


class MeanStdCalibrator(HistogramCalibrator):
    """The clip range is mu - k sigma to mu + k sigma, cut to what was seen.

    The paper's k is 3, and it does not cut.
    For ReLU outputs of a normal variable the uncut range would start at -1.35,
    and 39 % of the integers would stand for values that never occur.

    k = 3 clips one normal value in 370. That is good at 4 bits, where the steps are wide:
    on normal data it comes within 1 dB of the best range.
    At 8 bits the clipped values outweigh the finer steps by far: of 20 000 normal values min-max makes 40 dB and this
    calibrator 32, of Laplace values 36 and 18.

    Mean and deviation come from the histogram, not from running sums:
    counts are whole numbers, so neither the order nor the split of the data makes a difference.
    Both are within one bin of those of the values.

    Parameters
    ----------
    k : float, > 0
        Half the width of the range, in standard deviations.
    channel_axis : int or None
        Axis with one range per channel; None for one range in all.
    bins : int
        Histogram bins on each side of zero. A bin is at most 2/bins of the largest |x| wide.

    Raises
    ------
    CalibrationError
        If k is not positive and finite.

    References
    ----------
    Paper §7.5.

    Examples
    --------
    >>> import torch
    >>> from qlearn.schemes.affine import AffineScheme
    >>> calibrator = MeanStdCalibrator(k=1.0)
    >>> calibrator.observe(torch.tensor([-3.0, -1.0, 1.0, 3.0]))            # sigma is the root of 5
    >>> r = calibrator.compute_range(AffineScheme())
    >>> round(float(r.lo), 2), round(float(r.hi), 2)
    (-2.24, 2.24)
    """

    name = "mean_std"

    def __init__(self, *, k: float = 3.0, channel_axis: int | None = None, bins: int = 2048) -> None:
        super().__init__(channel_axis=channel_axis, bins=bins)
        self.k = checked_number(k, "k is a number of standard deviations, above 0")

    def bounds(self, statistic: StreamingHistogram, scheme: Scheme) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mu -+ k sigma, cut; the scheme makes no difference."""
        seen = statistic.lo, statistic.hi
        lo, hi = seen[0].copy(), seen[1].copy()
        for channel, density in densities_of(statistic).items():
            mean, std = density.mean_std()
            reach = self.k * std
            bounds = np.array([mean - reach, mean + reach])
            with np.errstate(over="ignore"):  # beyond float64 lies beyond what was seen
                lo[channel], hi[channel] = bounds * statistic.widths[channel]
        return np.maximum(lo, seen[0]), np.minimum(hi, seen[1])
