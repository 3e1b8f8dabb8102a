"""The histogram read as a density: uniform inside each bin, cut at the smallest and the largest value seen.

Lengths are in bins (the width of a bin is 1), so that nothing depends on the scale of the data,
and data multiplied by a power of two gives the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qlearn.numbers.histogram import StreamingHistogram


@dataclass(frozen=True, eq=False)
class Density:
    """The distribution of one channel.

    Parameters
    ----------
    counts : ndarray, float64, shape (J,)
        Of the occupied bins and those between them. At least one value, not all of them zero.
    edges : ndarray, float64, shape (J + 1,)
        In bins. The first is the smallest value and the last the largest; those between are whole numbers.
        A bin whose edges coincide holds one value many times.

    Examples
    --------
    >>> import torch
    >>> from qlearn.numbers.histogram import StreamingHistogram
    >>> histogram = StreamingHistogram(bins=4)
    >>> histogram.add(torch.tensor([[0.0, 0.6, 0.9, 1.0]]))
    >>> density = Density.of(histogram, channel=0)
    >>> density.counts.tolist(), density.edges.tolist()
    ([1.0, 2.0, 1.0], [0.0, 1.0, 2.0, 2.0])
    >>> mean, std = density.mean_std()
    >>> round(mean * 0.5, 3), round(std * 0.5, 3)            # of the values themselves: 0.625, 0.39
    (0.688, 0.3)
    """

    counts: NDArray[np.float64]
    edges: NDArray[np.float64]

    @classmethod
    def of(cls, histogram: StreamingHistogram, channel: int) -> Density:
        """Return the density of one channel that saw a value other than zero."""
        counts = histogram.counts[channel].numpy()
        occupied = np.flatnonzero(counts)
        first, last = int(occupied[0]), int(occupied[-1])
        width = histogram.widths[channel]
        edges = np.arange(first, last + 2, dtype=np.float64) - histogram.bins
        edges[0], edges[-1] = histogram.lo[channel].item() / width, histogram.hi[channel].item() / width
        return cls(counts[first : last + 1].astype(np.float64), edges)

    @property
    def centres(self) -> NDArray[np.float64]:
        """Middle of each bin, shape (J,)."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    @property
    def lengths(self) -> NDArray[np.float64]:
        """Length of each bin: 1, less at both ends, shape (J,)."""
        return np.diff(self.edges)

    def mean_std(self) -> tuple[float, float]:
        """Return mean and standard deviation, in bins.

        The mean is within half a bin of that of the values, the deviation within one.
        """
        total = self.counts.sum()
        mean = (self.counts * self.centres).sum() / total
        spread = (self.centres - mean) ** 2 + self.lengths**2 / 12
        return float(mean), float(np.sqrt((self.counts * spread).sum() / total))
