"""Checks of merge(): what it may not change, and what it has to say when it refuses."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from qlearn.calibrators.spec import Trait
from qlearn.errors import QLearnError
from qlearn.testing.checks import Check, Finding, collect, expect, raised
from qlearn.testing.data import SYMMETRIC8, Sample, channels, pieces, sample
from qlearn.testing.probe import (
    expect_empty,
    expect_equal,
    expect_same_noise,
    feed,
    observed,
    range_after,
    range_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from qlearn.calibrators.spec import Calibrator
    from qlearn.testing.probe import Maker, Traits

CHECKS: list[Check] = []


@collect(
    CHECKS,
    remedy="Add counts, take the minimum of minima: what has to be averaged cannot be merged. "
    "Copy what is taken over. Otherwise do not declare MERGEABLE.",
    needs=Trait.MERGEABLE,
)
def check_merge_exact(make: Maker, traits: Traits) -> None:
    """MERGEABLE: merged calibrators say exactly what one says that saw all the data, in any grouping and order."""
    for name in ("outlier", "skewed"):
        s = sample(name)
        _check_merges(make, s, pieces(s.values, 3), traits)
        _check_apart(make, s, pieces(s.values, 3))
    x = channels(30, 5, 4, axis=1)
    for axis in (0, 1, -1):
        s = Sample(f"normal, channel_axis={axis},", x.movedim(1, axis), SYMMETRIC8)
        parts = [part.movedim(1, axis) for part in pieces(x, 3)]
        _check_merges(make, s, parts, traits, channel_axis=axis)
        _check_apart(make, s, parts, channel_axis=axis)


def _check_merges(
    make: Maker, s: Sample, parts: Sequence[Tensor], traits: Traits, channel_axis: int | None = None
) -> None:
    """Merge three calibrators in several ways, a new one among them."""

    def saw(*numbers: int) -> Calibrator:
        return observed(make, [parts[n] for n in numbers], s, channel_axis=channel_axis)

    def merged(into: Calibrator, *others: Calibrator) -> Calibrator:
        for other in others:
            into.merge(other)
        return into

    fresh, last = make(channel_axis=channel_axis), saw(2)
    before = range_of(last, s.scheme, s)
    ways: dict[str, Callable[[], Calibrator]] = {
        "0 + 1 + 2": lambda: merged(saw(0), saw(1), last),
        "0 + (1 + 2)": lambda: merged(saw(0), merged(saw(1), last)),
        "new + 0 + 1 + 2": lambda: merged(make(channel_axis=channel_axis), saw(0), saw(1), last),
        "0 + new + 1, then batch 2": lambda: feed(merged(saw(0), fresh, saw(1)), [parts[2]], s),
    }
    if Trait.ORDER_DEPENDENT not in traits:
        ways |= {
            "2 + 0 + 1": lambda: merged(saw(2), saw(0), saw(1)),
            "(2 + 1) + 0": lambda: merged(merged(saw(2), saw(1)), saw(0)),
        }
    wanted = range_of(saw(0, 1, 2), s.scheme, s)
    for way, result in ways.items():
        expect_equal(range_of(result(), s.scheme, s), wanted, f"{s}, merged as {way}", "one calibrator for all")
    expect_equal(range_of(last, s.scheme, s), before, f"{s}: a calibrator, after others merged it", "before")
    expect_empty(fresh, s.scheme, f"{s}: a new calibrator, after others merged it")


def _check_apart(make: Maker, s: Sample, parts: Sequence[Tensor], channel_axis: int | None = None) -> None:
    """Merge one calibrator into another, let one of the two go on, and look at the other."""
    more = [parts[2] * 8.0]
    for words, seen in (("a new calibrator", []), ("one with data", [parts[0]])):
        into = observed(make, seen, s, channel_axis=channel_axis)
        source = observed(make, [parts[1]], s, channel_axis=channel_axis)
        before = range_of(source, s.scheme, s)
        into.merge(source)
        feed(into, more, s)
        given = f"{s}, merged into {words}, which then saw more"
        expect_equal(range_of(source, s.scheme, s), before, f"{given}: the calibrator merged in", "before")
        both = range_of(into, s.scheme, s)
        feed(source, [more[0] * 2.0], s).reset()
        given = f"{s}, merged into {words}, then the calibrator merged in saw more and was reset"
        expect_equal(range_of(into, s.scheme, s), both, given, "before")


@collect(
    CHECKS,
    remedy="Count in int64; int32 ends at 2**31 values, float32 at 2**24.",
    needs=Trait.MERGEABLE,
    unless=Trait.ORDER_DEPENDENT,
)
def check_many_values(make: Maker, traits: Traits) -> None:
    """MERGEABLE: merged with a copy of itself until it stands for 2^40 values, a calibrator says what it said."""
    for name in ("normal", "outlier"):
        s = sample(name)
        calibrator = observed(make, [s.values], s)
        before = range_of(calibrator, s.scheme, s)
        for _ in range(29):
            calibrator.merge(copy.deepcopy(calibrator))
        expect_same_noise(range_of(calibrator, s.scheme, s), before, s, "the values once")


@collect(
    CHECKS,
    remedy="Raise a CalibrationError that says why not, before anything is stored. "
    "If merging is exact, declare MERGEABLE.",
    unless=Trait.MERGEABLE,
)
def check_merge_refused(make: Maker, traits: Traits) -> None:
    """Without MERGEABLE, merge() raises an error that says why and changes nothing, or it is exact all the same."""
    s = sample("skewed")
    first, second, more = s.values[:500], s.values[500:1500], s.values[1500:]
    other = observed(make, [second], s)
    kept = range_of(other, s.scheme, s)
    for words, seen in (("one with data", [first]), ("a new calibrator", [])):
        into, given = observed(make, seen, s), f"{s}, merged into {words}"
        if _refused(into, other, given):
            given += ", which was refused"
            if seen:
                expect_equal(range_of(into, s.scheme, s), range_after(make, seen, s.scheme, s), given, "before")
            else:
                expect_empty(into, s.scheme, given)
            got, wanted = range_of(feed(into, [more], s), s.scheme, s), range_after(make, [*seen, more], s.scheme, s)
            expect_equal(got, wanted, f"{given}, then more data", "without the refusal")
        else:
            wanted = range_after(make, [*seen, second], s.scheme, s)
            expect_equal(range_of(into, s.scheme, s), wanted, given, "one calibrator for all")
        expect_equal(range_of(other, s.scheme, s), kept, f"{given}: the calibrator merged in", "before")


def _refused(into: Calibrator, other: Calibrator, given: str) -> bool:
    """Merge; return True if that raised an error that was meant."""
    try:
        into.merge(other)
    except (QLearnError, ValueError, TypeError, NotImplementedError) as error:
        expect(str(error).strip(), given, f"merge() raised {type(error).__name__} without a message")
        return True
    except Exception as error:
        raise Finding(given, raised(error, "merge()") + ": not an error that was raised on purpose") from error
    return False
