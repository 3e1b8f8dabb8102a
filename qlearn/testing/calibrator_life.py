"""Checks of a calibrator's life: what it keeps, what it forgets, what it leaves alone."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import weakref
from typing import TYPE_CHECKING

import torch

from qlearn.calibrators.spec import Trait
from qlearn.testing.checks import Check, Finding, collect, expect, raised
from qlearn.testing.data import (
    AFFINE4,
    AFFINE8,
    MORE_SCHEMES,
    SIZE,
    SYMMETRIC4,
    SYMMETRIC8,
    channels,
    normal,
    sample,
    samples,
    scheme_for,
    uniform,
)
from qlearn.testing.probe import (
    expect_empty,
    expect_equal,
    feed,
    global_state,
    merge_refusal,
    observed,
    range_after,
    range_of,
    refusal,
    seed_generators,
    stirred_generators,
)

if TYPE_CHECKING:
    from torch import Tensor

    from qlearn.calibrators.spec import Calibrator
    from qlearn.testing.probe import Maker, Traits

CHECKS: list[Check] = []

METHODS = ("observe", "compute_range", "merge", "reset")


@collect(CHECKS, remedy="Keep state in attributes that __init__ sets, never on the class or in a module.")
def check_protocol(make: Maker, traits: Traits) -> None:
    """The factory takes channel_axis and returns, at every call, a calibrator of its own with the four methods."""
    for axis in (None, 0):
        made = make(channel_axis=axis)
        missing = [name for name in METHODS if not callable(getattr(made, name, None))]
        expect(not missing, f"factory(channel_axis={axis})", f"a {type(made).__name__} without {', '.join(missing)}")
    first, second = make(), make()
    expect(first is not second, "two calls of the factory", "the same object")
    feed(first, [normal(100)], "normal data of shape (100,)")
    expect_empty(second, AFFINE8, "a second calibrator, after the first saw data")


@collect(CHECKS, remedy="Raise qlearn.errors.NotCalibratedError; a default range would hide a site that saw no data.")
def check_not_calibrated(make: Maker, traits: Traits) -> None:
    """A range that is asked for before any data is an error, NotCalibratedError."""
    for axis in (None, 1):
        calibrator = make(channel_axis=axis)
        expect_empty(calibrator, AFFINE8, f"channel_axis={axis}, no data")
        expect_empty(calibrator, SYMMETRIC4, f"channel_axis={axis}, no data, asked a second time")


@collect(CHECKS, remedy="Work on what torch functions return; never call a method that ends in _ on x, never keep x.")
def check_input_unchanged(make: Maker, traits: Traits) -> None:
    """observe() leaves its input as it is, and a later change of the input does not change the range."""
    for s in samples():
        x, calibrator = s.values.clone(), make()
        calibrator.observe(x)
        expect(torch.equal(x, s.values), s, f"{int((x != s.values).sum())} of {x.numel()} values changed")
        before = range_of(calibrator, s.scheme, s)
        expect(torch.equal(x, s.values), s, "compute_range() changed the batch")
        x.fill_(7.0)
        expect_equal(range_of(calibrator, s.scheme, s), before, f"{s}, overwritten afterwards", "before")


@collect(CHECKS, remedy="Let reset() do what __init__ does; the number of channels is forgotten too.")
def check_reset(make: Maker, traits: Traits) -> None:
    """After reset() a calibrator is as good as new."""
    wide, small = normal(6, 50, seed=1) * 64.0, normal(4, 50)
    for axis in (None, 0):
        given = f"channel_axis={axis}: data of shape (6, 50), reset(), data of shape (4, 50)"
        calibrator = observed(make, [wide, wide * 2.0], given, channel_axis=axis)
        scheme = scheme_for(axis)
        range_of(calibrator, scheme, given)
        calibrator.reset()
        expect_empty(calibrator, scheme, f"channel_axis={axis}: data, then reset()")
        again = range_of(feed(calibrator, [small], given), scheme, given)
        expect_equal(again, range_after(make, [small], scheme, channel_axis=axis), given, "a new calibrator")


@collect(
    CHECKS, remedy="Define the class at the top of a module, and keep numbers and tensors: no lambda, no open file."
)
def check_round_trip(make: Maker, traits: Traits) -> None:
    """Pickled or deep-copied, before or after data, a calibrator goes on as the original would."""
    first, second = normal(3, 60), normal(3, 60, seed=1) * 4.0
    for axis in (None, 0):
        scheme = scheme_for(axis)
        before = range_after(make, [first], scheme, channel_axis=axis)
        after = range_after(make, [first, second], scheme, channel_axis=axis)
        for way, trip in (("pickle", _pickled), ("deepcopy", copy.deepcopy)):
            given = f"channel_axis={axis}, {way}"
            original = observed(make, [first], given, channel_axis=axis)
            try:
                fresh, copied = trip(make(channel_axis=axis)), trip(original)
            except Exception as error:
                raise Finding(given, raised(error, way)) from error
            expect_empty(fresh, scheme, f"{given} of a new calibrator")
            expect_equal(range_of(copied, scheme, given), before, given, "the original")
            more = range_of(feed(copied, [second], given), scheme, given)
            expect_equal(more, after, f"{given}, more data for the copy", "no copy")
            expect_equal(range_of(original, scheme, given), before, f"{given}: the original afterwards", "before")


def _pickled(calibrator: Calibrator) -> Calibrator:
    copied: Calibrator = pickle.loads(pickle.dumps(calibrator))  # noqa: S301  (what was pickled a moment ago)
    return copied


@collect(
    CHECKS,
    remedy="Look at the whole batch before anything is stored; raise a ValueError such as qlearn's CalibrationError.",
)
def check_bad_input(make: Maker, traits: Traits) -> None:
    """NaN, infinity, an empty batch and integers raise ValueError, and leave the state as it was."""
    good, more = channels(6, 3, 8, axis=1), channels(6, 3, 8, axis=1, seed=8)
    before, after = (range_after(make, batches, SYMMETRIC8, channel_axis=1) for batches in ([good], [good, more]))
    for what, bad in _bad_batches(good):
        fresh = make(channel_axis=1)
        _expect_value_error(refusal(fresh, bad), f"{what}, as the first batch")
        expect_empty(fresh, SYMMETRIC8, f"{what}, as the first batch: afterwards")
        calibrator = observed(make, [good], "good data", channel_axis=1)
        _expect_value_error(refusal(calibrator, bad), f"{what}, after good data")
        expect_equal(range_of(calibrator, SYMMETRIC8, what), before, f"{what}: afterwards", "before")
        got = range_of(feed(calibrator, [more], what), SYMMETRIC8, what)
        expect_equal(got, after, f"{what}, then good data again", "without it")


def _bad_batches(good: Tensor) -> list[tuple[str, Tensor]]:
    """Return what must be refused; the spoilt value is the last one, in the last channel."""
    spoilt = []
    for value in (math.nan, math.inf, -math.inf):
        bad = good * 9.0
        bad[-1, -1, -1] = value
        spoilt.append((f"one {value} in the last channel", bad))
    return [
        *spoilt,
        ("an empty batch of shape (0, 3, 8)", torch.zeros(0, 3, 8)),
        ("a batch of dtype int64", torch.full((6, 3, 8), 99)),
        ("a batch of dtype bool", torch.ones(6, 3, 8, dtype=torch.bool)),
    ]


def _expect_value_error(error: Exception | None, given: str, doing: str = "observe()") -> None:
    if error is None:
        raise Finding(given, f"{doing} raised no error: it was accepted")
    if not isinstance(error, ValueError):
        raise Finding(given, raised(error, doing) + ", no ValueError") from error
    expect(str(error).strip(), given, f"{type(error).__name__} without a message")


@collect(CHECKS, remedy="Compare the number of channels with that of the state before anything is stored.")
def check_channel_count(make: Maker, traits: Traits) -> None:
    """Another number of channels, in observe() or merge(), raises ValueError, and leaves the state as it was."""
    for wrong in (5, 1):
        given = f"3 channels so far, then a batch with {wrong}"
        batch = normal(6, wrong, 8) * 9.0
        calibrator = observed(make, [normal(6, 3, 8)], given, channel_axis=1)
        before = range_of(calibrator, SYMMETRIC8, given)
        _expect_value_error(refusal(calibrator, batch), given)
        expect_equal(range_of(calibrator, SYMMETRIC8, given), before, f"{given}: afterwards", "before")
        given = f"3 channels so far, then one to merge with {wrong}"
        other = observed(make, [batch], given, channel_axis=1)
        kept = range_of(other, SYMMETRIC8, given)
        error = merge_refusal(calibrator, other)
        if error is None or Trait.MERGEABLE in traits:  # without it, merge_refused looks at the error
            _expect_value_error(error, given, "merge()")
        expect_equal(range_of(calibrator, SYMMETRIC8, given), before, f"{given}: afterwards", "before")
        expect_equal(range_of(other, SYMMETRIC8, given), kept, f"{given}: the one to merge, afterwards", "before")


@collect(CHECKS, remedy="Start observe() with x = x.detach(), and store numbers: no tensor that shares memory with x.")
def check_keeps_no_graph(make: Maker, traits: Traits) -> None:
    """Neither the autograd graph of a batch nor its memory is kept."""
    for words in ("a batch without an autograd graph", "a batch with one", "a leaf that requires a gradient"):
        values = normal(SIZE, seed=9).numpy().copy()
        watched = weakref.ref(values)  # lives as long as the memory of the batch
        batch = torch.from_numpy(values)
        wants_grad = words != "a batch without an autograd graph"
        if wants_grad:
            batch.requires_grad_()
        if words == "a batch with one":
            batch = batch * 2.0
        calibrator = make()
        error = refusal(calibrator, batch)
        if error is not None:
            raise Finding(words, raised(error, "observe()")) from error
        range_of(calibrator, AFFINE8, words)
        expect(batch.requires_grad == wants_grad, words, f"requires_grad={batch.requires_grad} afterwards")
        del batch, values
        if watched() is not None:
            gc.collect()
        expect(watched() is None, words, "its memory is still held after the batch is gone")


@collect(CHECKS, remedy="Keep sums, extremes or counts of a fixed size: nothing for each batch.")
def check_bounded_memory(make: Maker, traits: Traits) -> None:
    """The state does not grow with the number of batches: 50 batches take the memory of 10."""
    for axis in (None, 1):
        calibrator, sizes, given = make(channel_axis=axis), [0], f"channel_axis={axis}, batches of shape (64, 4)"
        for number in range(50):
            feed(calibrator, [normal(64, 4, seed=number)], given)
            sizes.append(len(pickle.dumps(calibrator)))
        allowed = 1.25 * sizes[10] + 256
        expect(sizes[50] <= allowed, given, f"pickled {sizes[10]} bytes after 10 batches, {sizes[50]} after 50")


@collect(CHECKS, remedy="Use a torch.Generator or numpy.random.default_rng of your own, and set no global option.")
def check_global_state(make: Maker, traits: Traits) -> None:
    """Random generators, default dtype, grad mode and threads of the process stay as they are."""
    s = sample("outlier")
    with stirred_generators():
        before = global_state()
        calibrator = observed(make, [s.values, s.values], s)
        range_of(calibrator, s.scheme, s)
        calibrator.reset()
        after = global_state()
    changed = [name for name, state in before.items() if after[name] != state]
    expect(not changed, s, f"changed: {', '.join(changed)}")


@collect(CHECKS, remedy="Draw no random numbers, or seed a generator of your own in __init__ and in reset().")
def check_deterministic(make: Maker, traits: Traits) -> None:
    """The same data give the same range, whatever the global random generators are at."""
    for s in (sample("skewed"), sample("outlier")):
        found = []
        with stirred_generators():
            for seed in (0, 1, 2):
                seed_generators(seed)
                found.append(range_after(make, [s.values, s.values.flip(0)], s.scheme, s))
        for other in found[1:]:
            expect_equal(other, found[0], f"{s}, observed by a second calibrator", "the first")


@collect(CHECKS, remedy="Let compute_range() read the state and change nothing, caches for another scheme included.")
def check_repeatable_range(make: Maker, traits: Traits) -> None:
    """compute_range() changes nothing: asked again, for other schemes in between or in mid-stream, it says the same."""
    first, second = normal(512), uniform(512) * 8.0
    calibrator = observed(make, [first], "normal data")
    alone = {scheme: range_after(make, [first], scheme) for scheme in (AFFINE4, SYMMETRIC8)}
    others = (*MORE_SCHEMES[:2], SYMMETRIC8, AFFINE4, AFFINE4, MORE_SCHEMES[3], SYMMETRIC8)
    for number, scheme in enumerate(others):
        answer = range_of(calibrator, scheme, "normal data")
        if scheme in alone:
            given = f"normal data of shape (512,), asked for the {number + 1}th time, {scheme}"
            expect_equal(answer, alone[scheme], given, "asked once")
    later = range_of(feed(calibrator, [second], "uniform data"), AFFINE4, "more data")
    expect_equal(later, range_after(make, [first, second], AFFINE4), "asked between two batches", "asked at the end")
