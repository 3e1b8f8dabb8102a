"""The smallest and the largest value: over everything seen, or as a moving average over batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from qlearn.errors import CalibrationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qlearn.numbers.rows import Rows


class Extremes:
    """The smallest and the largest value seen, per channel.

    Parameters
    ----------
    channels : int

    Attributes
    ----------
    lo, hi : ndarray, float64, shape (channels,)
        +inf and -inf before any data.

    Examples
    --------
    >>> from qlearn.numbers.rows import rows_of
    >>> extremes = Extremes()
    >>> extremes.add(rows_of([0.5, 2.0], None))
    >>> extremes.add(rows_of([-1.0], None))
    >>> extremes.lo.item(), extremes.hi.item()
    (-1.0, 2.0)
    """

    def __init__(self, channels: int = 1) -> None:
        self.lo: NDArray[np.float64] = np.full(channels, np.inf)
        self.hi: NDArray[np.float64] = np.full(channels, -np.inf)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.lo.size

    def add(self, rows: Rows) -> None:
        """Take one batch into account."""
        self.lo, self.hi = np.minimum(self.lo, rows.lo), np.maximum(self.hi, rows.hi)

    def merge(self, other: Self) -> None:
        """Take over what another one saw."""
        self.lo, self.hi = np.minimum(self.lo, other.lo), np.maximum(self.hi, other.hi)


class MovingExtremes:
    """An exponential moving average of each batch's smallest and largest value, per channel.

    The first batch sets the average, so nothing has to be unlearned (no bias towards a start value).

    Parameters
    ----------
    new_weight : float, 0 < new_weight <= 1
        Weight of the newest batch.
    channels : int

    Attributes
    ----------
    lo, hi : ndarray, float64, shape (channels,)
        +inf and -inf before any data.
    """

    def __init__(self, new_weight: float, channels: int = 1) -> None:
        self.new_weight = new_weight
        self.lo: NDArray[np.float64] = np.full(channels, np.inf)
        self.hi: NDArray[np.float64] = np.full(channels, -np.inf)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.lo.size

    def add(self, rows: Rows) -> None:
        """Take one batch into account."""
        lo, hi = rows.lo, rows.hi
        if np.isinf(self.lo[0]):  # the first batch
            self.lo, self.hi = lo.copy(), hi.copy()
            return
        self.lo = (1.0 - self.new_weight) * self.lo + self.new_weight * lo
        self.hi = (1.0 - self.new_weight) * self.hi + self.new_weight * hi

    def merge(self, other: Self) -> None:
        """Refuse: which batch came last is not known any more."""
        raise CalibrationError(
            "moving averages do not merge: the result depends on the order of the batches; "
            "calibrate in one process, or use a calibrator with the trait MERGEABLE"
        )
