"""The symmetric schemes: zero point 0 (paper §2.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from qlearn.errors import NumbersError
from qlearn.numbers.qparams import QParams, float32_scale
from qlearn.schemes.base import integer_limits

if TYPE_CHECKING:
    from qlearn.numbers.qparams import ClipRange


@dataclass(frozen=True)
class SymmetricScheme:
    """Centre the integers on real zero: Z = 0, so the kernels have no zero point to subtract.

    Three conventions are in use under this one name. With a = max(-lo, hi) and 8 bits:

    ======================  ==============  ============  =======================================================
    convention              integers        S             who
    ======================  ==============  ============  =======================================================
    full range              [-128, 127]     a / 127.5     torch; this class. +a itself is clipped, by half a step
    full range, safe scale  [-128, 127]     a / 127       ONNX Runtime's default; -128 is never used
    restricted              [-127, 127]     a / 127       LiteRT weights; ``restricted=True`` here
    ======================  ==============  ============  =======================================================

    Restricted is what hardware likes: without -128 a product of two int8 numbers never reaches 2**14,
    and negating an integer cannot overflow.

    Unsigned integers have no room below zero: with ``signed=False`` the range must start at 0, and S = hi / qmax.

    Parameters
    ----------
    bits : int, 2 to 16
    signed : bool
    restricted : bool
        Leave out the most negative integer. Signed only.

    Raises
    ------
    NumbersError
        If bits is out of range, if signed is not a bool, if restricted is asked of unsigned integers,
        or (in `qparams`) if an unsigned scheme meets a range that reaches below zero.

    References
    ----------
    Paper §2.1.

    Examples
    --------
    >>> from qlearn.numbers.qparams import ClipRange
    >>> SymmetricScheme(bits=3, restricted=True).qparams(ClipRange(-1.0, 1.5))
    QParams(scale=0.5, zero_point=0, qmin=-3, qmax=3)
    >>> SymmetricScheme(bits=3).qparams(ClipRange(-1.0, 1.75))
    QParams(scale=0.5, zero_point=0, qmin=-4, qmax=3)
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
        object.__setattr__(self, "bits", int(self.bits))
        object.__setattr__(self, "qmin", qmin + 1 if self.restricted else qmin)
        object.__setattr__(self, "qmax", qmax)

    def qparams(self, clip_range: ClipRange, axis: int = 0) -> QParams:
        """Return the scale for the range (zero point 0), per channel along `axis` where the range is per channel."""
        if not self.signed and (clip_range.lo < 0).any():
            raise NumbersError(
                f"an unsigned symmetric scheme has no integers below zero, but the range is {clip_range}: "
                "use signed=True or the affine scheme"
            )
        absmax = np.maximum(-clip_range.lo, clip_range.hi)
        levels = (self.qmax - self.qmin) / 2 if self.signed else self.qmax
        scale = float32_scale(np.where(absmax > 0, absmax / levels, 1.0))
        zero_point = np.zeros(scale.shape, np.int32)
        return QParams(scale, zero_point, self.qmin, self.qmax, None if clip_range.channels is None else axis)
