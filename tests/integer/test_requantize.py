"""The two requantization policies against literal re-tellings in Python integers and exact fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qlearn.errors import KernelError
from qlearn.integer.profiles import POLICIES, profile_named
from qlearn.integer.requantize import fixed_multiplier, multiply_by_fixed
from qlearn.numbers.qparams import QParams

accumulators = st.integers(-(2**31) + 1, 2**31 - 1)
scales = st.floats(2.0**-20, 2.0**4, width=32)


def gemmlowp(value: int, real: float) -> int:
    """MultiplyByQuantizedMultiplier of gemmlowp, told with Python's unbounded integers, one step a line."""
    fraction, exponent = math.frexp(real)
    mantissa = math.floor(fraction * 2**31 + 0.5)
    if mantissa == 2**31:
        mantissa, exponent = mantissa // 2, exponent + 1
    if exponent < -31:
        return 0
    value = max(-(2**31), min(2**31 - 1, value << max(exponent, 0)))
    product = value * mantissa
    nudge = 2**30 if product >= 0 else 1 - 2**30
    high = abs(product + nudge) // 2**31 * (1 if product + nudge >= 0 else -1)  # C++ division truncates
    shift = max(-exponent, 0)
    mask = (1 << shift) - 1
    remainder, threshold = high & mask, (mask >> 1) + (1 if high < 0 else 0)
    return (high >> shift) + (1 if remainder > threshold else 0)


@given(st.lists(accumulators, min_size=1, max_size=20), st.floats(2.0**-35, 2.0**6))
def test_fixed_equals_gemmlowp(values, real):
    ours = multiply_by_fixed(np.array(values), fixed_multiplier(real))
    assert ours.tolist() == [gemmlowp(v, real) for v in values]


@given(st.floats(2.0**-31, 2.0**30))
def test_a_fixed_multiplier_is_the_nearest_with_31_bits(real):
    m = fixed_multiplier(real)
    assert 2**30 <= int(m.mantissa) < 2**31
    value = Fraction(int(m.mantissa)) * Fraction(2) ** (int(m.shift) - 31)
    assert abs(value / Fraction(real) - 1) <= Fraction(1, 2**31)


def test_vanishing_multipliers_become_zero():
    assert int(fixed_multiplier(2.0**-40).mantissa) == 0
    assert multiply_by_fixed(np.int64([2**31 - 1]), fixed_multiplier(2.0**-40)).tolist() == [0]


@given(accumulators, scales, scales, scales)
def test_float32_is_one_float32_multiplication_rounded_half_to_even(acc, s_in, s_w, s_out):
    multiplier = np.float32(np.float32(s_in) * np.float32(s_w)) / np.float32(s_out)
    assume(np.isfinite(multiplier))
    product = Fraction(float(np.float32(np.float32(acc) * multiplier)))
    floor, rest = math.floor(product), product - math.floor(product)
    expected = floor + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and floor % 2 == 1))
    assert POLICIES["float32"].requantize(np.int32([acc]), s_in, s_w, s_out, axis=None).tolist() == [expected]


@given(st.integers(-(2**20), 2**20), st.floats(1e-4, 1.0), st.floats(1e-4, 1.0))
def test_both_policies_round_to_nearest_and_fixed_rounds_twice(acc, s_w, s_out):
    assume(abs(acc) * s_w * 0.1 / s_out < 300)  # codes of 8 bits
    exact = Fraction(acc) * Fraction(float(np.float32(0.1))) * Fraction(float(np.float32(s_w)))
    exact /= Fraction(float(np.float32(s_out)))
    args = (np.float32(0.1), np.float32(s_w), np.float32(s_out))
    right = max(0, -int(fixed_multiplier(float(args[0]) * float(args[1]) / float(args[2])).shift))
    for name, second_rounding in (("float32", Fraction(0)), ("fixed", Fraction(1, 2 ** (right + 1)))):
        code = int(POLICIES[name].requantize(np.int32([acc]), *args, axis=None)[0])
        assert abs(code - exact) <= Fraction(1, 2) + second_rounding + Fraction(1, 1000)


@pytest.mark.parametrize("name", POLICIES)
def test_per_channel_is_a_loop_over_channels(name):
    rng = np.random.default_rng(0)
    acc, s_w = rng.integers(-(2**20), 2**20, (2, 5, 3, 3)).astype(np.int32), rng.uniform(1e-4, 1e-2, 5)
    policy = POLICIES[name]
    together = policy.requantize(acc, 0.02, s_w, 0.05, axis=1)
    for c in range(5):
        assert np.array_equal(together[:, c], policy.requantize(acc[:, c], 0.02, s_w[c], 0.05, axis=None))


def add(policy, a, b, s_a, s_b, s_out, bits=8):
    """a S_a + b S_b under a policy, for centred codes: zero points are 0."""
    half = 2 ** (bits - 1)
    a_qparams, b_qparams, out = (QParams(np.float32(s), 0, -half, half - 1) for s in (s_a, s_b, s_out))
    return POLICIES[policy].add(np.int32([a]), np.int32([b]), a_qparams, b_qparams, out, sign=1)


def litert_add(a: int, b: int, s_a: float, s_b: float, s_out: float, shift: int) -> int:
    """LiteRT's quantized ADD, told with Python integers."""
    twice_max = 2.0 * max(s_a, s_b)
    total = gemmlowp(a << shift, s_a / twice_max) + gemmlowp(b << shift, s_b / twice_max)
    return gemmlowp(total, twice_max / (2**shift * s_out))


@given(st.integers(-255, 255), st.integers(-255, 255), scales, scales, scales)
def test_fixed_add_equals_litert(a, b, s_a, s_b, s_out):
    assume(2.0 * max(s_a, s_b) / (2**20 * s_out) < 1)
    ours = add("fixed", a, b, s_a, s_b, s_out)
    assert ours.tolist() == [litert_add(a, b, s_a, s_b, s_out, 20)]


@given(st.integers(-255, 255), st.integers(-255, 255), st.floats(1e-3, 1.0), st.floats(1e-3, 1.0), st.floats(1e-2, 1.0))
def test_both_adds_are_within_one_of_exact_arithmetic(a, b, s_a, s_b, s_out):
    s_a, s_b, s_out = (np.float32(s) for s in (s_a, s_b, s_out))
    exact = (a * Fraction(float(s_a)) + b * Fraction(float(s_b))) / Fraction(float(s_out))
    for policy in POLICIES:
        code = int(add(policy, a, b, s_a, s_b, s_out)[0])
        assert abs(code - exact) <= Fraction(1, 2) + abs(exact) / 2**20 + Fraction(1, 1000)


def test_wide_adds_do_not_saturate():
    args = (65535, 65535, 0.01, 0.01, 0.02)
    assert add("fixed", *args, bits=16).tolist() == add("float32", *args, bits=16).tolist() == [65535]


def test_an_unknown_policy_is_named():
    with pytest.raises(KernelError, match="no requantization policy 'half': choose one of fixed, float32"):
        profile_named("half")
