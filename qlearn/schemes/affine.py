"""The affine scheme: asymmetric quantization (paper §2.2, eq. 3 and 4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from qlearn.numbers.qparams import QParams, float32_scale
from qlearn.schemes.base import integer_limits

if TYPE_CHECKING:
    from qlearn.numbers.qparams import ClipRange


@dataclass(frozen=True)
class AffineScheme:
    """Spread the integers evenly over [lo, hi]; the zero point says which of them is real zero.

    S = (hi - lo) / (qmax - qmin) and Z = round(qmin - lo / S).
    The paper writes Z = round(qmax - hi / S), which is the same number in exact arithmetic.
    Both are computed in float64; S is then rounded to float32 and Z is computed from the rounded S.
    A range of width zero (all data are 0) gets S = 1.

    Parameters
    ----------
    bits : int, 2 to 16
    signed : bool
        True for [-2**(bits-1), 2**(bits-1) - 1], False for [0, 2**bits - 1]. The reachable real numbers are the same.

    Raises
    ------
    NumbersError
        If bits is out of range, or signed is not a bool.

    References
    ----------
    Paper §2.2, eq. 3 and 4.

    Examples
    --------
    >>> from qlearn.numbers.qparams import ClipRange
    >>> AffineScheme(bits=3).qparams(ClipRange(-1.0, 2.5))
    QParams(scale=0.5, zero_point=-2, qmin=-4, qmax=3)
    """

    bits: int = 8
    signed: bool = True
    qmin: int = field(init=False)
    qmax: int = field(init=False)
    symmetric = False

    def __post_init__(self) -> None:
        qmin, qmax = integer_limits(self.bits, self.signed)
        object.__setattr__(self, "bits", int(self.bits))
        object.__setattr__(self, "qmin", qmin)
        object.__setattr__(self, "qmax", qmax)

    def qparams(self, clip_range: ClipRange, axis: int = 0) -> QParams:
        """Return scale and zero point for the range, per channel along `axis` where the range is per channel."""
        with np.errstate(over="ignore"):  # float64 ranges beyond float32: the largest scale is taken
            width = clip_range.hi - clip_range.lo
        scale = float32_scale(np.where(width > 0, width / (self.qmax - self.qmin), 1.0))
        zero_point = np.rint(self.qmin - clip_range.lo / scale.astype(np.float64))
        zero_point = np.clip(zero_point, self.qmin, self.qmax).astype(np.int32)
        return QParams(scale, zero_point, self.qmin, self.qmax, None if clip_range.channels is None else axis)
