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

from qlearn.errors import NumbersError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_CHUNK = 1 << 16  # values per bincount: what fits into the cache
_FLOAT32_SAFE = -100  # below this exponent 2**-exponent leaves float32: count in float64
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
    exponents : Tensor, int64, shape (channels,)
    lo, hi : Tensor, float64, shape (channels,)
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
        if bins < 2 or bins & (bins - 1):
            raise NumbersError(f"bins must be a power of two, at least 2: got {bins}")
        self.bins = bins
        self.counts = torch.zeros((channels, 2 * bins), dtype=torch.int64)
        self.exponents = torch.full((channels,), _SMALLEST_EXPONENT, dtype=torch.int64)
        self.lo = torch.full((channels,), torch.inf, dtype=torch.float64)
        self.hi = torch.full((channels,), -torch.inf, dtype=torch.float64)

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
        return np.asarray(np.ldexp(1.0, self.exponents.numpy()))

    def add(self, values: Tensor) -> None:
        """Count values of shape (channels, n), floating point, finite.

        Raises
        ------
        NumbersError
            If the shape is wrong, n is 0, or a value is NaN or infinite. The histogram is unchanged then.
        """
        if values.ndim != 2 or values.shape[0] != self.channels or values.shape[1] == 0:
            raise NumbersError(f"expected values of shape ({self.channels}, n > 0), got {tuple(values.shape)}")
        values = values.detach()
        lo, hi = (extreme.to("cpu", torch.float64) for extreme in torch.aminmax(values, dim=1))
        if not (torch.isfinite(lo).all() and torch.isfinite(hi).all()):
            raise NumbersError("NaN or Inf among the values")
        self._widen(_exponents_for(torch.maximum(-lo, hi), self.bins))
        self.lo, self.hi = torch.minimum(self.lo, lo), torch.maximum(self.hi, hi)
        for channel in range(self.channels):
            self.counts[channel] += self._count(values[channel], int(self.exponents[channel]))

    def merge(self, other: Self) -> None:
        """Add what another histogram counted: the result is that of one histogram that saw both data sets."""
        if (other.bins, other.channels) != (self.bins, self.channels):
            raise NumbersError(
                f"histograms of {self.bins} bins x {self.channels} channels and "
                f"{other.bins} x {other.channels} do not merge"
            )
        self._widen(other.exponents)
        for channel in range(self.channels):
            shift = int(self.exponents[channel] - other.exponents[channel])
            self.counts[channel] += _coarsened(other.counts[channel], shift)
        self.lo, self.hi = torch.minimum(self.lo, other.lo), torch.maximum(self.hi, other.hi)

    def _widen(self, exponents: Tensor) -> None:
        for channel in torch.nonzero(exponents > self.exponents).flatten().tolist():
            shift = int(exponents[channel] - self.exponents[channel])
            self.counts[channel] = _coarsened(self.counts[channel], shift)
        self.exponents = torch.maximum(self.exponents, exponents)

    def _count(self, values: Tensor, exponent: int) -> Tensor:
        """Count one channel in bins of width 2**exponent, chunk by chunk."""
        counts = torch.zeros(2 * self.bins, dtype=torch.int64, device=values.device)
        if exponent == _SMALLEST_EXPONENT:  # nothing but zeros so far
            counts[self.bins] = values.numel()
            return counts.cpu()
        narrow = values.dtype != torch.float64 and exponent > _FLOAT32_SAFE
        for chunk in torch.split(values, _CHUNK):
            steps = chunk.to(torch.float32 if narrow else torch.float64) * 2.0**-exponent
            steps.floor_()
            if exponent > 0:  # a tiny negative value may have become -0 on the way, whose floor is 0
                steps[(chunk < 0) & (steps == 0)] = -1
            index = steps.to(torch.int64).add_(self.bins)
            counts += torch.bincount(index, minlength=2 * self.bins)
        return counts.cpu()


def _exponents_for(absmax: Tensor, bins: int) -> Tensor:
    """The smallest exponents for which absmax < bins * 2**exponent; zeros need no width at all."""
    _, above = torch.frexp(absmax)  # absmax < 2**above
    exponents = above.to(torch.int64) - (bins.bit_length() - 1)
    return torch.where(absmax > 0, exponents, _SMALLEST_EXPONENT)


def _coarsened(counts: Tensor, shift: int) -> Tensor:
    """Counts in bins that are 2**shift times as wide: the signed bin number moves right by `shift` bits."""
    if shift == 0:
        return counts
    bins = counts.numel() // 2
    target = (torch.arange(-bins, bins) >> min(shift, 62)) + bins
    return torch.zeros_like(counts).index_add_(0, target, counts)
