"""How far is the quantized value from the float one: SQNR (paper §4, §6)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

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
