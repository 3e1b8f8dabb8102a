"""quantize, dequantize and fake_quantize against exact rational arithmetic and against torch's own kernel."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlearn.errors import NumbersError
from qlearn.integer import reference
from qlearn.numbers.affine import dequantize, fake_quantize, quantize
from qlearn.numbers.qparams import QParams

floats = st.floats(-1e6, 1e6, width=32)
scales = st.floats(2.0**-20, 2.0**10, width=32)


@st.composite
def formats(draw):
    bits = draw(st.integers(2, 16))
    qmin, qmax = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if draw(st.booleans()) else (0, 2**bits - 1)
    return QParams(draw(scales), draw(st.integers(qmin, qmax)), qmin, qmax)


def exact_code(x: float, qp: QParams) -> int:
    """Eq. 1 in rational arithmetic, on the float32 product x * (1/S) that all runtimes start from."""
    product = Fraction(float(np.float32(x) * (np.float32(1) / qp.scale)))
    floor = math.floor(product)
    rest = product - floor
    nearest = floor + (1 if rest > Fraction(1, 2) or (rest == Fraction(1, 2) and floor % 2 == 1) else 0)
    return min(max(nearest + int(qp.zero_point), qp.qmin), qp.qmax)


@given(st.lists(floats, min_size=1, max_size=20), formats())
def test_quantize_equals_rational_arithmetic(values, qp):
    assert quantize(values, qp).tolist() == [exact_code(x, qp) for x in values]


@given(st.lists(floats, min_size=1, max_size=20), formats())
def test_numpy_kernel_equals_torch(values, qp):
    x = np.array(values, np.float32)
    q = reference.quantize(x, qp)
    assert q.dtype == qp.dtype
    assert q.tolist() == quantize(x, qp).tolist()
    assert reference.dequantize(q, qp).tobytes() == dequantize(q, qp).numpy().tobytes()


@given(st.lists(floats, min_size=1, max_size=20), formats())
def test_fake_quantize_equals_torchs_bit_for_bit(values, qp):
    x = torch.tensor(values)
    theirs = torch.fake_quantize_per_tensor_affine(x, float(qp.scale), int(qp.zero_point), qp.qmin, qp.qmax)
    assert torch.equal(fake_quantize(x, qp), theirs)


@given(st.lists(floats, min_size=1, max_size=20), formats())
def test_fake_quantize_is_dequantize_of_quantize_idempotent_and_monotone(values, qp):
    x = torch.tensor(sorted(values))
    once = fake_quantize(x, qp)
    assert torch.equal(once, dequantize(quantize(x, qp), qp))
    assert torch.equal(fake_quantize(once, qp), once)
    assert (once.diff() >= 0).all()


@given(floats, formats())
def test_error_is_at_most_half_a_step_inside_the_range(x, qp):
    lo, hi = float(qp.range.lo), float(qp.range.hi)
    error = abs(fake_quantize([x], qp).item() - float(np.float32(x)))
    if lo <= x <= hi:
        assert error <= float(qp.scale) / 2 + 1e-6 * abs(x)
    else:
        assert error >= min(abs(x - lo), abs(x - hi)) - 1e-6 * abs(x)


@given(formats())
def test_zero_is_exact(qp):
    assert fake_quantize([0.0], qp).item() == 0.0
    assert quantize([0.0], qp).item() == int(qp.zero_point)


def test_per_channel_is_a_loop_over_channels():
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    qp = QParams([0.1, 0.01, 0.5], [0, -3, 7], -8, 7, axis=1)
    for channel in range(3):
        single = QParams(qp.scale[channel], qp.zero_point[channel], -8, 7)
        assert torch.equal(quantize(x, qp)[:, channel], quantize(x[:, channel], single))
        assert torch.equal(fake_quantize(x, qp)[:, channel], fake_quantize(x[:, channel], single))


@pytest.mark.parametrize("x", [None, "a", [[1.0], [1.0, 2.0]], np.ones(2, np.longdouble)])
def test_what_is_no_tensor_is_refused(x):
    for function in (quantize, fake_quantize):
        with pytest.raises(NumbersError, match="real numbers expected"):
            function(x, QParams(0.5, 0, -4, 3))


def test_bad_input_gets_our_error():
    qp = QParams(1.0, 0, -8, 7)
    with pytest.raises(NumbersError, match="NaN"):
        quantize([1.0, math.nan], qp)
    with pytest.raises(NumbersError, match=r"real numbers expected, got torch\.int64"):
        quantize([1, 2], qp)
    with pytest.raises(NumbersError, match="q must hold integers"):
        dequantize([1.5], qp)
    with pytest.raises(NumbersError, match="2 channels along axis 1"):
        quantize(torch.zeros(1, 3), QParams([1.0, 1.0], [0, 0], -8, 7, axis=1))
    with pytest.raises(NumbersError, match="channels along axis 5"):
        quantize(torch.zeros(1, 3), QParams([1.0, 1.0], [0, 0], -8, 7, axis=5))


def test_infinity_saturates_and_empty_stays_empty():
    qp = QParams(1.0, 0, -8, 7)
    assert quantize([-math.inf, math.inf], qp).tolist() == [-8, 7]
    assert quantize(torch.zeros(0, 3), qp).shape == (0, 3)
    assert math.isnan(fake_quantize([math.nan], qp).item())


def test_extreme_scales_stay_finite():
    smallest, largest = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    assert quantize([1e-38, -1e-38], QParams(smallest, 0, -128, 127)).tolist() == [1, -1]
    assert quantize([3e38, -3e38], QParams(largest, 0, -128, 127)).tolist() == [1, -1]
