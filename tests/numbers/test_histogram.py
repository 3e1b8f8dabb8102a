"""The streaming histogram against a plain loop, and the promise that order and split make no difference."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlearn.errors import NumbersError
from qlearn.numbers.histogram import StreamingHistogram

values32 = st.lists(
    st.one_of(st.floats(-1e3, 1e3, width=32), st.floats(width=32, allow_nan=False, allow_infinity=False), st.just(0.0)),
    min_size=1,
    max_size=40,
)


def loop_histogram(values: list[float], bins: int) -> tuple[dict[int, int], float]:
    """Smallest power-of-two width w with max|x| < bins * w, then floor(x / w) by rational arithmetic."""
    absmax = max(abs(v) for v in values)
    if absmax == 0:
        return {0: len(values)}, 0.0
    exponent = math.frexp(absmax)[1] - (bins.bit_length() - 1)
    width = math.ldexp(1.0, exponent)
    return dict(Counter(math.floor(v / width) for v in values)), width


def as_dict(histogram: StreamingHistogram, channel: int = 0) -> dict[int, int]:
    counts = histogram.counts[channel]
    return {int(i) - histogram.bins: int(counts[i]) for i in torch.nonzero(counts).flatten()}


def filled(batches: list[list[float]], bins: int) -> StreamingHistogram:
    histogram = StreamingHistogram(bins)
    for batch in batches:
        histogram.add(torch.tensor([batch], dtype=torch.float32))
    return histogram


@given(values32, st.sampled_from([2, 8, 64]))
def test_counts_equal_a_plain_loop(values, bins):
    histogram = filled([values], bins)
    expected, width = loop_histogram(values, bins)
    assert as_dict(histogram) == expected
    assert width == 0.0 or histogram.widths[0] == width
    assert (histogram.lo.item(), histogram.hi.item()) == (min(values), max(values))


@settings(deadline=None)
@given(values32, st.data())
def test_order_and_split_make_no_difference(values, data):
    whole = filled([values], 8)
    shuffled = data.draw(st.permutations(values))
    cut = data.draw(st.integers(0, len(values)))
    parts = [part for part in (shuffled[:cut], shuffled[cut:]) if part]
    split = filled(parts, 8)
    merged = filled(parts[:1], 8)
    for part in parts[1:]:
        merged.merge(filled([part], 8))
    for other in (split, merged):
        assert torch.equal(whole.counts, other.counts)
        assert np.array_equal(whole.exponents, other.exponents)
        assert np.array_equal(whole.lo, other.lo)
        assert np.array_equal(whole.hi, other.hi)


def test_channels_are_kept_apart():
    x = torch.randn(5, 1000, generator=torch.Generator().manual_seed(1)) * torch.logspace(-6, 6, 5)[:, None]
    together = StreamingHistogram(64, channels=5)
    together.add(x[:, :300])
    together.add(x[:, 300:])
    for channel in range(5):
        alone = StreamingHistogram(64)
        alone.add(x[channel : channel + 1])
        assert torch.equal(together.counts[channel], alone.counts[0])
        assert together.widths[channel] == alone.widths[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_floating_dtype_is_counted(dtype):
    x = torch.tensor([[-1.5, 0.25, 0.25, 3.0]])
    histogram = StreamingHistogram(8)
    histogram.add(x.to(dtype))
    assert as_dict(histogram) == loop_histogram(x[0].tolist(), 8)[0]


def test_memory_does_not_grow_and_counts_pass_float32():
    histogram = StreamingHistogram(16)
    histogram.counts[0, 16] = 2**24
    histogram.add(torch.zeros(1, 3))
    assert histogram.total.tolist() == [2**24 + 3]
    assert histogram.counts.shape == (1, 32)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_values_leave_it_unchanged(bad):
    histogram = filled([[1.0, 2.0]], 8)
    before = histogram.counts.clone()
    with pytest.raises(NumbersError, match="NaN or Inf"):
        histogram.add(torch.tensor([[100.0, bad]]))
    assert torch.equal(histogram.counts, before)
    assert histogram.hi.item() == 2.0


def test_wrong_shapes_are_refused():
    histogram = StreamingHistogram(8, channels=2)
    for shape in [(1, 5), (2, 0), (2,), (2, 3, 4)]:
        with pytest.raises(NumbersError, match="expected values of shape"):
            histogram.add(torch.zeros(shape))
    with pytest.raises(NumbersError, match="power of two"):
        StreamingHistogram(100)
    with pytest.raises(NumbersError, match="do not merge"):
        histogram.merge(StreamingHistogram(16, channels=2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tiny_negative_value_beside_a_huge_one_stays_below_zero(dtype):
    """Divided by the width it becomes -0, whose floor is -0."""
    smallest = torch.tensor([[-1e-45]], dtype=torch.float32).to(dtype)
    x = torch.cat([smallest, torch.tensor([[1e30]], dtype=dtype)], dim=1)
    histogram = StreamingHistogram(8)
    histogram.add(x)
    assert as_dict(histogram) == loop_histogram(x[0].tolist(), 8)[0]
    assert as_dict(histogram)[-1] == 1


@pytest.mark.parametrize("exponent", [-1074, -1060, -1010, -500, 900])
def test_the_smallest_and_the_largest_float64_are_counted_like_others(exponent):
    whole = torch.arange(-100, 101, dtype=torch.float64)[None]
    plain, scaled = StreamingHistogram(64), StreamingHistogram(64)
    plain.add(whole)
    scaled.add(torch.from_numpy(np.ldexp(whole.numpy(), exponent)))
    assert torch.equal(scaled.counts, plain.counts)
    assert np.array_equal(scaled.exponents, plain.exponents + exponent)


@pytest.mark.parametrize("channels", [0, -1, 1.5, "2"])
def test_channels_are_checked_at_once(channels):
    with pytest.raises(NumbersError, match="channels must be an integer from 1"):
        StreamingHistogram(8, channels=channels)


def test_what_is_no_tensor_or_no_histogram_is_refused():
    histogram = filled([[1.0]], 8)
    for values in ([[1.0]], np.ones((1, 1)), None):
        with pytest.raises(NumbersError, match="expected a tensor"):
            histogram.add(values)
    for other in (None, histogram.counts):
        with pytest.raises(NumbersError, match="only another StreamingHistogram"):
            histogram.merge(other)
    assert histogram.total.tolist() == [1]


def test_large_batches_are_counted_in_chunks():
    x = torch.randn(1, 200_000, generator=torch.Generator().manual_seed(2))
    histogram = StreamingHistogram(128)
    histogram.add(x)
    edges = (np.arange(257) - 128) * histogram.widths[0]
    expected = np.histogram(x.double().numpy(), bins=edges)[0]
    assert np.array_equal(histogram.counts[0].numpy(), expected)
