"""Moving average: smooth the smallest and the largest value over the batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qlearn.calibrators.base import StatisticCalibrator, checked_number
from qlearn.numbers.extremes import MovingExtremes

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np
    from numpy.typing import NDArray

    from qlearn.schemes.base import Scheme


class MovingAverageCalibrator(StatisticCalibrator[MovingExtremes]):
    """An exponential moving average of each batch's smallest and largest value.

    The first batch sets the average; each later one counts with `new_weight`, the average so far with the rest.
    One outlier in one batch therefore counts little, but the result depends on the size and the order of the
    batches, and the true extremes are underestimated. That is harmless in the middle of a network and can be
    fatal for logits: several of them reach the same highest integer, and the winner is lost.

    Parameters
    ----------
    new_weight : float, 0 < new_weight <= 1
        Weight of the newest batch.
        Libraries name either this number or 1 minus it: 0.1 here is a "momentum" of 0.9 elsewhere.
    channel_axis : int or None
        Axis with one range per channel; None for one range in all.

    Raises
    ------
    CalibrationError
        If new_weight is not in (0, 1]. Also by `merge`: the order of the batches would be lost.

    References
    ----------
    Paper §7.5; it comes from quantization-aware training, where the weights change between batches.

    Examples
    --------
    >>> import torch
    >>> from qlearn.schemes.affine import AffineScheme
    >>> calibrator = MovingAverageCalibrator(new_weight=0.5)
    >>> calibrator.observe(torch.tensor([-1.0, 2.0]))
    >>> calibrator.observe(torch.tensor([-1.0, 4.0]))
    >>> calibrator.compute_range(AffineScheme())
    ClipRange(lo=-1, hi=3)
    """

    name = "moving_average"

    def __init__(self, *, new_weight: float = 0.1, channel_axis: int | None = None) -> None:
        super().__init__(channel_axis=channel_axis)
        self.new_weight = checked_number(
            new_weight, "new_weight is the weight of the newest batch, in (0, 1]", most=1.0
        )

    @property
    def statistic_key(self) -> Hashable:
        """Equal where the weights are."""
        return ("moving extremes", self.new_weight)

    def new_statistic(self, channels: int) -> MovingExtremes:
        """Return an average of nothing."""
        return MovingExtremes(self.new_weight, channels)

    def bounds(self, statistic: MovingExtremes, scheme: Scheme) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the averages; the scheme makes no difference."""
        return statistic.lo, statistic.hi
