"""Clip ranges and quantization parameters: the two values that everything else passes around.

NumPy only, so that the integer kernels can be read, and trusted, without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import NumbersError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
"""The smallest scale ever produced: the smallest normal float32, 2**-126 (about 1.18e-38)."""

LARGEST_SCALE = float(np.finfo(np.float32).max)
"""The largest scale ever produced: the largest float32 (about 3.4e38)."""


@dataclass(frozen=True, eq=False)
class ClipRange:
    """The real interval [lo, hi] that quantization keeps; what lies outside is clipped (paper §2, r_min and r_max).

    Zero always belongs to the range.
    The paper asks that real zero be represented without error, but does not say that this needs
    lo <= 0 <= hi: without it the zero point of eq. 4 leaves the integers of the format.

    Parameters
    ----------
    lo, hi : array_like, float64, shape () for one range per tensor or (C,) for one per channel
        Finite, with lo <= 0 <= hi.

    Raises
    ------
    NumbersError
        If a bound is NaN, infinite or no number, if zero lies outside, or if the shapes are not equal and
        0- or 1-dimensional.

    Examples
    --------
    >>> ClipRange(-1.0, 3.0)
    ClipRange(lo=-1, hi=3)
    >>> ClipRange.including_zero(2.0, 3.0)       # all data positive: the range reaches down to zero
    ClipRange(lo=0, hi=3)
    """

    lo: NDArray[np.float64]
    hi: NDArray[np.float64]

    def __init__(self, lo: ArrayLike, hi: ArrayLike) -> None:
        lo_array, hi_array = _frozen(lo, np.float64), _frozen(hi, np.float64)
        if lo_array.shape != hi_array.shape or lo_array.ndim > 1:
            raise NumbersError(f"lo and hi need the same shape, () or (C,): got {lo_array.shape} and {hi_array.shape}")
        if not (np.isfinite(lo_array).all() and np.isfinite(hi_array).all()):
            raise NumbersError(f"a clip range must be finite: got lo={lo_array}, hi={hi_array}")
        if (lo_array > 0).any() or (hi_array < 0).any():
            raise NumbersError(
                f"a clip range must contain zero: got lo={lo_array}, hi={hi_array}; "
                "ClipRange.including_zero(lo, hi) widens it"
            )
        object.__setattr__(self, "lo", lo_array)
        object.__setattr__(self, "hi", hi_array)

    @classmethod
    def including_zero(cls, lo: ArrayLike, hi: ArrayLike) -> ClipRange:
        """Return the smallest range that holds lo, hi and zero."""
        return cls(np.minimum(_frozen(lo, np.float64), 0.0), np.maximum(_frozen(hi, np.float64), 0.0))

    @property
    def channels(self) -> int | None:
        """Number of channels C, or None for one range per tensor."""
        return None if self.lo.ndim == 0 else int(self.lo.shape[0])

    def __reduce__(self) -> tuple[Any, ...]:  # through __init__: pickle alone forgets that arrays are read-only
        return type(self), (self.lo, self.hi)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClipRange):
            return NotImplemented
        return np.array_equal(self.lo, other.lo) and np.array_equal(self.hi, other.hi)

    __hash__ = None  # type: ignore[assignment]  # arrays inside

    def __repr__(self) -> str:
        return f"ClipRange(lo={_short(self.lo)}, hi={_short(self.hi)})"


@dataclass(frozen=True, eq=False)
class QParams:
    """Scale and zero point of one tensor: r = scale * (q - zero_point), with q in [qmin, qmax] (paper eq. 2).

    Parameters
    ----------
    scale : array_like, float32, shape () or (C,)
        Real width of one integer step. Finite and > 0. Stored as float32, as every runtime stores it.
    zero_point : array_like, int32, shape as scale
        The integer that stands for real zero, in [qmin, qmax].
    qmin, qmax : int
        The smallest and largest integer, qmin < qmax; int32 holds them.
    axis : int or None
        The channel axis of the tensor when scale has shape (C,), else None.

    Raises
    ------
    NumbersError
        If one of the conditions above does not hold.

    Examples
    --------
    >>> qp = QParams(scale=0.5, zero_point=-2, qmin=-4, qmax=3)
    >>> qp.range                                 # the real numbers that 3 bits reach
    ClipRange(lo=-1, hi=2.5)
    >>> qp.bits, qp.dtype
    (3, dtype('int8'))
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    qmin: int
    qmax: int
    axis: int | None = None

    def __init__(self, scale: ArrayLike, zero_point: ArrayLike, qmin: int, qmax: int, axis: int | None = None) -> None:
        scale_array, zero_array = _frozen(scale, np.float32), _frozen(zero_point, np.int32)
        if scale_array.ndim > 1 or scale_array.shape != zero_array.shape:
            raise NumbersError(
                f"scale and zero_point need the same shape, () or (C,): got {scale_array.shape} and {zero_array.shape}"
            )
        if (axis is None) != (scale_array.ndim == 0):
            raise NumbersError(
                f"a scale of shape {scale_array.shape} does not fit axis={axis}: "
                "per channel needs shape (C,) and an axis, per tensor needs shape () and axis=None"
            )
        if not (np.isfinite(scale_array).all() and (scale_array >= SMALLEST_SCALE).all()):
            raise NumbersError(
                f"scale must be finite and > 0, at least {SMALLEST_SCALE:.3g}: got {_short(scale_array)}"
            )
        qmin, qmax = _whole("qmin", qmin), _whole("qmax", qmax)
        if not qmin < qmax:
            raise NumbersError(f"qmin must be below qmax: got {qmin} and {qmax}")
        if (zero_array < qmin).any() or (zero_array > qmax).any():
            raise NumbersError(
                f"zero_point must lie in [{qmin}, {qmax}]: got {_short(zero_array)}; "
                "a clip range that contains zero guarantees it"
            )
        for name, value in zip(
            ("scale", "zero_point", "qmin", "qmax", "axis"),
            (scale_array, zero_array, qmin, qmax, None if axis is None else _whole("axis", axis)),
            strict=True,
        ):
            object.__setattr__(self, name, value)

    @property
    def bits(self) -> int:
        """Bits that the integers need: 8 for [-128, 127], for [-127, 127] and for [0, 255]."""
        return int(self.qmax - self.qmin).bit_length()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest of int8, uint8, int16 and int32 that holds qmin and qmax."""
        for candidate in (np.int8, np.uint8, np.int16):
            if np.iinfo(candidate).min <= self.qmin and self.qmax <= np.iinfo(candidate).max:
                return np.dtype(candidate)
        return np.dtype(np.int32)

    @property
    def channels(self) -> int | None:
        """Number of channels C, or None per tensor."""
        return None if self.axis is None else int(self.scale.shape[0])

    @property
    def range(self) -> ClipRange:
        """The real numbers of qmin and qmax: what this format can reach."""
        scale = self.scale.astype(np.float64)
        return ClipRange(scale * (self.qmin - self.zero_point), scale * (self.qmax - self.zero_point))

    def __reduce__(self) -> tuple[Any, ...]:  # as for ClipRange
        return type(self), (self.scale, self.zero_point, self.qmin, self.qmax, self.axis)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QParams):
            return NotImplemented
        same_format = (self.qmin, self.qmax, self.axis) == (other.qmin, other.qmax, other.axis)
        same_arrays = np.array_equal(self.scale, other.scale) and np.array_equal(self.zero_point, other.zero_point)
        return same_format and same_arrays

    __hash__ = None  # type: ignore[assignment]  # arrays inside

    def __repr__(self) -> str:
        axis = "" if self.axis is None else f", axis={self.axis}"
        return (
            f"QParams(scale={_short(self.scale)}, zero_point={_short(self.zero_point)}, "
            f"qmin={self.qmin}, qmax={self.qmax}{axis})"
        )


def along_axis(values: NDArray[Any], axis: int | None, ndim: int) -> NDArray[Any]:
    """Reshape per-channel values (C,) so that they broadcast along `axis` of an array with `ndim` dimensions.

    Examples
    --------
    >>> along_axis(np.array([1.0, 2.0]), axis=1, ndim=4).shape
    (1, 2, 1, 1)
    """
    if axis is None:
        return values
    shape = [1] * ndim
    shape[axis] = -1
    return values.reshape(shape)


def float32_scale(scale: ArrayLike) -> NDArray[np.float32]:
    """Round a float64 scale to float32, inside [SMALLEST_SCALE, LARGEST_SCALE].

    A tensor whose steps would be finer than 2**-126 gets steps of 2**-126: its values then take few codes, or one.

    Examples
    --------
    >>> float(float32_scale(1e-60)) == SMALLEST_SCALE
    True
    """
    clipped = np.clip(np.asarray(scale, np.float64), SMALLEST_SCALE, LARGEST_SCALE)
    return np.asarray(clipped.astype(np.float32))


def _frozen(values: ArrayLike, dtype: DTypeLike) -> NDArray[Any]:
    """Copy to a read-only array of the dtype, refusing what would change value on the way (float zero points)."""
    try:
        source = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, tensors that NumPy cannot read
        raise NumbersError(f"numbers expected, got {type(values).__name__}: {error}") from error
    if source.dtype.kind not in "biuf":
        raise NumbersError(f"numbers expected, got {type(values).__name__} of {source.dtype}")
    if np.issubdtype(np.dtype(dtype), np.integer) and not np.issubdtype(source.dtype, np.integer):
        raise NumbersError(f"integers expected, got {source.dtype}: {_short(source)}")
    with np.errstate(over="ignore"):  # infinity is refused by those who ask, in their own words
        array = np.array(source, dtype=dtype)
    if np.issubdtype(array.dtype, np.integer) and not np.array_equal(array, source):
        raise NumbersError(f"{_short(source)} does not fit into {array.dtype}")
    array.setflags(write=False)
    return array


def _whole(name: str, value: object) -> int:
    """Return an integer that int32 holds, or refuse it."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and -(2**31) <= value < 2**31:
        return int(value)
    raise NumbersError(f"{name} must be an integer that int32 holds: got {value!r}")


def _short(values: NDArray[Any]) -> str:
    """Print one number, or the first three of many."""
    if values.ndim == 0:
        return f"{values.item():.6g}"
    shown = ", ".join(f"{v:.6g}" for v in values[:3])
    return f"[{shown}{', …' if values.size > 3 else ''}]"
