import copy
import pickle

import numpy as np
import pytest
import torch

from qlearn.errors import NumbersError
from qlearn.numbers.qparams import SMALLEST_SCALE, ClipRange, QParams, along_axis, float32_scale


@pytest.mark.parametrize(
    ("lo", "hi", "message"),
    [
        (0.5, 1.0, "must contain zero"),
        (-2.0, -1.0, "must contain zero"),
        (np.nan, 1.0, "must be finite"),
        (-1.0, np.inf, "must be finite"),
        ([-1.0], [1.0, 2.0], "same shape"),
        ([[-1.0]], [[1.0]], "same shape"),
        ("a", "b", "numbers expected, got str"),
        (None, 1.0, "numbers expected, got NoneType"),
        (-1j, 1j, "numbers expected, got complex"),
        ([[-1.0], [-1.0, -2.0]], 1.0, "numbers expected, got list"),
        (torch.tensor(-1.0, requires_grad=True), 1.0, "numbers expected, got Tensor"),
    ],
)
def test_a_clip_range_refuses_what_no_scheme_could_use(lo, hi, message):
    with pytest.raises(NumbersError, match=message):
        ClipRange(lo, hi)
    if message.startswith("numbers"):
        with pytest.raises(NumbersError, match=message):
            ClipRange.including_zero(lo, hi)


def test_including_zero_widens_and_never_shrinks():
    r = ClipRange.including_zero([1.0, -3.0, -1.0], [2.0, -2.0, 1.0])
    assert r == ClipRange([0.0, -3.0, -1.0], [2.0, 0.0, 1.0])
    assert r.channels == 3
    assert ClipRange(-1.0, 1.0).channels is None
    assert r != ClipRange(-1.0, 1.0)
    assert r != "a range"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 0, -128, 127), "finite and > 0"),
        ((-1.0, 0, -128, 127), "finite and > 0"),
        ((np.inf, 0, -128, 127), "finite and > 0"),
        ((np.nan, 0, -128, 127), "finite and > 0"),
        ((1.0, 200, -128, 127), "zero_point must lie in"),
        ((1.0, 0.5, -128, 127), "integers expected"),
        ((1.0, 0, 127, -128), "qmin must be below"),
        (([1.0, 2.0], [0, 0], -128, 127), "does not fit axis"),
        ((1.0, 0, -128, 127, 0), "does not fit axis"),
        (([1.0, 2.0], [0], -128, 127, 0), "same shape"),
        ((1e300, 0, -128, 127), "finite and > 0"),
        ((1.0, 0, -4.5, 127), "qmin must be an integer"),
        ((1.0, 0, -128, 2**40), "qmax must be an integer"),
        ((1.0, 0, False, 127), "qmin must be an integer"),
        (([1.0], [0], -128, 127, 1.5), "axis must be an integer"),
        (([1.0], [0], -128, 127, "1"), "axis must be an integer"),
    ],
)
def test_qparams_refuse_what_breaks_the_arithmetic(arguments, message):
    with pytest.raises(NumbersError, match=message):
        QParams(*arguments)


@pytest.mark.parametrize(
    ("qmin", "qmax", "bits", "dtype"),
    [(-128, 127, 8, "int8"), (-127, 127, 8, "int8"), (0, 255, 8, "uint8"), (-8, 7, 4, "int8"), (0, 15, 4, "int8"),
     (-32768, 32767, 16, "int16"), (0, 65535, 16, "int32"), (-1, 1, 2, "int8")],
)  # fmt: skip
def test_bits_and_dtype_are_the_smallest_that_hold_the_integers(qmin, qmax, bits, dtype):
    qp = QParams(1.0, 0, qmin, qmax)
    assert (qp.bits, qp.dtype) == (bits, np.dtype(dtype))


def test_values_cannot_be_changed_in_place():
    scale = np.array([1.0, 2.0])
    qp = QParams(scale, [0, 0], -8, 7, axis=0)
    scale[0] = 99.0
    assert qp.scale[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        qp.scale[0] = 3.0
    with pytest.raises(AttributeError):
        qp.qmin = 0


@pytest.mark.parametrize("value", [ClipRange([-1.0], [2.0]), QParams([0.5], [1], -4, 3, axis=0)])
@pytest.mark.parametrize("trip", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copy_is_equal_and_frozen_too(value, trip):
    """Workers send ranges back pickled; NumPy forgets on the way that an array is read-only."""
    copied = trip(value)
    assert copied == value
    for array in (v for v in vars(copied).values() if isinstance(v, np.ndarray)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7


def test_equality_looks_at_every_field():
    base = QParams([1.0, 2.0], [0, 1], -8, 7, axis=0)
    assert base == QParams([1.0, 2.0], [0, 1], -8, 7, axis=0)
    for other in (
        QParams([1.0, 2.5], [0, 1], -8, 7, axis=0),
        QParams([1.0, 2.0], [0, 0], -8, 7, axis=0),
        QParams([1.0, 2.0], [0, 1], -7, 7, axis=0),
        QParams([1.0, 2.0], [0, 1], -8, 7, axis=1),
        "qparams",
    ):
        assert base != other


def test_along_axis_puts_channels_where_they_belong():
    assert along_axis(np.arange(3), 0, 4).shape == (3, 1, 1, 1)
    assert along_axis(np.arange(3), -1, 2).shape == (1, 3)
    assert along_axis(np.float32(1), None, 4).shape == ()


def test_scales_stay_inside_normal_float32():
    assert float32_scale(0.0) == SMALLEST_SCALE
    assert np.isfinite(float32_scale(1e300))
    assert float32_scale(0.1) == np.float32(0.1)
