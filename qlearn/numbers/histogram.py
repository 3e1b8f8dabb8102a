"""A histogram that grows: one pass, O(bins) memory, the same result for any order and any split of the data.

The width of a bin is a power of two, and bin 0 starts at zero.
When a value falls outside, the width doubles and neighbouring bins add up in pairs.
Since floor(floor(x / w) / 2) = floor(x / (2 w)), that merge loses nothing:
the counts are those of a histogram that had the final width from the start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from qlearn.errors import CalibrationError, NumbersError
from qlearn.numbers.rows import Rows, rows_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_CHUNK = 1 << 18  # values per bincount: what fits into the cache
_MOST_BINS = 1 << 14  # on each side of zero: bin numbers are counted as int16
_FLOAT32_SAFE = -100  # below this exponent 2**-exponent leaves float32: count in float64
_FLOAT64_SAFE = -1000  # below this exponent 2**-exponent needs two factors
_SMALLEST_EXPONENT = -1100  # below the smallest float64: the width of a histogram that saw only zeros


class StreamingHistogram:
    """Counts of values in bins of width 2**exponent, per tensor or per channel.

    Parameters
    ----------
    bins : int, a power of two
        Bins on each side of zero. The largest |x| seen always falls into the upper half of them.
    channels : int
        Number of independent histograms.

    Attributes
    ----------
    counts : Tensor, int64, shape (channels, 2 * bins)
        Bin i covers [(i - bins) * w, (i - bins + 1) * w) with w = 2**exponent of its channel.
    exponents : ndarray, int64, shape (channels,)
    lo, hi : ndarray, float64, shape (channels,)
        Smallest and largest value seen (+inf and -inf before any).

    Examples
    --------
    >>> histogram = StreamingHistogram(bins=4)
    >>> histogram.add(torch.tensor([[-0.3, 0.1, 0.2, 0.9]]))
    >>> histogram.counts.tolist(), histogram.widths.tolist()
    ([[0, 0, 1, 0, 2, 0, 0, 1]], [0.25])
    >>> histogram.add(torch.tensor([[1.7]]))          # outside: the width doubles
    >>> histogram.counts.tolist(), histogram.widths.tolist()
    ([[0, 0, 0, 1, 2, 1, 0, 1]], [0.5])
    """

    def __init__(self, bins: int = 2048, channels: int = 1) -> None:
        self.bins = checked_bins(bins)
        if not isinstance(channels, int) or channels < 1:
            raise NumbersError(f"channels must be an integer from 1: got {channels!r}")
        self.counts = torch.zeros((channels, 2 * bins), dtype=torch.int64)
        self.exponents: NDArray[np.int64] = np.full(channels, _SMALLEST_EXPONENT, np.int64)
        self.lo: NDArray[np.float64] = np.full(channels, np.inf)
        self.hi: NDArray[np.float64] = np.full(channels, -np.inf)

    @property
    def channels(self) -> int:
        """Number of independent histograms."""
        return int(self.counts.shape[0])

    @property
    def total(self) -> Tensor:
        """Number of values seen, int64, shape (channels,)."""
        return self.counts.sum(dim=1)

    @property
    def widths(self) -> NDArray[np.float64]:
        """Width of one bin, shape (channels,)."""
        return np.asarray(np.ldexp(1.0, self.exponents))

    @property
    def counts_of_absolute(self) -> NDArray[np.int64]:
        """Counts of |x|: bin i from i * w to (i + 1) * w, shape (channels, bins)."""
        counts = self.counts.numpy()
        return np.asarray(counts[:, self.bins :] + counts[:, : self.bins][:, ::-1])

    def add(self, values: Tensor | Rows) -> None:
        """Count values of shape (channels, n), floating point, finite; or rows that are checked already.

        Raises
        ------
        NumbersError
            If the shape is wrong, n is 0, or a value is NaN or infinite. The histogram is unchanged then.
        """
        rows = values if isinstance(values, Rows) else self._checked(values)
        self._widen(_exponents_for(np.maximum(-rows.lo, rows.hi), self.bins))
        self.lo, self.hi = np.minimum(self.lo, rows.lo), np.maximum(self.hi, rows.hi)
        for channel, row in enumerate(rows.values):
            signed = bool(rows.lo[channel] < 0)
            self._count(row, int(self.exponents[channel]), signed, self.counts[channel])

    def _checked(self, values: Tensor) -> Rows:
        if not isinstance(values, torch.Tensor):
            raise NumbersError(f"expected a tensor of shape ({self.channels}, n > 0), got {type(values).__name__}")
        if values.ndim != 2 or values.shape[0] != self.channels or values.shape[1] == 0:
            raise NumbersError(f"expected values of shape ({self.channels}, n > 0), got {tuple(values.shape)}")
        try:
            return rows_of(values, 0)
        except CalibrationError as error:
            raise NumbersError(str(error)) from None

    def merge(self, other: Self) -> None:
        """Add what another histogram counted: the result is that of one histogram that saw both data sets."""
        if not isinstance(other, StreamingHistogram):
            raise NumbersError(f"only another StreamingHistogram can be merged, got {type(other).__name__}")
        if (other.bins, other.channels) != (self.bins, self.channels):
            raise NumbersError(
                f"histograms of {self.bins} bins x {self.channels} channels and "
                f"{other.bins} x {other.channels} do not merge"
            )
        self._widen(other.exponents)
        for channel in range(self.channels):
            shift = int(self.exponents[channel] - other.exponents[channel])
            self.counts[channel] += _coarsened(other.counts[channel], shift)
        self.lo, self.hi = np.minimum(self.lo, other.lo), np.maximum(self.hi, other.hi)

    def _widen(self, exponents: NDArray[np.int64]) -> None:
        for channel in np.flatnonzero(exponents > self.exponents):
            shift = int(exponents[channel] - self.exponents[channel])
            self.counts[channel] = _coarsened(self.counts[channel], shift)
        self.exponents = np.maximum(self.exponents, exponents)

    def _count(self, row: Tensor, exponent: int, signed: bool, counts: Tensor) -> None:
        """Count one channel in bins of width 2**exponent, chunk by chunk so that it stays in the cache."""
        if exponent == _SMALLEST_EXPONENT:  # nothing but zeros so far
            counts[self.bins] += row.numel()
            return
        narrow = row.dtype != torch.float64 and exponent > _FLOAT32_SAFE
        size = min(_CHUNK, row.numel()) if row.device.type == "cpu" else row.numel()
        steps = torch.empty(size, dtype=torch.float32 if narrow else torch.float64, device=row.device)
        numbers = torch.empty_like(steps, dtype=torch.int16)
        seen = counts if signed else counts[self.bins :]
        for chunk in torch.split(row, size):
            step, number = steps[: chunk.numel()], numbers[: chunk.numel()]
            torch.mul(chunk.to(steps.dtype), 2.0 ** -max(exponent, _FLOAT64_SAFE), out=step)
            if exponent < _FLOAT64_SAFE:  # float64 values near the smallest: one factor alone would overflow
                step *= 2.0 ** (_FLOAT64_SAFE - exponent)
            if signed:
                _floor(step, chunk, exponent)
            number.copy_(step)  # copying cuts off: the floor of what is not negative
            if signed:
                number += self.bins
            seen += torch.bincount(number, minlength=seen.numel()).cpu()


def checked_bins(bins: int) -> int:
    """Return the number of bins, or refuse it.

    Examples
    --------
    >>> checked_bins(256)
    256
    """
    whole = isinstance(bins, int | np.integer) and not isinstance(bins, bool)
    if not whole or not 2 <= bins <= _MOST_BINS or int(bins) & (int(bins) - 1):
        raise NumbersError(f"bins must be a power of two from 2 to {_MOST_BINS}: got {bins!r}")
    return int(bins)


def _floor(step: Tensor, chunk: Tensor, exponent: int) -> None:
    """Round down in place; a tiny negative value that became -0 on the way belongs to bin -1."""
    step.floor_()
    if exponent > 0:
        step[(chunk < 0) & (step == 0)] = -1


def _exponents_for(absmax: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """The smallest exponents for which absmax < bins * 2**exponent; zeros need no width at all."""
    _, above = np.frexp(absmax)  # absmax < 2**above
    exponents = above.astype(np.int64) - (bins.bit_length() - 1)
    return np.where(absmax > 0, exponents, _SMALLEST_EXPONENT)


def _coarsened(counts: Tensor, shift: int) -> Tensor:
    """Counts in bins that are 2**shift times as wide: the signed bin number moves right by `shift` bits."""
    if shift == 0:
        return counts
    bins = counts.numel() // 2
    target = (torch.arange(-bins, bins) >> min(shift, 62)) + bins
    return torch.zeros_like(counts).index_add_(0, target, counts)
