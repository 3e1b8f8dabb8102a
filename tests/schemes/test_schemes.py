"""Every scheme against exact rational arithmetic, over formats and ranges, degenerate ones included."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlearn.errors import NumbersError
from qlearn.numbers.affine import fake_quantize
from qlearn.numbers.qparams import LARGEST_SCALE, SMALLEST_SCALE, ClipRange
from qlearn.schemes.affine import AffineScheme
from qlearn.schemes.base import Scheme
from qlearn.schemes.symmetric import SymmetricScheme

bounds = st.tuples(st.floats(-1e30, 0), st.floats(0, 1e30))
bit_widths = st.integers(2, 16)


@given(bounds, bit_widths, st.booleans())
def test_affine_follows_equations_3_and_4(bound, bits, signed):
    scheme, (lo, hi) = AffineScheme(bits=bits, signed=signed), bound
    qp = scheme.qparams(ClipRange(lo, hi))
    exact = (Fraction(hi) - Fraction(lo)) / (scheme.qmax - scheme.qmin)
    if exact == 0:
        assert qp.scale == 1.0
    elif exact > Fraction(SMALLEST_SCALE):
        assert abs(Fraction(float(qp.scale)) - exact) <= exact * Fraction(1, 2**23)
        # the real range is covered, up to the rounding of the zero point to an integer
        assert float(qp.range.lo) - lo <= float(qp.scale) * 0.51
        assert hi - float(qp.range.hi) <= float(qp.scale) * 0.51
    assert scheme.qmin <= qp.zero_point <= scheme.qmax
    assert (qp.qmin, qp.qmax) == (scheme.qmin, scheme.qmax)


@given(bounds, bit_widths, st.booleans())
def test_symmetric_has_zero_point_zero_and_covers_both_sides(bound, bits, restricted):
    scheme, (lo, hi) = SymmetricScheme(bits=bits, restricted=restricted), bound
    qp = scheme.qparams(ClipRange(lo, hi))
    assert qp.zero_point == 0
    absmax = max(-lo, hi)
    if absmax == 0:
        assert qp.scale == 1.0
        return
    half_range = Fraction(scheme.qmax - scheme.qmin, 2)
    if absmax / float(half_range) > SMALLEST_SCALE:
        assert abs(Fraction(float(qp.scale)) * half_range / Fraction(absmax) - 1) <= Fraction(1, 2**23)


def test_the_three_conventions_differ_as_the_docstring_says():
    r = ClipRange(-1.0, 1.0)
    assert SymmetricScheme().qparams(r).scale == np.float32(1 / 127.5)
    assert SymmetricScheme(restricted=True).qparams(r).scale == np.float32(1 / 127)
    assert (SymmetricScheme().qmin, SymmetricScheme(restricted=True).qmin) == (-128, -127)


@given(bounds, bit_widths)
def test_unsigned_affine_is_signed_affine_shifted(bound, bits):
    signed, unsigned = (AffineScheme(bits=bits, signed=s).qparams(ClipRange(*bound)) for s in (True, False))
    assert signed.scale == unsigned.scale
    shift = unsigned.zero_point - signed.zero_point
    assert abs(int(shift) - 2 ** (bits - 1)) <= 1  # a tie of the zero point may fall to either side


@pytest.mark.parametrize("scheme", [AffineScheme(bits=4), SymmetricScheme(bits=4), SymmetricScheme(4, restricted=True)])
def test_per_channel_is_a_loop_over_channels(scheme):
    lo, hi = np.array([-1.0, 0.0, -5.0, 0.0]), np.array([2.0, 3.0, 0.0, 0.0])
    qp = scheme.qparams(ClipRange(lo, hi), axis=2)
    assert qp.axis == 2
    for c in range(4):
        single = scheme.qparams(ClipRange(lo[c], hi[c]))
        assert (qp.scale[c], qp.zero_point[c]) == (single.scale, single.zero_point)


@pytest.mark.parametrize("bits", [1, 17, 0, -3, 8.0, "8", True, None])
def test_bits_out_of_range_are_refused(bits):
    for make in (AffineScheme, SymmetricScheme):
        with pytest.raises(NumbersError, match="bits must be an integer from 2 to 16"):
            make(bits=bits)


@pytest.mark.parametrize("make", [AffineScheme, SymmetricScheme])
def test_parameters_of_other_kinds_are_refused_or_become_plain(make):
    for bits in (np.int8(8), torch.tensor(8)):
        scheme = make(bits=bits)
        assert type(scheme.bits) is int
        assert scheme == make(bits=8)
    for bits in (True, 8.0, "8", None):
        with pytest.raises(NumbersError, match="bits must be an integer"):
            make(bits=bits)
    for signed in ("no", None, 2):
        with pytest.raises(NumbersError, match="signed must be True or False"):
            make(signed=signed)


@pytest.mark.parametrize("make", [AffineScheme, SymmetricScheme])
def test_ranges_beyond_float32_take_the_largest_scale(make):
    qp = make().qparams(ClipRange(-1.7e308, 1.7e308))
    assert float(qp.scale) == LARGEST_SCALE


def test_unsigned_symmetric_knows_its_limits():
    assert SymmetricScheme(signed=False).qparams(ClipRange(0.0, 5.1)).scale == np.float32(5.1 / 255)
    with pytest.raises(NumbersError, match="no integers below zero"):
        SymmetricScheme(signed=False).qparams(ClipRange(-0.1, 5.1))
    with pytest.raises(NumbersError, match="most negative"):
        SymmetricScheme(signed=False, restricted=True)


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-30, 1e30, 3e38])
def test_extreme_ranges_give_finite_usable_parameters(size):
    for scheme in (AffineScheme(), SymmetricScheme(), SymmetricScheme(restricted=True), AffineScheme(bits=16)):
        qp = scheme.qparams(ClipRange(-size, size))
        x = torch.tensor([-size, 0.0, size])
        y = fake_quantize(x, qp)
        assert torch.isfinite(y).all()
        assert (y - x).abs().max() <= float(qp.scale) / 2 + size * 1e-6


def test_schemes_satisfy_the_protocol():
    assert isinstance(AffineScheme(), Scheme)
    assert isinstance(SymmetricScheme(), Scheme)
