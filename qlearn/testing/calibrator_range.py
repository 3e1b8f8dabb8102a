"""Checks of the range itself: valid, finite, of the right size, and of use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from qlearn.calibrators.spec import Trait
from qlearn.numbers.affine import fake_quantize
from qlearn.numbers.qparams import ClipRange
from qlearn.testing.checks import Check, Finding, collect, expect, raised
from qlearn.testing.data import (
    AFFINE4,
    AFFINE8,
    EVERY_SCHEME,
    MORE_SCHEMES,
    SYMMETRIC4,
    Sample,
    bulk,
    channels,
    degenerate,
    sample,
    samples,
    uniform,
)
from qlearn.testing.probe import range_after, range_for, text

if TYPE_CHECKING:
    from qlearn.schemes.base import Scheme
    from qlearn.testing.probe import Maker, Traits

CHECKS: list[Check] = []


@collect(CHECKS, remedy="End compute_range() with ClipRange.including_zero(lo, hi), bounds of shape () or (C,).")
def check_valid_range(make: Maker, traits: Traits) -> None:
    """The range is a finite ClipRange with lo <= 0 <= hi and lo < hi, for every kind of scheme."""
    for s in samples():
        _expect_valid(range_for(make, s), s, ())
    for scheme in MORE_SCHEMES:
        s = Sample("normal", sample("normal").values, scheme)
        _expect_valid(range_for(make, s), s, ())
    for scheme in (AFFINE4, SYMMETRIC4):
        s = Sample("normal, channel_axis=1,", channels(8, 5, 8, axis=1), scheme)
        _expect_valid(range_for(make, s, channel_axis=1), s, (5,))


def _expect_valid(r: ClipRange, s: Sample, shape: tuple[int, ...]) -> None:
    """Look at everything that ClipRange itself should have made sure of, and at the width."""
    expect(r.lo.shape == r.hi.shape == shape, s, f"bounds of shape {r.lo.shape} and {r.hi.shape}, not {shape}")
    expect(np.isfinite(r.lo).all() and np.isfinite(r.hi).all(), s, f"{r}, not finite")
    expect((r.lo <= 0).all() and (r.hi >= 0).all(), s, f"{r} without zero")
    nothing = np.asarray(s.values.numel() == 0 or not s.values.any())
    if shape:
        nothing = ~s.values.any(dim=0).any(dim=1).numpy()
    expect(((r.lo < r.hi) | nothing).all(), s, f"{r}: nothing would be left but zero")
    try:
        s.scheme.qparams(r)
    except Exception as error:
        raise Finding(s, raised(error, f"the scheme, given {r},")) from error


@collect(CHECKS, remedy="Treat a spread of zero on its own: divide by nothing that data can make 0. Zeros give [0, 0].")
def check_degenerate_data(make: Maker, traits: Traits) -> None:
    """Constants, zeros, one element, data of one sign: a valid range, and [0, 0] for nothing but zeros."""
    for s in degenerate():
        r = range_for(make, s)
        if s.values.any():
            _expect_valid(r, s, ())
        else:
            expect(r == ClipRange(0.0, 0.0), s, f"{text(r, r)}; wanted: [0.0, 0.0], the scheme takes a step of 1 then")
    s = Sample("zeros but for the first of three channels", torch.tensor([[1.0, 0.0, 0.0]] * 4), AFFINE8)
    r = range_for(make, s, channel_axis=1)
    expect(r.lo.shape == (3,) and r.lo[0] < r.hi[0], s, r)
    expect(not r.lo[1:].any() and not r.hi[1:].any(), s, f"{r}; wanted: [0, 0] for the other channels")


@collect(CHECKS, remedy="Sum in float64, scale before you square, and add no constant such as 1e-8 to a width.")
def check_extreme_magnitudes(make: Maker, traits: Traits) -> None:
    """Data of size 1e-38 and of size 1e38 give a finite range that is not empty, and that a scheme can use."""
    for size in (1e-38, 1e-30, 1e30, 3e38):
        for scheme in (AFFINE8, SYMMETRIC4):
            s = Sample(f"uniform, size {size:g},", uniform(300) * size, scheme)
            r = range_for(make, s)
            _expect_valid(r, s, ())
            expect(r.hi - r.lo <= 100.0 * size, s, f"{r}, more than 50 times as wide as the data")


@collect(
    CHECKS,
    remedy="Cut the range to the smallest and the largest value seen, or declare MAY_EXCEED_DATA. "
    "To make it symmetric is the scheme's business.",
    unless=Trait.MAY_EXCEED_DATA,
)
def check_within_data(make: Maker, traits: Traits) -> None:
    """The range lies within the data and zero."""
    for s in (*samples(), *degenerate()):
        r, hull = range_for(make, s), _hull(s.values)
        expect(hull.lo <= r.lo and r.hi <= hull.hi, s, f"{text(r, r)}; the data and zero: {text(hull, hull)}")
    x = channels(8, 5, 8, axis=1)
    s = Sample("normal, channel_axis=1,", x, AFFINE4)
    r = range_for(make, s, channel_axis=1)
    rows = x.movedim(1, 0).flatten(1).double()
    expect((r.lo >= rows.amin(1).clamp(max=0).numpy()).all(), s, f"{r}, below a channel's smallest value")
    expect((r.hi <= rows.amax(1).clamp(min=0).numpy()).all(), s, f"{r}, above a channel's largest value")


@collect(
    CHECKS,
    remedy="If it never exceeds the data, do not declare MAY_EXCEED_DATA. "
    "If it never clips, look for a minimum and a maximum the wrong way round: plain minmax would be better.",
    needs=Trait.MAY_EXCEED_DATA,
    once=True,
)
def check_exceeds_data(make: Maker, traits: Traits) -> None:
    """MAY_EXCEED_DATA: on some data the range reaches beyond the values, and on some it clips."""
    seen = (*samples(), bulk())
    pairs = [(range_for(make, s), _hull(s.values)) for s in seen]
    names = ", ".join(s.name for s in seen)
    exceeds = any(r.lo < hull.lo or r.hi > hull.hi for r, hull in pairs)
    clips = any(r.lo > hull.lo or r.hi < hull.hi for r, hull in pairs)
    expect(exceeds, f"data of {len(seen)} kinds ({names})", "no range beyond the data")
    expect(clips, f"data of {len(seen)} kinds ({names})", "no range that clips: it only ever widens")


@collect(
    CHECKS,
    remedy="Draw the noise over the candidate ranges: look for a sign error, a swapped comparison, "
    "and the wrong end of the list.",
)
def check_useful(make: Maker, traits: Traits) -> None:
    """On 100 000 normal values and one at 20 sigma, at 4 bits, the noise is not above that of minmax."""
    s = bulk()
    for scheme in (AFFINE4, SYMMETRIC4):
        r = range_after(make, [s.values], scheme, s)
        got, minmax = _noise(s.values, r, scheme), _noise(s.values, _hull(s.values), scheme)
        given = Sample(s.name, s.values, scheme)
        expect(got <= minmax * (1 + 1e-9), given, f"{text(r, r)}, mean squared error {got:.6g}; minmax: {minmax:.6g}")


@collect(CHECKS, remedy="Take the number of levels from scheme.qmin and scheme.qmax, never from a dtype.")
def check_any_bits(make: Maker, traits: Traits) -> None:
    """From 2 to 16 bits the range that is computed for a scheme leaves some signal: a tenth of its power at least."""
    s = sample("normal")
    for scheme in EVERY_SCHEME:
        given = Sample(s.name, s.values, scheme)
        r = range_after(make, [s.values], scheme, given)
        noise, power = _noise(s.values, r, scheme), float(s.values.double().square().mean())
        expect(noise <= 0.9 * power, given, f"{text(r, r)}, mean squared error {noise:.6g}; all zero: {power:.6g}")


def _hull(values: torch.Tensor) -> ClipRange:
    return ClipRange.including_zero(float(values.min()), float(values.max()))


def _noise(values: torch.Tensor, r: ClipRange, scheme: Scheme) -> float:
    """Mean squared error of fake quantization, in float64."""
    error = fake_quantize(values, scheme.qparams(r)).double() - values.double()
    return float(error.square().mean())
