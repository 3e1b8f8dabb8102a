"""Min-max: keep everything that was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qlearn.calibrators.base import StatisticCalibrator
from qlearn.numbers.extremes import Extremes

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np
    from numpy.typing import NDArray

    from qlearn.schemes.base import Scheme


class MinMaxCalibrator(StatisticCalibrator[Extremes]):
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
    >>> import torch
    >>> from qlearn.schemes.affine import AffineScheme
    >>> calibrator = MinMaxCalibrator()
    >>> calibrator.observe(torch.tensor([0.5, 2.0]))
    >>> calibrator.observe(torch.tensor([-1.0]))
    >>> calibrator.compute_range(AffineScheme())
    ClipRange(lo=-1, hi=2)
    """

    name = "minmax"

    @property
    def statistic_key(self) -> Hashable:
        """Equal for all of them."""
        return ("extremes",)

    def new_statistic(self, channels: int) -> Extremes:
        """Return extremes that saw nothing."""
        return Extremes(channels)

    def bounds(self, statistic: Extremes, scheme: Scheme) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the observed range; the scheme makes no difference."""
        return statistic.lo, statistic.hi
