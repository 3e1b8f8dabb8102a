"""How far is the quantized value from the float one: SQNR (paper §4, §6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from qlearn.errors import QLearnError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def sqnr_db(signal: ArrayLike, approximation: ArrayLike) -> float:
    """Return the signal-to-quantization-noise ratio in decibels: 10 log10(Σ x² / Σ (x − x̂)²).

    One bit more halves the step, which adds 6 dB.

    Parameters
    ----------
    signal, approximation : array_like, equal shapes
        Computed in float64.

    Returns
    -------
    float
        inf if the two are equal, -inf if the signal is all zero and the approximation is not.

    References
    ----------
    Paper §4.

    Examples
    --------
    >>> sqnr_db([1.0, -1.0], [1.1, -1.1])
    20.0
    """
    x, y = np.asarray(signal, np.float64), np.asarray(approximation, np.float64)
    if x.shape != y.shape:
        raise QLearnError(f"sqnr_db compares equal shapes, got {x.shape} and {y.shape}")
    noise, power = float(np.square(x - y).sum()), float(np.square(x).sum())
    if noise == 0.0:
        return math.inf
    return -math.inf if power == 0.0 else round(10.0 * math.log10(power / noise), 12)


@dataclass(frozen=True)
class NoiseSums:
    """What one needs to know of x and its approximation x̂ to compute SQNR, RMSE and cosine: a few sums.

    Sums of two batches add up, so memory does not grow with the data.

    Parameters
    ----------
    count : int
        Numbers seen.
    signal, approximation : float
        Σ x² and Σ x̂².
    product : float
        Σ x x̂.
    noise : float
        Σ (x̂ − x)².
    error : float
        Σ (x̂ − x): not zero where the errors have a bias.
    largest : float
        Largest |x̂ − x|.

    Examples
    --------
    >>> sums = NoiseSums.of([1.0, -1.0], [1.1, -1.1]) + NoiseSums.of([2.0], [2.2])
    >>> sums.count, round(sums.sqnr_db, 6), round(sums.rmse, 6), round(sums.cosine, 6)
    (3, 20.0, 0.141421, 1.0)
    """

    count: int = 0
    signal: float = 0.0
    approximation: float = 0.0
    product: float = 0.0
    noise: float = 0.0
    error: float = 0.0
    largest: float = 0.0

    @classmethod
    def of(cls, signal: ArrayLike, approximation: ArrayLike) -> Self:
        """Measure one batch; arrays of equal shapes, summed in float64."""
        x, y = np.asarray(signal, np.float64).ravel(), np.asarray(approximation, np.float64).ravel()
        if x.shape != y.shape:
            raise QLearnError(f"noise is measured between equal shapes, got {np.shape(signal)} and {np.shape(y)}")
        with np.errstate(invalid="ignore", over="ignore"):
            error = y - x
            return cls(
                x.size,
                float(x @ x),
                float(y @ y),
                float(x @ y),
                float(error @ error),
                float(error.sum()),
                float(np.abs(error).max(initial=0.0)),
            )

    def __add__(self, other: NoiseSums) -> NoiseSums:
        return NoiseSums(
            self.count + other.count,
            self.signal + other.signal,
            self.approximation + other.approximation,
            self.product + other.product,
            self.noise + other.noise,
            self.error + other.error,
            max(self.largest, other.largest),
        )

    @property
    def sqnr_db(self) -> float:
        """SQNR in dB: inf where nothing was lost, -inf where nothing is left."""
        return decibels(self.signal, self.noise)

    @property
    def rmse(self) -> float:
        """Root of the mean squared error, in real units."""
        return math.sqrt(self.noise / self.count) if self.count else 0.0

    @property
    def mean_error(self) -> float:
        """Mean of x̂ − x, in real units."""
        return self.error / self.count if self.count else 0.0

    @property
    def cosine(self) -> float:
        """Cosine of the angle between x and x̂: 1 where they point the same way; 1 if both are all zero, else 0."""
        if self.signal == 0.0 or self.approximation == 0.0:
            return float(self.signal == self.approximation)
        return self.product / (math.sqrt(self.signal) * math.sqrt(self.approximation))


def decibels(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise), with an answer for every power.

    Returns
    -------
    float
        inf if there is no noise; -inf if there is noise and no signal, or if the noise is infinite or NaN.

    Examples
    --------
    >>> decibels(1.0, 0.01), decibels(0.0, 0.0), decibels(0.0, 1.0), decibels(1.0, math.inf)
    (20.0, inf, -inf, -inf)
    """
    if noise == 0.0:
        return math.inf
    if signal == 0.0 or not math.isfinite(noise):
        return -math.inf
    return math.inf if math.isinf(signal) else round(10.0 * (math.log10(signal) - math.log10(noise)), 12)


def finite(value: float | None) -> float | None:
    """Return the number, or None where JSON has none for it: infinite or NaN.

    Examples
    --------
    >>> finite(2.5), finite(math.inf)
    (2.5, None)
    """
    return value if value is not None and math.isfinite(value) else None
