"""Checks of what may not matter to a calibrator: split, order and scale of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qlearn.calibrators.spec import Trait
from qlearn.numbers.qparams import ClipRange
from qlearn.testing.checks import Check, Finding, collect
from qlearn.testing.data import AFFINE4, SYMMETRIC8, Sample, bulk, channels, pieces, sample
from qlearn.testing.probe import (
    close,
    expect_close,
    expect_equal,
    expect_same_noise,
    range_after,
    range_for,
)

if TYPE_CHECKING:
    from qlearn.testing.probe import Maker, Traits

CHECKS: list[Check] = []


@collect(
    CHECKS,
    remedy="Keep counts or extremes of everything seen; floating point sums depend on the split. "
    "If the split is meant to matter, declare ORDER_DEPENDENT.",
    unless=Trait.ORDER_DEPENDENT,
)
def check_split_invariance(make: Maker, traits: Traits) -> None:
    """The range is the same, bit for bit, however the data are split into batches."""
    for name in ("normal", "outlier", "skewed"):
        s = sample(name)
        whole = range_for(make, s)
        for parts in (2, 3, 64):
            got = range_after(make, pieces(s.values, parts), s.scheme, s)
            expect_equal(got, whole, f"{s}, in {parts} batches", "in one batch")
    s = Sample("normal, channel_axis=1,", channels(32, 3, 4, axis=1), SYMMETRIC8)
    got = range_after(make, pieces(s.values, 5), s.scheme, s, channel_axis=1)
    expect_equal(got, range_for(make, s, channel_axis=1), f"{s}, in 5 batches", "in one batch")


@collect(
    CHECKS,
    remedy="Let no batch set a grid or a limit for those that follow. "
    "If the order is meant to matter, declare ORDER_DEPENDENT.",
    unless=Trait.ORDER_DEPENDENT,
)
def check_permutation_invariance(make: Maker, traits: Traits) -> None:
    """The range is the same, bit for bit, in whatever order the values come, within batches and across them."""
    for name in ("normal", "outlier", "skewed"):
        s = sample(name)
        expected = range_after(make, pieces(s.values, 8), s.scheme, s)
        shuffle = torch.randperm(s.values.numel(), generator=torch.Generator().manual_seed(10))
        orders = {"shuffled": s.values[shuffle], "sorted": s.values.sort().values, "reversed": s.values.flip(0)}
        for order, values in orders.items():
            got = range_after(make, pieces(values, 8), s.scheme, s)
            expect_equal(got, expected, f"{s}, in 8 batches, {order}", "as they were")


@collect(
    CHECKS,
    remedy="Do not declare ORDER_DEPENDENT: others will think that the batch size has to be reported.",
    needs=Trait.ORDER_DEPENDENT,
    once=True,
)
def check_order_dependence(make: Maker, traits: Traits) -> None:
    """ORDER_DEPENDENT: some other order or split of the data gives another range."""
    for name in ("outlier", "normal", "skewed"):
        s = sample(name)
        whole = range_for(make, s)
        for values in (s.values, s.values.flip(0), s.values.sort().values):
            if any(range_after(make, pieces(values, n), s.scheme, s) != whole for n in (1, 2, 8)):
                return
    raise Finding("normal, skewed and outlier data in 3 orders and 3 splits", "the same range every time")


@collect(
    CHECKS,
    remedy="Remove absolute constants (1e-8, 1e-12, a first bin width): thresholds are shares of what was seen.",
)
def check_scale_by_powers_of_two(make: Maker, traits: Traits) -> None:
    """Data times a power of two, from 2^-100 to 2^120, give the range times the same, bit for bit."""
    for name, exponents in (("normal", (-100, -20, -1, 1, 20, 100, 120)), ("outlier", (-60, 3)), ("skewed", (-3, 60))):
        s = sample(name)
        plain = range_for(make, s)
        for k in exponents:
            got = range_for(make, s.scaled(2.0**k))
            expect_equal(got, _times(plain, 2.0**k), f"{s}, times 2**{k}", f"2**{k} times its range")
    s = Sample("normal, channel_axis=1,", channels(16, 3, 8, axis=1), SYMMETRIC8)
    got, plain = (range_for(make, x, channel_axis=1) for x in (s.scaled(2.0**-40), s))
    expect_equal(got, _times(plain, 2.0**-40), f"{s}, times 2**-40", "2**-40 times its range")


@collect(
    CHECKS,
    remedy="Remove absolute constants. If a grid causes the difference, make it finer, or declare APPROXIMATE. "
    "If the place of the bins decides between distant ranges, say so: declare SCALE_DEPENDENT.",
    unless=Trait.SCALE_DEPENDENT,
)
def check_scale_by_any_factor(make: Maker, traits: Traits) -> None:
    """Data times c give the range times c, within 1e-6 of its width (APPROXIMATE: 1/256 of it, or 0.1 dB of noise)."""
    for s in (sample("normal"), sample("skewed"), bulk()):
        plain = range_for(make, s)
        for factor in (0.37, 0.7, 1234.5):
            scaled = s.scaled(factor)
            got, wanted = range_for(make, scaled), _times(plain, factor)
            if Trait.APPROXIMATE in traits:
                expect_same_noise(got, wanted, scaled, "the scaled range")
            else:
                expect_close(got, wanted, scaled, f"{factor} times its range")


@collect(
    CHECKS,
    remedy="Do not declare SCALE_DEPENDENT: a range that follows the data is a promise worth making.",
    needs=Trait.SCALE_DEPENDENT,
    once=True,
)
def check_scale_dependence(make: Maker, traits: Traits) -> None:
    """SCALE_DEPENDENT: for some data and some factor, the range does not follow within 1/256 of it or 0.1 dB."""
    for s in (sample("normal"), sample("skewed"), bulk()):
        plain = range_for(make, s)
        for factor in (0.37, 0.7, 1.1, 3.0, 1234.5):
            scaled = s.scaled(factor)
            try:
                expect_same_noise(range_for(make, scaled), _times(plain, factor), scaled, "the scaled range")
            except Finding:
                return
    raise Finding(bulk(), "the range follows the data, whatever the scale")


@collect(
    CHECKS,
    remedy="Do not declare APPROXIMATE: an exact range is a promise worth making.",
    needs=Trait.APPROXIMATE,
    once=True,
)
def check_approximation(make: Maker, traits: Traits) -> None:
    """APPROXIMATE: the resolution can be seen, by scaling the data or by moving all but the extremes a little."""
    s = bulk()
    for scheme in (AFFINE4, SYMMETRIC8):
        plain = range_after(make, [s.values], scheme, s)
        for factor in (0.37, 1.1, 1.7):
            if not close(range_after(make, [s.values * factor], scheme, s), _times(plain, factor)):
                return
        inner = s.values.clone()
        inner[inner.abs() < 1.0] *= 1.0 + 1e-6
        extremes = ClipRange.including_zero(float(s.values.min()), float(s.values.max()))
        if plain != extremes and range_after(make, [inner], scheme, s) == plain:
            return
    raise Finding(s, "the range follows the data exactly, whatever the scale")


def _times(r: ClipRange, factor: float) -> ClipRange:
    return ClipRange(r.lo * factor, r.hi * factor)
