"""Calibrators with one fault each: what the kit has to catch, and by which check.

Many of the faults were found in the wild. The comment says what goes wrong, in words.
"""

import random

import numpy as np
import torch
from testing.good import Balanced, Extremes, MovingAverage

from qlearn.calibrators.spec import Trait
from qlearn.errors import CalibrationError
from qlearn.numbers.qparams import ClipRange

CALIBRATORS = []


def calibrator(caught_by, *traits):
    def add(cls):
        CALIBRATORS.append((cls, caught_by, frozenset(traits)))
        return cls

    return add


# What is seen.


@calibrator("split_invariance")
class LastBatchOnly(Extremes):
    """Only the last batch counts."""

    def combine(self, lo, hi):
        return lo, hi


@calibrator("split_invariance")
class BuffersThrownAway(Extremes):
    """To save memory the buffer is cleared every 16 batches, before its values are used."""

    seen = 0

    def observe(self, x):
        super().observe(x)
        self.seen += 1
        if self.seen % 16 == 0:
            self.lo = self.hi = None


@calibrator("split_invariance")
class UndeclaredMovingAverage(MovingAverage):
    """A moving average without ORDER_DEPENDENT."""


@calibrator("split_invariance")
class RunningSums(Extremes):
    """Squares summed up batch by batch: the last bits depend on the split."""

    def observe(self, x):
        rows = self.rows(x)
        self.take(np.square(rows).sum(1), np.full(len(rows), rows.shape[1]))

    def combine(self, lo, hi):
        return self.lo + lo, self.hi + hi

    def bounds(self, scheme):
        root = np.sqrt(self.lo / self.hi)
        return -root, root


@calibrator("permutation_invariance")
class GrowthLimitedByFirstBatch(Extremes):
    """Outliers that come after the first batch are cut at three times its range."""

    limit = None

    def observe(self, x):
        rows = self.rows(x)
        if self.limit is None:
            self.limit = 3 * np.abs(rows).max(1, keepdims=True)
        if self.limit.shape[0] == rows.shape[0]:
            rows = np.clip(rows, -self.limit, self.limit)
        self.take(rows.min(1), rows.max(1))

    def reset(self):
        super().reset()
        self.limit = None


@calibrator("order_dependence", Trait.MERGEABLE, Trait.ORDER_DEPENDENT)
class ClaimsOrderDependence(Extremes):
    """Says that the order matters, and it does not."""


@calibrator("scale_dependence", Trait.MERGEABLE, Trait.SCALE_DEPENDENT)
class ClaimsScaleDependence(Extremes):
    """Says that the scale of the data matters, and it does not."""


# Merging.


@calibrator("merge_exact", Trait.MERGEABLE)
class AveragesOnMerge(Extremes):
    """Claims MERGEABLE, and takes the mean of the two ranges."""

    def merge(self, other):
        if self.lo is None:
            self.lo, self.hi = other.lo, other.hi
        elif other.lo is not None:
            self.lo, self.hi = (self.lo + other.lo) / 2, (self.hi + other.hi) / 2


@calibrator("merge_exact", Trait.MERGEABLE)
class MergeFailsOnNew(Extremes):
    """Cannot merge with one that saw nothing."""

    def merge(self, other):
        self.lo, self.hi = np.minimum(self.lo, other.lo), np.maximum(self.hi, other.hi)


@calibrator("merge_exact", Trait.MERGEABLE)
class SharesStateOnMerge(Extremes):
    """A new calibrator takes over the arrays of the one it merges, and writes into them later."""

    def combine(self, lo, hi):
        return np.minimum(self.lo, lo, out=self.lo), np.maximum(self.hi, hi, out=self.hi)


@calibrator("merge_exact", Trait.MERGEABLE)
class MergeReversesChannels(Extremes):
    """merge() reverses the channels where the first axis holds them."""

    axis = 0

    def merge(self, other):
        if other.lo is not None and self.channel_axis == self.axis:
            self.take(other.lo[::-1], other.hi[::-1])
        else:
            super().merge(other)


@calibrator("merge_exact", Trait.MERGEABLE)
class MergeReversesLastChannels(MergeReversesChannels):
    """merge() reverses the channels where the last axis holds them."""

    axis = -1


@calibrator("many_values", Trait.MERGEABLE)
class CountsInInt32(Extremes):
    """The number of values wraps at 2**31, and a share of it is negative."""

    n = np.int32(0)

    def observe(self, x):
        super().observe(x)
        self.n += np.int32(x.numel())

    def merge(self, other):
        super().merge(other)
        with np.errstate(over="ignore"):
            self.n += other.n

    def bounds(self, scheme):
        return (self.lo, self.hi) if self.n > 0 else (self.lo / 2, self.hi / 2)


@calibrator("merge_refused", Trait.ORDER_DEPENDENT)
class MergeTakesOver(MovingAverage):
    """Does not declare MERGEABLE, but does something silently."""

    def merge(self, other):
        self.lo, self.hi = other.lo, other.hi


@calibrator("merge_refused", Trait.ORDER_DEPENDENT)
class RefusesHalfwayIntoMerge(MovingAverage):
    """merge() raises, after a new calibrator has made room for the state of the other."""

    def merge(self, other):
        if self.lo is None and other.lo is not None:
            self.lo, self.hi = np.zeros_like(other.lo), np.zeros_like(other.hi)
        super().merge(other)


@calibrator("channel_count", Trait.MERGEABLE)
class MergeStartsOver(Extremes):
    """Merged with another number of channels, it forgets its own."""

    def merge(self, other):
        if self.lo is not None and other.lo is not None and self.lo.shape != other.lo.shape:
            self.reset()
        super().merge(other)


@calibrator("channel_count")
class MergeWipes(Extremes):
    """Merged with another number of channels, it raises, and has lost everything."""

    def merge(self, other):
        try:
            super().merge(other)
        except CalibrationError:
            self.reset()
            raise


# Channels and layout.


@calibrator("per_channel", Trait.MERGEABLE)
class ChannelsMixedLater(Extremes):
    """From the second batch on, (N, C, ...) is reshaped to (C, -1) without moving the channel axis to the front."""

    def rows(self, x):
        rows = super().rows(x)
        if self.lo is None or self.lo.size != len(rows):
            return rows
        return x.detach().double().cpu().numpy().reshape(len(rows), -1)


@calibrator("per_channel", Trait.MERGEABLE)
class WrongAxis(Extremes):
    """Counts axes from the end."""

    def rows(self, x):
        axis = self.channel_axis
        return super().rows(x if axis is None else x.transpose(axis, -1 - axis if axis >= 0 else 0))


@calibrator("per_channel", Trait.MERGEABLE)
class WrongThirdAxis(Extremes):
    """The channels of the third axis are reversed, counted from the front or from the end."""

    axis = 2

    def rows(self, x):
        return super().rows(x.flip(self.axis) if self.channel_axis == self.axis else x)


@calibrator("per_channel", Trait.MERGEABLE)
class WrongLastButOne(WrongThirdAxis):
    """The channels of the last axis but one are reversed."""

    axis = -2


class PerChannel(Extremes):
    """Another range per channel."""

    def bounds(self, scheme):
        return super().bounds(scheme) if self.channel_axis is None else self.wrong(scheme)


@calibrator("per_channel", Trait.MERGEABLE)
class ChannelsAt16Bits(PerChannel):
    """Per channel, half of the range at 16 bits."""

    def wrong(self, scheme):
        share = 0.5 if scheme.bits == 16 else 1.0
        return self.lo * share, self.hi * share


@calibrator("per_channel", Trait.MERGEABLE)
class ChannelsUnsigned(PerChannel):
    """Per channel, half of the range for unsigned integers."""

    def wrong(self, scheme):
        share = 1.0 if scheme.signed else 0.5
        return self.lo * share, self.hi * share


@calibrator("per_channel", Trait.MERGEABLE)
class OneSidedBesideTwoSided(Extremes):
    """All channels are searched as if they were two-sided, as soon as one of them is."""

    def bounds(self, scheme):
        share = 0.875 if ((self.lo < 0) & (self.hi > 0)).any() else 1.0
        return self.lo * share, self.hi * share


@calibrator("per_channel", Trait.MERGEABLE)
class NegativeChannel(PerChannel):
    """A channel without positive values ends at the largest of them."""

    def wrong(self, scheme):
        return np.where(self.lo < 0, np.where(self.hi < 0, self.hi, self.lo), self.lo), self.hi


@calibrator("per_channel", Trait.MERGEABLE)
class PositiveChannel(PerChannel):
    """A channel without negative values ends at the smallest of them."""

    def wrong(self, scheme):
        return self.lo, np.where(self.lo > 0, self.lo, self.hi)


@calibrator("per_channel", Trait.MERGEABLE)
class BlocksOf32(PerChannel):
    """Works on 32 channels at a time, and takes the largest of the first block for the others."""

    def wrong(self, scheme):
        lo, hi = self.lo.copy(), self.hi.copy()
        lo[32:], hi[32:] = lo[:32].min(), hi[:32].max()
        return lo, hi


@calibrator("per_channel", Trait.MERGEABLE)
class FiveBatchesPerChannel(Extremes):
    """Per channel only the first five batches count."""

    seen = 0

    def observe(self, x):
        rows = self.rows(x)
        if self.channel_axis is None or self.seen < 5 or len(rows) != len(self.lo):
            super().observe(x)
        self.seen += 1

    def reset(self):
        super().reset()
        self.seen = 0


@calibrator("channel_count", Trait.MERGEABLE)
class AnyChannelCount(Extremes):
    """One channel is broadcast to all."""

    def take(self, lo, hi):
        if self.lo is None:
            self.lo, self.hi = lo, hi
        else:
            self.lo, self.hi = self.combine(lo, hi)


@calibrator("layout", Trait.MERGEABLE)
class NeedsContiguous(Extremes):
    """Uses view(), which some layouts do not allow."""

    def rows(self, x):
        x.view(-1)
        return super().rows(x)


@calibrator("layout", Trait.MERGEABLE)
class ReadsStorage(Extremes):
    """Reads the memory behind a batch, gaps included."""

    def rows(self, x):
        rows = super().rows(x)
        if self.channel_axis is not None:
            return rows
        return x.detach().as_strided((x.untyped_storage().size() // x.element_size(),), (1,), 0).double().numpy()[None]


@calibrator("dtype", Trait.MERGEABLE)
class HalfArithmetic(Extremes):
    """Computes in the dtype of the batch: 2048 times a value leaves float16 at 32."""

    def rows(self, x):
        rows = super().rows(x)
        return np.clip(rows, -32, 32) if x.dtype == torch.float16 else rows


# The life of a calibrator.


@calibrator("protocol", Trait.MERGEABLE)
class SharedState(Extremes):
    """All instances share one state, which reset() cannot undo for the others."""

    state = {}  # noqa: RUF012  (that is the fault)

    lo = property(lambda self: self.state.get("lo"), lambda self, value: self.state.update(lo=value))
    hi = property(lambda self: self.state.get("hi"), lambda self, value: self.state.update(hi=value))

    def __init__(self, *, channel_axis=None):
        self.channel_axis = channel_axis


@calibrator("not_calibrated", Trait.MERGEABLE)
class DefaultRange(Extremes):
    """Without data: 0 to 1."""

    def compute_range(self, scheme):
        return ClipRange(0.0, 1.0) if self.lo is None else super().compute_range(scheme)


@calibrator("input_unchanged", Trait.MERGEABLE)
class ClampsInPlace(Extremes):
    """Clips the batch itself; the layers that follow see it."""

    def observe(self, x):
        if x.is_floating_point() and not x.requires_grad:
            x.clamp_(-3.0, 3.0)
        super().observe(x)


@calibrator("input_unchanged", Trait.MERGEABLE)
class KeepsAView(Extremes):
    """Takes the batch into account when the range is asked for, whatever it holds by then."""

    view = None

    def observe(self, x):
        super().observe(x)
        self.view = x.detach()

    def bounds(self, scheme):
        rows = self.rows(self.view)
        return np.minimum(self.lo, rows.min(1)), np.maximum(self.hi, rows.max(1))


@calibrator("reset", Trait.MERGEABLE)
class ResetForgetsNothing(Extremes):
    """reset() does nothing."""

    def reset(self):
        pass


@calibrator("round_trip", Trait.MERGEABLE)
class KeepsALambda(Extremes):
    """Cannot be pickled, hence not be sent to a worker."""

    def __init__(self, *, channel_axis=None):
        super().__init__(channel_axis=channel_axis)
        self.combine = lambda lo, hi: (np.minimum(self.lo, lo), np.maximum(self.hi, hi))


@calibrator("bad_input", Trait.MERGEABLE)
class SkipsNaN(Extremes):
    """NaN is passed over without a word."""

    def rows(self, x):
        return super().rows(torch.where(torch.isnan(x), 0.0, x) if x.is_floating_point() else x)


@calibrator("bad_input", Trait.MERGEABLE)
class RefusesTooLate(Extremes):
    """Raises for infinity, after the batch has been counted."""

    def observe(self, x):
        if x.is_floating_point() and x.numel() and not torch.isnan(x).any() and torch.isinf(x).any():
            super().observe(torch.nan_to_num(x))
        super().observe(x)


@calibrator("keeps_no_graph", Trait.MERGEABLE)
class KeepsGraph(Extremes):
    """Remembers the last batch, and all that autograd needs to go back from it."""

    def observe(self, x):
        super().observe(x)
        self.last = x

    def __getstate__(self):
        return {key: value for key, value in vars(self).items() if key != "last"}


@calibrator("keeps_no_graph", Trait.MERGEABLE)
class RefusesLeaves(Extremes):
    """Refuses a weight that is being trained."""

    def observe(self, x):
        if x.requires_grad and x.is_leaf:
            raise CalibrationError("no parameters")
        super().observe(x)


@calibrator("keeps_no_graph", Trait.MERGEABLE)
class FreezesLeaves(Extremes):
    """A weight that is being trained will not be trained any more."""

    def observe(self, x):
        super().observe(x)
        x.detach_()


@calibrator("bounded_memory", Trait.MERGEABLE)
class KeepsBatches(Extremes):
    """A copy of everything."""

    def observe(self, x):
        super().observe(x)
        self.batches = (*getattr(self, "batches", ()), x.detach().numpy().copy())


@calibrator("bounded_memory", Trait.MERGEABLE)
class KeepsAListOfExtremes(Extremes):
    """Two numbers for each batch: little, and without an end."""

    def take(self, lo, hi):
        super().take(lo, hi)
        self.history = (*getattr(self, "history", ()), float(lo[0]), float(hi[0]))


@calibrator("global_state", Trait.MERGEABLE)
class SeedsGlobally(Extremes):
    """Makes itself deterministic at the cost of everybody else."""

    def observe(self, x):
        torch.manual_seed(0)
        super().observe(x)


@calibrator("deterministic")
class RandomSubset(Extremes):
    """Looks at a random half of the values."""

    def rows(self, x):
        rows = super().rows(x)
        return rows[:, [random.random() < 0.5 or i == 0 for i in range(rows.shape[1])]]


@calibrator("repeatable_range", Trait.MERGEABLE)
class FirstAnswerKept(Extremes):
    """The range is computed once, and later data are ignored."""

    answer = None

    def compute_range(self, scheme):
        self.answer = self.answer or super().compute_range(scheme)
        return self.answer


# The range itself.


@calibrator("valid_range", Trait.MERGEABLE)
class ZeroLeftOut(Extremes):
    """All data negative: the range ends below zero."""

    def compute_range(self, scheme):
        super().compute_range(scheme)
        lo, hi = self.bounds(scheme)
        return ClipRange(lo[0], hi[0]) if self.channel_axis is None else ClipRange(lo, hi)


@calibrator("degenerate_data", Trait.MERGEABLE)
class DividesBySpread(Extremes):
    """Standardizes first; a constant has no spread."""

    def bounds(self, scheme):
        with np.errstate(invalid="ignore"):
            return self.lo / (self.hi - self.lo) * (self.hi - self.lo), self.hi


@calibrator("extreme_magnitudes", Trait.MERGEABLE)
class SquaresInFloat32(Extremes):
    """The root of a square, in float32: large values overflow, small ones vanish."""

    def bounds(self, scheme):
        with np.errstate(over="ignore", under="ignore"):
            hi = np.sqrt(np.square(np.maximum(self.hi, 0).astype(np.float32)))
        return self.lo, hi.astype(np.float64)


@calibrator("within_data", Trait.MERGEABLE)
class Symmetrised(Extremes):
    """Makes the range symmetric, which is the scheme's business."""

    def bounds(self, scheme):
        reach = np.maximum(-self.lo, self.hi)
        return -reach, reach


@calibrator("within_data", Trait.MERGEABLE)
class UndeclaredExcess(Balanced):
    """Reaches beyond the data without MAY_EXCEED_DATA."""


@calibrator("exceeds_data", Trait.MERGEABLE, Trait.MAY_EXCEED_DATA)
class NeverClips(Balanced):
    """Minimum and maximum the wrong way round: the range of mean and deviation can only widen that of the data."""

    def bounds(self, scheme):
        lo, hi = super().bounds(scheme)
        return np.minimum(lo, self.lo), np.maximum(hi, self.hi)


@calibrator("exceeds_data", Trait.MERGEABLE, Trait.MAY_EXCEED_DATA)
class ClaimsExcess(Extremes):
    """Says that it may exceed the data, and never does."""


@calibrator("useful", Trait.MERGEABLE)
class SmallestThreshold(Extremes):
    """An error of 0 for a range inside one bin: the search always takes the smallest threshold."""

    def bounds(self, scheme):
        return self.lo / 2048, self.hi / 2048


@calibrator("useful", Trait.MERGEABLE)
class FirstCandidate(Extremes):
    """A shifted argument makes all candidates equally bad: the search takes the first, an eighth."""

    def bounds(self, scheme):
        return self.lo / 8 if scheme.bits > 4 else self.lo / 64, self.hi / 8 if scheme.bits > 4 else self.hi / 64


@calibrator("any_bits", Trait.MERGEABLE)
class LevelsOfADtype(Extremes):
    """Takes 256 levels for granted, whatever the scheme says."""

    def bounds(self, scheme):
        share = min(1.0, (scheme.qmax - scheme.qmin + 1) / 256) ** 2 if scheme.bits < 4 else 1.0
        return self.lo * share, self.hi * share


@calibrator("any_bits", Trait.MERGEABLE)
class WrongAtOddFormats(Extremes):
    """A table of shares, with a slip for the formats that nobody tries."""

    def bounds(self, scheme):
        share = 1 / 64 if scheme.bits in {3, 5, 6, 7, 12} else 1.0
        return self.lo * share, self.hi * share


# Scale.


@calibrator("scale_by_powers_of_two", Trait.MERGEABLE)
class AbsoluteEpsilon(Extremes):
    """A smallest width, in absolute units. It is too small to be seen in ordinary data."""

    def bounds(self, scheme):
        return self.lo, np.where(self.hi > 0, np.minimum(np.maximum(self.hi, 1e-12), 1e30), self.hi)


@calibrator("scale_by_powers_of_two", Trait.MERGEABLE)
class FixedGrid(Extremes):
    """Histogram edges at multiples of 1/64, whatever the data."""

    def bounds(self, scheme):
        return np.trunc(self.lo * 64) / 64, np.where(self.hi < 1, self.hi, np.trunc(self.hi * 64) / 64)


@calibrator("scale_by_any_factor", Trait.MERGEABLE)
class UndeclaredGrid(Extremes):
    """Cut to a power of two, without a word."""

    def bounds(self, scheme):
        _, exponent = np.frexp(self.hi)
        return self.lo, np.where(self.hi > 0, np.ldexp(0.5, exponent), self.hi)


@calibrator("scale_by_any_factor", Trait.MERGEABLE, Trait.APPROXIMATE)
class CoarseGrid(UndeclaredGrid):
    """Approximate, but so coarse that 0.1 dB do not suffice."""


@calibrator("approximation", Trait.MERGEABLE, Trait.APPROXIMATE)
class ClaimsApproximation(Extremes):
    """Says that it is approximate, and is exact."""
