"""What the built-in calibrators share; the protocol and the record are in `spec`, which imports no torch.

A built-in calibrator is a statistic that batches are added to, and a rule that reads a clip range from it.
Calibrators with the same statistic can share one: see `share_statistics`.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeGuard, TypeVar

import numpy as np

from qlearn.calibrators.spec import Calibrator, CalibratorSpec, Trait
from qlearn.errors import CalibrationError, NotCalibratedError
from qlearn.numbers.density import Density
from qlearn.numbers.histogram import StreamingHistogram, checked_bins
from qlearn.numbers.qparams import ClipRange
from qlearn.numbers.rows import Rows, rows_of
from qlearn.schemes.base import Scheme

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

__all__ = ["Calibrator", "CalibratorSpec", "HistogramCalibrator", "StatisticCalibrator", "Trait"]


class Statistic(Protocol):
    """What batches are added to."""

    @property
    def channels(self) -> int:
        """Number of channels."""
        ...

    def add(self, rows: Rows) -> None:
        """Take one batch into account."""
        ...

    def merge(self, other: Any) -> None:
        """Take over what another one saw."""
        ...


S = TypeVar("S", bound=Statistic)


class StatisticCalibrator(ABC, Generic[S]):
    """A statistic and the rule that reads a clip range from it.

    Parameters
    ----------
    channel_axis : int or None
        Axis with one range per channel; None for one range in all.
    """

    name: ClassVar[str]

    def __init__(self, *, channel_axis: int | None = None) -> None:
        if channel_axis is not None and (isinstance(channel_axis, bool) or not hasattr(channel_axis, "__index__")):
            raise CalibrationError(f"channel_axis is a whole number or None: got {channel_axis!r}")
        self.channel_axis = channel_axis
        self.statistic: S | None = None

    @property
    @abstractmethod
    def statistic_key(self) -> Hashable:
        """Equal for two calibrators whose statistics would be equal."""

    @abstractmethod
    def new_statistic(self, channels: int) -> S:
        """Return an empty statistic."""

    @abstractmethod
    def bounds(self, statistic: S, scheme: Scheme) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return lo and hi, shape (C,); zero is included afterwards."""

    def observe(self, x: Tensor | ArrayLike) -> None:
        """Take one batch into account. Nothing of it is kept.

        Raises
        ------
        CalibrationError
            If x is empty, not floating point, holds NaN or Inf, or has another number of channels than before.
        """
        self.observe_rows(rows_of(x, self.channel_axis))

    def observe_rows(self, rows: Rows) -> None:
        """Take one batch into account that is checked already."""
        if self.statistic is None:
            self.statistic = self.new_statistic(rows.channels)
        self._check_channels(rows.channels)
        self.statistic.add(rows)

    def compute_range(self, scheme: Scheme) -> ClipRange:
        """Return the clip range for a scheme, shape () or (C,).

        Raises
        ------
        NotCalibratedError
            Before any data.
        CalibrationError
            If the scheme is none: a name, for instance.
        """
        if not isinstance(scheme, Scheme):
            raise CalibrationError(
                f"{self.name}: a range is computed for a scheme, got {scheme!r}: see qlearn.scheme()"
            )
        if self.statistic is None:
            raise NotCalibratedError(f"{self.name}: no data seen yet; call observe() before compute_range()")
        lo, hi = self.bounds(self.statistic, scheme)
        if self.channel_axis is None:
            return ClipRange.including_zero(lo[0], hi[0])
        return ClipRange.including_zero(lo, hi)

    def merge(self, other: Self) -> None:
        """Take over what another calibrator with the same settings saw."""
        if type(other) is not type(self) or other._settings != self._settings:
            raise CalibrationError(
                f"{self.name}: only a calibrator with the same settings can be merged, got {type(other).__name__} "
                f"with {getattr(other, '_settings', 'others')} into one with {self._settings}"
            )
        if other.statistic is None:
            return
        self._check_channels(other.statistic.channels)
        merged = self.statistic or self.new_statistic(other.statistic.channels)
        merged.merge(other.statistic)
        self.statistic = merged

    def reset(self) -> None:
        """Forget everything."""
        self.statistic = None

    @property
    def _settings(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "statistic"}

    def _check_channels(self, channels: int) -> None:
        if self.statistic is not None and channels != self.statistic.channels:
            raise CalibrationError(f"{self.name}: {self.statistic.channels} channels so far, now {channels}")


class HistogramCalibrator(StatisticCalibrator[StreamingHistogram]):
    """A calibrator that reads the streaming histogram.

    Parameters
    ----------
    channel_axis : int or None
    bins : int, a power of two
        Histogram bins on each side of zero. A bin is at most 2/bins of the largest |x| wide.
    """

    def __init__(self, *, channel_axis: int | None = None, bins: int = 2048) -> None:
        super().__init__(channel_axis=channel_axis)
        self.bins = checked_bins(bins)

    @property
    def statistic_key(self) -> Hashable:
        """Equal where the histograms are."""
        return ("histogram", self.bins)

    def new_statistic(self, channels: int) -> StreamingHistogram:
        """Return an empty histogram."""
        return StreamingHistogram(self.bins, channels)


def checked_number(value: Any, words: str, most: float = sys.float_info.max) -> float:
    """Return a number above 0 and up to `most`, or refuse it in these words.

    Examples
    --------
    >>> checked_number(3, "k is a number above 0")
    3.0
    """
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if number and 0 < value <= most:
        return float(value)
    raise CalibrationError(f"{words}: got {value!r}")


def densities_of(histogram: StreamingHistogram) -> dict[int, Density]:
    """Return the density of every channel that saw a value other than zero."""
    return {
        channel: Density.of(histogram, channel)
        for channel in range(histogram.channels)
        if histogram.widths[channel] > 0
    }


def can_share(calibrator: Calibrator) -> TypeGuard[StatisticCalibrator[Any]]:
    """Whether a calibrator observes as the built-in ones do: a subclass that changes that works alone."""
    if not isinstance(calibrator, StatisticCalibrator):
        return False
    kind = type(calibrator)
    return (kind.observe, kind.observe_rows, kind.merge) == (
        StatisticCalibrator.observe,
        StatisticCalibrator.observe_rows,
        StatisticCalibrator.merge,
    )


def share_statistics(calibrators: Iterable[Calibrator]) -> list[list[Calibrator]]:
    """Group calibrators whose statistic is the same: the first of a group observes, the others read along.

    A calibrator of another make is alone in its group, and so is a subclass that observes or merges in its own way.

    Examples
    --------
    >>> from qlearn.calibrators.minmax import MinMaxCalibrator
    >>> from qlearn.calibrators.percentile import PercentileCalibrator
    >>> groups = share_statistics([PercentileCalibrator(), MinMaxCalibrator(), PercentileCalibrator(percent=99.0)])
    >>> [len(group) for group in groups]
    [2, 1]
    """
    groups: dict[Any, list[Calibrator]] = {}
    for calibrator in calibrators:
        key: Any = id(calibrator)
        if can_share(calibrator):
            key = (calibrator.statistic_key, calibrator.channel_axis)
        groups.setdefault(key, []).append(calibrator)
    return list(groups.values())
