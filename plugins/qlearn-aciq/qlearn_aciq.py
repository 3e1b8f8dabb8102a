"""Analytic clipping (ACIQ) for qlearn: an example of a third-party calibrator, complete in one module."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

import qlearn as ql
from qlearn.errors import CalibrationError, NotCalibratedError

if TYPE_CHECKING:
    from torch import Tensor


def laplace_tail(t: float) -> float:
    """Return the mean of max(x - t, 0) for a Laplace variable x whose mean absolute deviation is 1."""
    return math.exp(-t) / 2


def gauss_tail(t: float) -> float:
    """Return the mean of max(x - t, 0) for a normal variable x whose standard deviation is 1."""
    return math.exp(-t * t / 2) / math.sqrt(2 * math.pi) - t * math.erfc(t / math.sqrt(2)) / 2


PRIORS = {"laplace": (1, laplace_tail), "gauss": (2, gauss_tail)}
"""Name -> p and tail. The spread is the p-th root of the mean of abs(x - centre)**p; the tail is that of spread 1."""


@functools.cache
def threshold(prior: str, steps: int) -> float:
    """Return the best t for the clip range [-t, t], cut into steps, where the spread is 1.

    Rounding costs a twelfth of the squared step, (2 t / steps)**2 / 12.
    Clipping costs the mean of (x - t)**2 over the values beyond t, on two sides.
    The sum is least where its derivative is 0: tail(t) = t / (6 steps**2).
    The left side falls and the right side rises, so bisection finds the t.
    For Laplace that is t = W(3 steps**2), where Lambert's W is the inverse of w exp(w).

    Examples
    --------
    >>> [round(threshold("laplace", 2**bits), 2) for bits in (2, 3, 4)]    # published: 2.83, 3.89, 5.03
    [2.83, 3.9, 5.03]
    """
    _, tail = PRIORS[prior]
    lo, hi = 0.0, 64.0
    for _ in range(60):
        t = (lo + hi) / 2
        lo, hi = (t, hi) if tail(t) > t / (6 * steps**2) else (lo, t)
    return hi


class AciqCalibrator:
    """The clip range with the least expected noise for data that follow a prior: Laplace or Gauss.

    Only centre and spread of the data are measured; `threshold` does the rest.
    The centre is the mean. For a symmetric scheme, and for data of one sign, it is zero.
    Data of one sign are half of a prior, and zeros among them cost nothing: their bin is left out.

    Parameters
    ----------
    prior : {"laplace", "gauss"}
    channel_axis : int or None
        Axis with one range per channel; None for one range in all.

    References
    ----------
    Banner, Nahshan and Soudry 2019: reference [18] of the paper.
    """

    def __init__(self, *, prior: str = "laplace", channel_axis: int | None = None) -> None:
        if prior not in PRIORS:
            raise CalibrationError(f"aciq: no prior {prior!r}, the priors are {', '.join(PRIORS)}")
        self.prior, self.channel_axis = prior, channel_axis
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.histogram: ql.StreamingHistogram | None = None

    def observe(self, x: Tensor) -> None:
        """Count the values of one batch. The histogram refuses NaN, Inf, integers and empty batches."""
        axis, x = self.channel_axis, x.detach()
        rows = x.reshape(1, -1) if axis is None else x.movedim(axis, 0).unsqueeze(-1).flatten(1)
        histogram = self.histogram or ql.StreamingHistogram(channels=len(rows))
        histogram.add(rows)
        self.histogram = histogram

    def merge(self, other: AciqCalibrator) -> None:
        """Take over what another calibrator counted."""
        if other.histogram is not None:
            self.histogram = self.histogram or ql.StreamingHistogram(channels=other.histogram.channels)
            self.histogram.merge(other.histogram)

    def compute_range(self, scheme: ql.Scheme) -> ql.ClipRange:
        """Return the clip range for a scheme, shape () or (C,)."""
        if self.histogram is None:
            raise NotCalibratedError("aciq: no data seen yet; call observe() before compute_range()")
        bounds = [self._bounds(self.histogram, channel, scheme) for channel in range(self.histogram.channels)]
        lo, hi = bounds[0] if self.channel_axis is None else zip(*bounds, strict=True)
        return ql.ClipRange.including_zero(lo, hi)

    def _bounds(self, seen: ql.StreamingHistogram, channel: int, scheme: ql.Scheme) -> tuple[float, float]:
        """Return centre -+ reach, cut to what was seen; computed with a bin as the unit of length."""
        unit = seen.widths[channel] or 1.0  # 0 if all values are
        lo, hi = seen.lo[channel].item() / unit, seen.hi[channel].item() / unit
        edges = np.clip(np.arange(-seen.bins, seen.bins + 1), lo, hi)
        values, counts = (edges[:-1] + edges[1:]) / 2, seen.counts[channel].numpy().astype(np.float64)
        one_sided = lo >= 0 or hi <= 0
        if one_sided:
            counts[seen.bins] = 0  # the bin of zero
        if not counts.any():
            return 0.0, 0.0
        centre = 0.0 if one_sided or scheme.symmetric else np.average(values, weights=counts)
        p, _ = PRIORS[self.prior]
        spread = np.average(np.abs(values - centre) ** p, weights=counts) ** (1 / p)
        steps = scheme.qmax - scheme.qmin
        if one_sided and not (scheme.symmetric and scheme.signed):
            steps *= 2  # none is spent on the other sign: as if there were twice as many
        reach = spread * threshold(self.prior, steps)
        return max(lo, centre - reach) * unit, min(hi, centre + reach) * unit


@ql.hookimpl
def qlearn_calibrators() -> list[ql.CalibratorSpec]:
    """Tell qlearn what this package provides."""
    return [
        ql.CalibratorSpec(
            name="aciq",
            factory=AciqCalibrator,
            summary="analytic clipping for a Laplace or normal distribution",
            traits=frozenset({ql.Trait.MERGEABLE, ql.Trait.APPROXIMATE}),
            reference="Banner, Nahshan and Soudry 2019, reference [18] of the paper",
        )
    ]
