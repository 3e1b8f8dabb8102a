"""The quantization noise that a density would have: what the search for the least mean squared error asks.

Rounding to levels r_q = S (q - Z) moves a value x from one level to the next at m_q = r_q + S / 2.
Starting from "everything goes to the highest level", each m_q sends the values below it one level down.
That changes the squared error of x by 2 S (x - m_q), so

    sum of (x - Q(x))**2  =  sum of (x - r_max)**2  -  2 S * sum over q of G(m_q),    G(m) = sum of max(m - x, 0).

G has pieces of second degree, one per bin: the noise of one candidate costs one look-up per level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from qlearn.numbers.density import Density

_BLOCK = 1 << 14  # look-ups at a time: what fits into the cache


@dataclass(frozen=True, eq=False)
class NoiseTable:
    """G of several channels, tabulated at the edges of their bins.

    Parameters
    ----------
    first : ndarray, int64, shape (C, 1)
        Number of the lowest bin.
    length : ndarray, int64, shape (C, 1)
        Number of bins J of the channel.
    lo, hi : ndarray, float64, shape (C, 1)
        Smallest and largest value, in bins.
    moments : ndarray, float64, shape (C, 3)
        Sums of 1, x and x**2.
    integral, below, slope : ndarray, float64, shape (C, J + 1)
        G at the left edge of each bin, number of values below it, half the density inside.
        The last column of a channel continues it beyond the largest value.
    """

    first: NDArray[np.int64]
    length: NDArray[np.int64]
    lo: NDArray[np.float64]
    hi: NDArray[np.float64]
    moments: NDArray[np.float64]
    integral: NDArray[np.float64]
    below: NDArray[np.float64]
    slope: NDArray[np.float64]

    @classmethod
    def of(cls, densities: Sequence[Density]) -> NoiseTable:
        """Tabulate the densities of C channels."""
        longest = max(len(d.counts) for d in densities)
        tables = np.zeros((3, len(densities), longest + 1))
        for c, d in enumerate(densities):
            _tabulate(d, tables[:, c])
        return cls(
            first=np.array([[np.floor(d.edges[0])] for d in densities]).astype(np.int64),
            length=np.array([[len(d.counts)] for d in densities]),
            lo=np.array([[d.edges[0]] for d in densities]),
            hi=np.array([[d.edges[-1]] for d in densities]),
            moments=np.array([_moments(d) for d in densities]),
            integral=tables[0],
            below=tables[1],
            slope=tables[2],
        )

    def noise(
        self, scale: NDArray[np.float64], zero_point: NDArray[np.int32], qmin: int, qmax: int
    ) -> NDArray[np.float64]:
        """Return the sum of squared errors, in bins squared, for K candidates per channel.

        Parameters
        ----------
        scale : ndarray, float64, shape (C, K)
            In bins.
        zero_point : ndarray, int, shape (C, K)
        qmin, qmax : int

        Returns
        -------
        ndarray, float64, shape (C, K)
        """
        highest = scale * (qmax - zero_point)
        count, first, second = (self.moments[:, i : i + 1] for i in range(3))
        everything_high = second - 2 * highest * first + highest**2 * count
        return np.maximum(everything_high - 2 * scale * self._sum_of_g(scale, zero_point, qmin, qmax), 0.0)

    def _sum_of_g(
        self, scale: NDArray[np.float64], zero_point: NDArray[np.int32], qmin: int, qmax: int
    ) -> NDArray[np.float64]:
        """Sum G over the thresholds between the levels, block by block."""
        halves = np.arange(qmin, qmax) + 0.5
        sums = np.empty_like(scale)
        step = max(1, _BLOCK // (len(halves) * len(scale)))
        for start in range(0, scale.shape[1], step):
            part = slice(start, start + step)
            thresholds = scale[:, part, None] * (halves - zero_point[:, part, None])
            sums[:, part] = self._g(thresholds.reshape(len(scale), -1)).reshape(thresholds.shape).sum(axis=2)
        return sums

    def _g(self, m: NDArray[np.float64]) -> NDArray[np.float64]:
        """G at positions (C, M): second degree inside a bin, zero before the first, straight after the last."""
        inside = np.clip(m, self.lo, self.hi)
        place = np.floor(inside).astype(np.int64) - self.first
        place = np.where(m >= self.hi, self.length, np.minimum(place, self.length - 1))
        left = np.clip((place + self.first).astype(np.float64), self.lo, self.hi)
        offset = np.maximum(m, self.lo) - left
        flat = place + self.integral.shape[1] * np.arange(len(m))[:, None]
        integral, below, slope = (table.ravel()[flat] for table in (self.integral, self.below, self.slope))
        return np.asarray(integral + offset * (below + offset * slope))


def _tabulate(density: Density, tables: NDArray[np.float64]) -> None:
    """Fill G, the number of values below, and half the density, at the left edge of each bin."""
    lengths = density.lengths
    counts, bins = density.counts, len(density.counts)
    below = np.concatenate([[0.0], np.cumsum(counts)])
    slope = np.divide(counts, 2 * lengths, out=np.zeros(bins), where=lengths > 0)
    tables[0, 1 : bins + 1] = np.cumsum(lengths * (below[:-1] + lengths * slope))
    tables[1, : bins + 1] = below
    tables[2, :bins] = slope


def _moments(density: Density) -> tuple[float, float, float]:
    counts, centres = density.counts, density.centres
    second = counts * (centres**2 + density.lengths**2 / 12)
    return float(counts.sum()), float((counts * centres).sum()), float(second.sum())
