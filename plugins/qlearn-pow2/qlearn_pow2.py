"""Power-of-two scales for qlearn: an example of a third-party scheme, complete in one module."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from qlearn.errors import NumbersError
from qlearn.hookspecs import hookimpl
from qlearn.numbers.qparams import QParams
from qlearn.schemes.base import SchemeSpec, integer_limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qlearn.numbers.qparams import ClipRange

SMALLEST_EXPONENT, LARGEST_EXPONENT = -126, 127
"""Exponents of the powers of two that a normal float32 can hold."""


@dataclass(frozen=True)
class PowerOfTwoScheme:
    """Symmetric quantization whose scale is a power of two: S = 2**k, Z = 0.

    An integer layer turns its int32 sums into int8 by the multiplier M = S_x * S_w / S_out.
    Where all three are powers of two, so is M: the multiplication of ordinary requantization
    becomes a pure shift, and no multiplier has to be stored.

    The price is resolution.
    S is the ordinary scale rounded UP to the next power of two, so that nothing in the clip range is lost.
    It is less than twice the ordinary scale: at worst almost one bit is wasted, half a bit on average
    if the logarithms of the ranges are spread evenly.

    A range of width zero (all data are 0) gets S = 1.
    Exponents stay between -126 and 127, where float32 holds them exactly;
    only a range beyond 2**127 * qmax is cut.

    Parameters
    ----------
    bits : int, 2 to 16
    signed : bool
        True for [-2**(bits-1), 2**(bits-1) - 1].
        False for [0, 2**bits - 1]; the clip range must then start at 0.
    restricted : bool
        Leave out the most negative integer. Signed only.

    Raises
    ------
    NumbersError
        If bits is out of range, if restricted is asked of unsigned integers, or (in `qparams`) if an unsigned
        scheme meets a range that reaches below zero.

    References
    ----------
    Paper §2.1 and its references [14], Lin et al., and [23], Gysel et al.

    Examples
    --------
    >>> from qlearn.numbers.qparams import ClipRange
    >>> PowerOfTwoScheme().qparams(ClipRange(-1.0, 0.9))      # 1/128 is a power of two, and 0.9 <= 127/128
    QParams(scale=0.0078125, zero_point=0, qmin=-128, qmax=127)
    >>> PowerOfTwoScheme().qparams(ClipRange(-1.0, 1.0))      # 1 > 127/128: the next power is needed
    QParams(scale=0.015625, zero_point=0, qmin=-128, qmax=127)
    """

    bits: int = 8
    signed: bool = True
    restricted: bool = False
    qmin: int = field(init=False)
    qmax: int = field(init=False)
    symmetric = True

    def __post_init__(self) -> None:
        qmin, qmax = integer_limits(self.bits, self.signed)
        if self.restricted and not self.signed:
            raise NumbersError("restricted leaves out the most negative integer: unsigned integers have none")
        object.__setattr__(self, "qmin", qmin + 1 if self.restricted else qmin)
        object.__setattr__(self, "qmax", qmax)

    def qparams(self, clip_range: ClipRange, axis: int = 0) -> QParams:
        """Return the scale for the range (zero point 0), per channel along `axis` where the range is per channel."""
        if not self.signed and (clip_range.lo < 0).any():
            raise NumbersError(
                f"an unsigned symmetric scheme has no integers below zero, but the range is {clip_range}: "
                "use signed=True or the affine scheme"
            )
        needed = clip_range.hi / self.qmax
        if self.signed:
            needed = np.maximum(needed, clip_range.lo / self.qmin)
        exponent = next_power_of_two(needed)
        # The division rounds: a range a hair beyond a power of two may look as if it were one.
        scale = np.ldexp(1.0, exponent)
        lost = (scale * self.qmax < clip_range.hi) | (scale * self.qmin > clip_range.lo)
        exponent = np.minimum(exponent + lost, LARGEST_EXPONENT)
        all_zero = (clip_range.lo == 0) & (clip_range.hi == 0)
        scale = np.ldexp(1.0, np.where(all_zero, 0, exponent))
        zero_point = np.zeros(scale.shape, np.int32)
        return QParams(scale, zero_point, self.qmin, self.qmax, None if clip_range.channels is None else axis)


def next_power_of_two(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the smallest k with 2**k >= value, between -126 and 127.

    Examples
    --------
    >>> next_power_of_two(np.array([0.5, 0.51, 1.0, 0.0])).tolist()
    [-1, 0, 0, -126]
    """
    floor = np.maximum(values, 2.0**SMALLEST_EXPONENT)
    mantissa, exponent = np.frexp(floor)  # value = mantissa * 2**exponent, 0.5 <= mantissa < 1
    exponent = exponent.astype(np.int64) - (mantissa == 0.5)
    return np.asarray(np.minimum(exponent, LARGEST_EXPONENT))


@hookimpl
def qlearn_schemes() -> list[SchemeSpec]:
    """Tell qlearn what this package provides."""
    return [
        SchemeSpec(
            name="pow2",
            factory=PowerOfTwoScheme,
            summary="power-of-two scale, zero point 0: requantization is a shift",
            reference="Lin et al. and Gysel et al., references [14] and [23] of the paper",
        )
    ]
