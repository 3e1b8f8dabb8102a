"""The NumPy kernels against plain Python loops over every output and every tap."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlearn.errors import AccumulatorOverflowError
from qlearn.integer import moves, reference


def loop_conv2d(x, w, bias, x_zero, w_zero, stride, padding, dilation, groups):
    """The definition, one multiplication at a time, in Python integers."""
    (n, _, height, width), (outputs, per_group, kh, kw) = x.shape, w.shape
    top, bottom, left, right = padding
    oh = (height + top + bottom - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (width + left + right - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.zeros((n, outputs, oh, ow), np.int64)
    for image, o, row, column in np.ndindex(*y.shape):
        total = 0 if bias is None else int(bias[o])
        for c, i, j in np.ndindex(per_group, kh, kw):
            r, s = row * stride[0] + i * dilation[0] - top, column * stride[1] + j * dilation[1] - left
            if 0 <= r < height and 0 <= s < width:  # padding is real zero: it adds nothing
                channel = o // (outputs // groups) * per_group + c
                total += (int(w[o, c, i, j]) - int(w_zero[o])) * (int(x[image, channel, r, s]) - x_zero)
        y[image, o, row, column] = total
    return y


@st.composite
def convolutions(draw):
    groups, per_group, multiplier = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation, stride = (draw(st.tuples(st.integers(1, 2), st.integers(1, 3))) for _ in range(2))
    padding = draw(st.tuples(*[st.integers(0, 2)] * 4))
    height = draw(st.integers(max(1, dilation[0] * (kernel[0] - 1) + 1 - padding[0] - padding[1]), 7))
    width = draw(st.integers(max(1, dilation[1] * (kernel[1] - 1) + 1 - padding[2] - padding[3]), 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    outputs = groups * multiplier
    x = rng.integers(-128, 128, (draw(st.integers(1, 2)), groups * per_group, height, width)).astype(np.int8)
    w = rng.integers(-128, 128, (outputs, per_group, *kernel)).astype(np.int8)
    bias = rng.integers(-(2**20), 2**20, outputs).astype(np.int32) if draw(st.booleans()) else None
    x_zero, w_zero = int(draw(st.sampled_from([-128, 0, 3, 127]))), rng.integers(-128, 128, outputs)
    return x, w, bias, x_zero, w_zero, stride, padding, dilation, groups


@settings(deadline=None, max_examples=60)
@given(convolutions())
def test_conv2d_equals_the_loops(case):
    x, w, bias, x_zero, w_zero, stride, padding, dilation, groups = case
    y = reference.conv2d(
        x, w, bias, x_zero=x_zero, w_zero=w_zero, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    assert y.dtype == np.int32
    assert np.array_equal(y, loop_conv2d(*case))


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 4), st.integers(0, 2**16))
def test_linear_equals_python_integers(rows, inputs, outputs, seed):
    rng = np.random.default_rng(seed)
    x, w = rng.integers(0, 256, (rows, inputs)).astype(np.uint8), rng.integers(-8, 8, (outputs, inputs)).astype(np.int8)
    bias, w_zero = rng.integers(-1000, 1000, outputs).astype(np.int32), rng.integers(-8, 8, outputs)
    y = reference.linear(x, w, bias, x_zero=100, w_zero=w_zero)
    for r, o in np.ndindex(rows, outputs):
        products = ((int(w[o, i]) - int(w_zero[o])) * (int(x[r, i]) - 100) for i in range(inputs))
        assert y[r, o] == int(bias[o]) + sum(products)


def loop_pool(x, kernel, stride, padding, fill, reduce):
    (n, c, height, width), (ph, pw) = x.shape, padding
    oh, ow = (height + 2 * ph - kernel[0]) // stride[0] + 1, (width + 2 * pw - kernel[1]) // stride[1] + 1
    y = np.zeros((n, c, oh, ow), x.dtype)
    for image, channel, row, column in np.ndindex(*y.shape):
        seen = []
        for i, j in np.ndindex(*kernel):
            r, s = row * stride[0] + i - ph, column * stride[1] + j - pw
            if 0 <= r < height and 0 <= s < width:
                seen.append(int(x[image, channel, r, s]))
            elif fill is not None:
                seen.append(fill)
        y[image, channel, row, column] = reduce(seen)
    return y


def mean_half_away(values):
    total, count = sum(values), len(values)
    magnitude = (2 * abs(total) + count) // (2 * count)
    return magnitude if total >= 0 else -magnitude


@settings(deadline=None, max_examples=60)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    include=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_pooling_equals_the_loops(kernel, stride, size, include, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-128, 128, (2, 2, *size)).astype(np.int8)
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    common = {"kernel": kernel, "stride": stride, "padding": padding}
    largest = reference.max_pool2d(x, **common)
    assert np.array_equal(largest, loop_pool(x, kernel, stride, padding, None, max))
    mean = reference.avg_pool2d(x, **common, count_include_pad=include, x_zero=-7)
    assert np.array_equal(mean, loop_pool(x, kernel, stride, padding, -7 if include else None, mean_half_away))


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**4))
def test_division_rounds_half_away_from_zero(total, count):
    exact = mean_half_away([total] + [0] * (count - 1))
    assert reference.divide_half_away(np.int64([total]), np.int64([count]))[0] == exact


def test_axis_sum_and_pad_and_slice():
    x = np.arange(-12, 12, dtype=np.int8).reshape(1, 2, 3, 4)
    assert reference.axis_sum(x, keepdim=False).tolist() == [[-78, 66]]
    assert reference.axis_sum(x).shape == (1, 2, 1, 1)
    padded = moves.pad(x, amounts=((0, 0), (1, 2), (0, 0), (0, 3)), x_zero=9)
    assert padded.shape == (1, 5, 3, 7)
    assert (padded[:, 0] == 9).all()
    assert np.array_equal(padded[:, 1:3, :, :4], x)
    everything = (None, None, None)
    assert np.array_equal(moves.strided_slice(x, slices=(everything, (1, None, None), (0, 3, 2))), x[:, 1:, 0:3:2])


def test_overflow_is_detected_not_wrapped():
    x, w = np.full((1, 70_000), 127, np.int8), np.full((1, 70_000), 127, np.int8)
    assert reference.linear(x, w, x_zero=0)[0, 0] == 70_000 * 127 * 127
    with pytest.raises(AccumulatorOverflowError, match="does not fit into an int32"):
        reference.linear(np.tile(x, 2), np.tile(w, 2), x_zero=0)


def test_large_sums_are_exact_where_float32_would_not_be():
    rng = np.random.default_rng(0)
    x, w = rng.integers(100, 128, (2, 9000)).astype(np.int8), rng.integers(100, 128, (3, 9000)).astype(np.int8)
    exact = x.astype(object) @ w.T.astype(object)
    assert reference.linear(x, w).tolist() == exact.tolist()
    assert (torch.from_numpy(x).float() @ torch.from_numpy(w).float().T).long().tolist() != exact.tolist()


def test_reference_needs_numpy_and_qparams_alone():
    import subprocess
    import sys

    code = (
        "import sys, qlearn.integer.reference\n"
        "loaded = {m for m in sys.modules if m.startswith('qlearn.') or m == 'torch'}\n"
        "print(sorted(loaded - {'qlearn.errors', 'qlearn.integer', 'qlearn.integer.reference', 'qlearn.numbers', "
        "'qlearn.numbers.qparams'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
