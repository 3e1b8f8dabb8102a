"""Calibrators and a scheme that keep all rules, written as plainly as possible: the mutants break one rule each."""

from dataclasses import dataclass, field

import numpy as np
import torch

from qlearn.errors import CalibrationError, NotCalibratedError
from qlearn.numbers.qparams import ClipRange, QParams, float32_scale
from qlearn.schemes.base import integer_limits


class Extremes:
    """The smallest and the largest value. Subclasses change one step of it."""

    def __init__(self, *, channel_axis=None):
        self.channel_axis = channel_axis
        self.lo = self.hi = None

    def rows(self, x):
        """Check a batch and lay it out as one row per channel, float64."""
        x = x.detach()
        if not x.is_floating_point() or x.numel() == 0 or not torch.isfinite(x).all():
            raise CalibrationError("floating point values wanted, at least one, all finite")
        values = x.to("cpu", torch.float64).numpy()
        axis = self.channel_axis
        return values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)

    def observe(self, x):
        rows = self.rows(x)
        self.take(rows.min(1), rows.max(1))

    def take(self, lo, hi):
        if self.lo is None:
            self.lo, self.hi = lo, hi
            return
        if lo.shape != self.lo.shape:
            raise CalibrationError(f"{self.lo.size} channels so far, now {lo.size}")
        self.lo, self.hi = self.combine(lo, hi)

    def combine(self, lo, hi):
        return np.minimum(self.lo, lo), np.maximum(self.hi, hi)

    def bounds(self, scheme):
        return self.lo, self.hi

    def compute_range(self, scheme):
        if self.lo is None:
            raise NotCalibratedError("no data seen yet")
        lo, hi = self.bounds(scheme)
        return ClipRange.including_zero(lo[0], hi[0]) if self.channel_axis is None else ClipRange.including_zero(lo, hi)

    def merge(self, other):
        if other.lo is not None:
            self.take(other.lo, other.hi)

    def reset(self):
        self.lo = self.hi = None


class MovingAverage(Extremes):
    """Depends on the order of the batches, and says so in merge()."""

    def combine(self, lo, hi):
        return 0.9 * self.lo + 0.1 * lo, 0.9 * self.hi + 0.1 * hi

    def merge(self, other):
        raise CalibrationError("the order of the batches would be lost")


class Balanced(Extremes):
    """Nine tenths of the width, as much below zero as above: it may exceed the data."""

    def bounds(self, scheme):
        reach = 0.45 * (np.maximum(self.hi, 0.0) - np.minimum(self.lo, 0.0))
        return -reach, reach


class Stepped(Extremes):
    """Cut down to a multiple of 1/128 of the next power of two: a resolution that can be seen."""

    def bounds(self, scheme):
        _, exponent = np.frexp(np.maximum(-self.lo, self.hi))
        step = np.ldexp(1.0, exponent - 7)
        return np.trunc(self.lo / step) * step, np.trunc(self.hi / step) * step


@dataclass(frozen=True)
class Plain:
    """The affine scheme. Subclasses change one step of it."""

    bits: int = 8
    signed: bool = True
    qmin: int = field(init=False)
    qmax: int = field(init=False)
    symmetric = False

    def __post_init__(self):
        qmin, qmax = self.limits()
        object.__setattr__(self, "qmin", qmin)
        object.__setattr__(self, "qmax", qmax)

    def limits(self):
        return integer_limits(self.bits, self.signed)

    def scale(self, r):
        width = r.hi - r.lo
        return np.where(width > 0, width / (self.qmax - self.qmin), 1.0)

    def zero_point(self, r, scale):
        return np.clip(np.rint(self.qmin - r.lo / scale), self.qmin, self.qmax).astype(np.int32)

    def answer(self, r, scale, zero_point, axis):
        return QParams(scale, zero_point, self.qmin, self.qmax, None if r.channels is None else axis)

    def qparams(self, clip_range: ClipRange, axis=0):
        scale = float32_scale(self.scale(clip_range))
        zero_point = self.zero_point(clip_range, scale.astype(np.float64))
        return self.answer(clip_range, scale, zero_point, axis)
