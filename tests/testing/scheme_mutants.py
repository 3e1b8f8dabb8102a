"""Schemes with one fault each: what the kit has to catch, and by which check."""

import numpy as np
from testing.good import Plain

from qlearn.numbers.qparams import QParams

SCHEMES = []


def scheme(caught_by):
    def add(cls):
        SCHEMES.append((cls, caught_by))
        return cls

    return add


def forge(cls=QParams, /, **values):
    """Make QParams past the checks of its constructor."""
    forged = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(forged, name, value)
    return forged


class Forger(Plain):
    """Answers with QParams that nobody has looked at."""

    def answer(self, r, scale, zero_point, axis):
        axis = None if r.channels is None else axis
        return forge(scale=scale, zero_point=zero_point, qmin=self.qmin, qmax=self.qmax, axis=axis)


@scheme("formats")
class AnyBits(Plain):
    """One bit, seventeen bits: anything goes."""

    def limits(self):
        half = 2 ** max(self.bits - 1, 0) if self.bits > 0 else 1
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)


@scheme("formats")
class IgnoresSigned(Plain):
    """Always signed."""

    def __post_init__(self):
        object.__setattr__(self, "signed", True)
        super().__post_init__()


@scheme("positive_scale")
class DoubleScale(Forger):
    """The scale stays float64, which no runtime stores."""

    def qparams(self, clip_range, axis=0):
        scale = np.asarray(self.scale(clip_range))
        return self.answer(clip_range, scale, self.zero_point(clip_range, scale), axis)


@scheme("zero_point")
class FractionalZeroPoint(Forger):
    """The zero point is not rounded."""

    def zero_point(self, r, scale):
        return np.asarray(np.clip(self.qmin - r.lo / scale, self.qmin, self.qmax))


@scheme("zero_is_exact")
class ZeroPointOutside(Forger):
    """Nobody clips the zero point: with a nudge of one, real zero has no code in a range that ends there."""

    def zero_point(self, r, scale):
        return super().zero_point(r, scale) + np.int32(1)


@scheme("symmetric")
class NotSymmetric(Plain):
    """Says that the zero point is 0."""

    symmetric = True


@scheme("symmetric")
class SecretlySymmetric(Plain):
    """Says that it has a zero point; it is always 0."""

    def scale(self, r):
        reach = np.maximum(-r.lo, r.hi)
        return np.where(reach > 0, reach / ((self.qmax - self.qmin) / 2 if self.signed else self.qmax), 1.0)

    def zero_point(self, r, scale):
        return np.zeros(scale.shape, np.int32)


@scheme("covers_range")
class CountsCodes(Plain):
    """Divides by the number of codes, not by the number of steps between them."""

    def scale(self, r):
        width = r.hi - r.lo
        return np.where(width > 0, width / (self.qmax - self.qmin + 1), 1.0)


@scheme("covers_range")
class TruncatesZeroPoint(Plain):
    """Rounds the zero point towards zero."""

    def zero_point(self, r, scale):
        return np.clip(np.trunc(self.qmin - r.lo / scale), self.qmin, self.qmax).astype(np.int32)


@scheme("covers_range")
class EightBitScale(Plain):
    """Computes the scale for 8 bits, whatever the format."""

    def scale(self, r):
        width = r.hi - r.lo
        return np.where(width > 0, width / 255, 1.0)


@scheme("covers_range")
class WrongAtOddFormats(Plain):
    """Half of the scale for the formats that nobody tries."""

    def scale(self, r):
        return super().scale(r) * (0.5 if self.bits in {5, 6, 7, 12} else 1.0)


@scheme("covers_range")
class WrongUnsigned(Plain):
    """Half of the scale at 3 and 13 bits, unsigned."""

    def scale(self, r):
        return super().scale(r) * (0.5 if self.bits in {3, 13} and not self.signed else 1.0)


@scheme("uses_range")
class WidthTwice(Plain):
    """Counts the width twice: every other code is for nothing."""

    def scale(self, r):
        width = r.hi - r.lo
        return np.where(width > 0, 2.1 * width / (self.qmax - self.qmin), 1.0)


@scheme("degenerate_range")
class NoStepForZeros(Forger):
    """A range of width 0 gets a scale of 0."""

    def qparams(self, clip_range, axis=0):
        scale = ((clip_range.hi - clip_range.lo) / (self.qmax - self.qmin)).astype(np.float32)
        return self.answer(clip_range, scale, self.zero_point(clip_range, np.where(scale > 0, scale, 1.0)), axis)


@scheme("extreme_ranges")
class SubnormalScale(Plain):
    """A range of 1e-45 gets a scale that float32 cannot hold."""

    def qparams(self, clip_range, axis=0):
        scale = np.asarray(self.scale(clip_range))
        return self.answer(clip_range, scale.astype(np.float32), self.zero_point(clip_range, scale), axis)


@scheme("scale_by_powers_of_two")
class SmallestScale(Plain):
    """An absolute smallest scale: quiet layers lose all their codes."""

    def scale(self, r):
        return np.maximum(super().scale(r), 2.0**-23 / 1000)


@scheme("per_channel")
class ChannelsShareAScale(Plain):
    """The largest channel sets the scale of all."""

    def scale(self, r):
        return np.broadcast_to(np.max(super().scale(r)), r.lo.shape)


@scheme("per_channel")
class EightChannels(Plain):
    """All channels after the eighth take its scale."""

    def scale(self, r):
        scale = np.array(super().scale(r))
        if scale.size > 8:
            scale[8:] = scale[7]
        return scale


@scheme("axis")
class AxisIgnored(Plain):
    """The channels are always the first axis."""

    def answer(self, r, scale, zero_point, axis):
        return super().answer(r, scale, zero_point, 0)


@scheme("deterministic")
class RemembersTheLast(Plain):
    """The scale drifts from what was asked before."""

    def scale(self, r):
        scale = super().scale(r)
        drift = getattr(self, "drift", 1.0)
        object.__setattr__(self, "drift", 1.0 + 1e-6 * float(np.max(r.hi) > 1.0))
        return scale * drift


@scheme("round_trip")
class HoldsALambda(Plain):
    """Cannot be pickled, and neither can a recipe with it."""

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "round", lambda x: np.floor(x + 0.5))


@scheme("fits_dtype")
class LimitsOfEightBits(Plain):
    """Returns the limits of 8 bits, whatever was asked for."""

    def answer(self, r, scale, zero_point, axis):
        half = 0 if not self.signed else 128
        return (
            QParams(scale, zero_point, -half, 255 - half, None if r.channels is None else axis)
            if (self.bits < 8)
            else super().answer(r, scale, zero_point, axis)
        )


class Int8Always(QParams):
    """Codes are stored as int8, also those up to 255."""

    dtype = np.dtype(np.int8)


@scheme("saturation")
class WrapsAround(Plain):
    """Unsigned codes above 127 wrap to negative ones."""

    def answer(self, r, scale, zero_point, axis):
        values = vars(super().answer(r, scale, zero_point, axis))
        return forge(Int8Always, **values)


@scheme("monotone")
class NegativeScale(Forger):
    """hi - lo the wrong way round."""

    def answer(self, r, scale, zero_point, axis):
        return super().answer(r, -scale, zero_point, axis)


@scheme("idempotent")
class NoReciprocal(Forger):
    """A scale whose reciprocal is infinite."""

    def answer(self, r, scale, zero_point, axis):
        return super().answer(r, scale * np.float32(1e-40), zero_point, axis)


@scheme("integer_kernel")
class RealOffset(FractionalZeroPoint):
    """A real offset where the kernels want an integer."""


@scheme("rounding_error")
class TwoGrids(Forger):
    """Says a zero point beyond the integers to those who look at the range; those who compute take the nearest one."""

    def answer(self, r, scale, zero_point, axis):
        return super().answer(r, scale, np.full_like(zero_point, self.qmax + 5), axis)


@scheme("broadcast")
class LastChannelTwice(Plain):
    """An index that is off by one: the second channel takes the scale of the third."""

    def answer(self, r, scale, zero_point, axis):
        if scale.size == 3:
            scale, zero_point = scale[[0, 2, 2]], zero_point[[0, 2, 2]]
        return super().answer(r, scale, zero_point, axis)


@scheme("broadcast")
class EightChannelsElsewhere(Plain):
    """The same beyond eight channels, where they are not the first axis."""

    def answer(self, r, scale, zero_point, axis):
        if axis and scale.size > 8:
            scale[8:], zero_point[8:] = scale[7], zero_point[7]
        return super().answer(r, scale, zero_point, axis)
