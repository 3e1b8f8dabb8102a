"""What is special about powers of two; the rules of all schemes are in `test_conformance`."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlearn.errors import NumbersError
from qlearn.numbers.qparams import LARGEST_SCALE, SMALLEST_SCALE, ClipRange
from qlearn.registry import plugins, scheme

ordinary = st.floats(min_value=0.0, max_value=1e30)
any_size = st.floats(min_value=0.0, allow_nan=False, allow_infinity=False)
bits = st.integers(min_value=2, max_value=16)


def is_power_of_two(number):
    fraction = Fraction(float(number))
    return fraction > 0 and all(n & (n - 1) == 0 for n in (fraction.numerator, fraction.denominator))


def test_comes_in_through_the_entry_point():
    (row,) = [row for row in plugins().rows if row.provider == "qlearn-pow2"]
    assert (row.kind, row.name, row.status, row.plugin) == ("scheme", "pow2", "ok", "pow2")


@given(any_size, any_size, bits, st.booleans())
def test_scale_is_a_power_of_two_and_zero_is_exact(below, above, bits, restricted):
    qparams = scheme("pow2", bits=bits, restricted=restricted).qparams(ClipRange(-below, above))
    assert is_power_of_two(qparams.scale)
    assert SMALLEST_SCALE <= qparams.scale <= LARGEST_SCALE
    assert qparams.zero_point == 0


@given(ordinary, ordinary, bits, st.booleans())
def test_nothing_in_the_clip_range_is_lost(below, above, bits, restricted):
    """In exact arithmetic: S * qmin <= lo and hi <= S * qmax."""
    qparams = scheme("pow2", bits=bits, restricted=restricted).qparams(ClipRange(-below, above))
    scale = Fraction(float(qparams.scale))
    assert scale * qparams.qmin <= -Fraction(below)
    assert Fraction(above) <= scale * qparams.qmax


@given(ordinary, ordinary, bits, st.booleans())
def test_no_smaller_power_of_two_would_do(below, above, bits, restricted):
    qparams = scheme("pow2", bits=bits, restricted=restricted).qparams(ClipRange(-below, above))
    half = Fraction(float(qparams.scale)) / 2
    fits = half * qparams.qmin <= -Fraction(below) and Fraction(above) <= half * qparams.qmax
    smallest_possible = qparams.scale == np.float32(SMALLEST_SCALE)
    assert smallest_possible or below == above == 0 or not fits


@given(st.floats(min_value=1e-3, max_value=1e3), st.integers(min_value=-20, max_value=20))
def test_scaling_the_range_by_a_power_of_two_scales_s(above, shift):
    plain = scheme("pow2").qparams(ClipRange(-above, above))
    scaled = scheme("pow2").qparams(ClipRange(-above * 2.0**shift, above * 2.0**shift))
    assert scaled.scale == plain.scale * 2.0**shift


@given(*[st.floats(min_value=1e-6, max_value=1e6)] * 3)
def test_multiplier_of_three_scales_is_an_exact_power_of_two(x, w, out):
    pow2 = scheme("pow2")
    s_x, s_w, s_out = (float(pow2.qparams(ClipRange(-a, a)).scale) for a in (x, w, out))
    multiplier = s_x * s_w / s_out
    assert is_power_of_two(multiplier)
    assert Fraction(multiplier) == Fraction(s_x) * Fraction(s_w) / Fraction(s_out)


@pytest.mark.parametrize("bits", [2, 8, 16])
@pytest.mark.parametrize("signed", [True, False])
def test_a_hair_beyond_a_power_of_two_takes_the_next(bits, signed):
    pow2 = scheme("pow2", bits=bits, signed=signed)
    exact = 0.25 * pow2.qmax
    assert pow2.qparams(ClipRange(0.0, exact)).scale == 0.25
    assert pow2.qparams(ClipRange(0.0, np.nextafter(exact, np.inf))).scale == 0.5


@pytest.mark.parametrize(
    ("clip_range", "scale"),
    [
        (ClipRange(0.0, 0.0), 1.0),
        (ClipRange(0.0, 5e-324), 2.0**-126),
        (ClipRange(-5e-324, 0.0), 2.0**-126),
        (ClipRange(-1e308, 1e308), 2.0**127),
        (ClipRange(-1.0, 0.0), 2.0**-7),
        (ClipRange(0.0, 127.0), 1.0),
        (ClipRange(0.0, 127.5), 2.0),
    ],
)
def test_extreme_and_one_sided_ranges(clip_range, scale):
    assert scheme("pow2").qparams(clip_range).scale == scale


def test_unsigned_spans_all_codes_and_refuses_negative_ranges():
    unsigned = scheme("pow2", bits=4, signed=False)
    assert (unsigned.qmin, unsigned.qmax, unsigned.symmetric) == (0, 15, True)
    assert unsigned.qparams(ClipRange(0.0, 15.0)).scale == 1.0
    with pytest.raises(NumbersError, match="no integers below zero"):
        unsigned.qparams(ClipRange(-0.1, 1.0))


def test_wrong_formats_are_refused():
    with pytest.raises(NumbersError, match="unsigned integers have none"):
        scheme("pow2", signed=False, restricted=True)
    with pytest.raises(NumbersError, match="2 to 16"):
        scheme("pow2", bits=1)
