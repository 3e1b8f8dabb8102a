"""The calibrators against plain loops on the raw values."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlearn.calibrators.base import Calibrator
from qlearn.calibrators.entropy import EntropyCalibrator
from qlearn.calibrators.mean_std import MeanStdCalibrator
from qlearn.calibrators.minmax import MinMaxCalibrator
from qlearn.calibrators.moving_average import MovingAverageCalibrator
from qlearn.calibrators.mse import MseCalibrator
from qlearn.calibrators.percentile import PercentileCalibrator
from qlearn.errors import CalibrationError, NotCalibratedError, NumbersError
from qlearn.numbers.qparams import ClipRange
from qlearn.numbers.rows import rows_of
from qlearn.schemes.affine import AffineScheme
from qlearn.schemes.symmetric import SymmetricScheme

from .oracles import sqnr_of_range

SCHEME = AffineScheme()
MAKERS = [
    MinMaxCalibrator,
    PercentileCalibrator,
    lambda **k: PercentileCalibrator(percent=99.0, **k),
    lambda **k: PercentileCalibrator(percent=90.0, of="tails", **k),
    MeanStdCalibrator,
    lambda **k: EntropyCalibrator(bins=256, **k),
    lambda **k: MseCalibrator(bins=256, **k),
]
values = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=50)


def observed(make, *batches, **params):
    calibrator = make(**params)
    for batch in batches:
        calibrator.observe(torch.as_tensor(batch, dtype=torch.float32))
    return calibrator.compute_range(SCHEME)


@given(values)
def test_minmax_is_min_and_max_and_zero(xs):
    assert observed(MinMaxCalibrator, xs) == ClipRange(min(0.0, *xs), max(0.0, *xs))


def loop_percentile(xs, percent):
    """The smallest |x| that at least `percent` of all |x| do not exceed."""
    ordered = sorted(abs(x) for x in xs)
    needed = math.ceil(len(ordered) * Fraction(str(percent)) / 100)
    return ordered[max(needed, 1) - 1]


@settings(deadline=None)
@given(values, st.sampled_from([50.0, 90.0, 99.0, 99.99, 100.0]))
def test_percentile_is_within_one_bin_of_a_sorted_list(xs, percent):
    r = observed(PercentileCalibrator, xs, percent=percent)
    threshold, width = loop_percentile(xs, percent), 2 * max(abs(x) for x in xs) / 2048
    lo, hi = max(min(0.0, *xs), -threshold), min(max(0.0, *xs), threshold)
    assert lo - width <= float(r.lo) <= lo + 1e-9
    assert hi - 1e-9 <= float(r.hi) <= hi + width


@pytest.mark.parametrize("n", [1000, 10_000])
@pytest.mark.parametrize("of", ["absolute", "tails"])
def test_percentile_keeps_exactly_the_share_that_was_written(n, of):
    """As a float 99.9 / 100 is a little too much, and would keep the outlier."""
    percent, outliers = (99.9, n // 1000) if of == "absolute" else (99.8, n // 1000)
    x = torch.cat([torch.linspace(0, 1, n - outliers), torch.full((outliers,), 50.0)])
    assert float(observed(PercentileCalibrator, x, percent=percent, of=of).hi) < 1.1


@pytest.mark.parametrize("make", MAKERS)
def test_one_sided_channels_do_not_depend_on_their_neighbours(make):
    x = torch.randn(40, 500, generator=torch.Generator().manual_seed(0))
    x[0].abs_()
    x[1] = -x[1].abs()
    for bits in (3, 4, 8):
        scheme = AffineScheme(bits=bits)
        together, alone = make(channel_axis=0), [make() for _ in x]
        together.observe(x)
        r = together.compute_range(scheme)
        for c, one in enumerate(alone):
            one.observe(x[c])
            single = one.compute_range(scheme)
            assert (r.lo[c], r.hi[c]) == (single.lo, single.hi)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-300, 1e300, 5.9e307])
def test_float64_beyond_float32_is_counted_and_gives_the_observed_range_or_less(make, scale):
    x = torch.tensor([-3.0, -1.0, 0.5, 2.0], dtype=torch.float64) * scale
    for bits in (4, 8):
        calibrator = make()
        calibrator.observe(x)
        r = calibrator.compute_range(AffineScheme(bits=bits))
        assert float(x.min()) <= float(r.lo) <= 0 <= float(r.hi) <= float(x.max())


ODD = {
    "long double": np.ones(3, np.longdouble),
    "objects": np.array([1.0, None], object),
    "text": ["a"],
    "lists of different lengths": [[1.0], [1.0, 2.0]],
    "a mapping": {"x": 1.0},
    "complex": torch.ones(3, dtype=torch.complex64),
    "masked": np.ma.masked_array([1.0, 2.0], [True, False]),
    "sparse": torch.eye(3).to_sparse(),
    "meta": torch.ones(3, device="meta"),
    "float8": torch.ones(3).to(torch.float8_e4m3fn),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_arrays_are_refused_by_name(kind):
    calibrator = MinMaxCalibrator()
    with pytest.raises(CalibrationError):
        calibrator.observe(ODD[kind])
    with pytest.raises(NotCalibratedError):
        calibrator.compute_range(SCHEME)


@pytest.mark.parametrize("x", [np.arange(5.0)[::-1], np.arange(5.0).astype(">f4"), [0.0, 1.0, 4.0], np.float32(4.0)])
def test_arrays_of_any_layout_are_taken(x):
    calibrator = MinMaxCalibrator()
    calibrator.observe(x)
    assert float(calibrator.compute_range(SCHEME).hi) == 4.0


@given(values)
def test_percentile_100_is_minmax(xs):
    assert observed(PercentileCalibrator, xs, percent=100.0) == observed(MinMaxCalibrator, xs)


def test_percentile_agrees_with_numpy_on_a_large_sample():
    x = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    r = observed(PercentileCalibrator, x, percent=99.9)
    assert abs(float(r.hi) - np.percentile(np.abs(x), 99.9)) <= 2 * np.abs(x).max() / 2048


def test_one_outlier_costs_minmax_its_resolution_and_percentile_nothing():
    x = torch.cat([torch.linspace(-1, 1, 10_000), torch.tensor([100.0])])
    assert float(observed(MinMaxCalibrator, x).hi) == 100.0
    assert float(observed(PercentileCalibrator, x, percent=99.9).hi) < 1.1


@pytest.mark.parametrize("make", MAKERS)
@settings(deadline=None)
@given(xs=values, data=st.data())
def test_order_split_and_merge_make_no_difference(make, xs, data):
    whole = observed(make, xs)
    shuffled, cut = data.draw(st.permutations(xs)), data.draw(st.integers(0, len(xs)))
    parts = [part for part in (shuffled[:cut], shuffled[cut:]) if part]
    assert observed(make, *parts) == whole
    first, *others = [make() for _ in parts]
    for calibrator, part in zip((first, *others), parts, strict=True):
        calibrator.observe(torch.tensor(part))
    for other in others:
        first.merge(other)
    first.merge(make())  # one that saw nothing changes nothing
    empty = make()
    empty.merge(first)
    assert first.compute_range(SCHEME) == empty.compute_range(SCHEME) == whole


@pytest.mark.parametrize("make", MAKERS)
@settings(deadline=None)
@given(xs=values, exponent=st.integers(-60, 60), bits=st.sampled_from([2, 4, 8]))
def test_scaling_the_data_by_a_power_of_two_scales_the_range_exactly(make, xs, exponent, bits):
    x = torch.tensor([v if abs(v) > 1e-15 else 0.0 for v in xs], dtype=torch.float64)  # above the floor of scales
    small, large = make(), make()
    small.observe(x)
    large.observe(x * 2.0**exponent)
    r = small.compute_range(AffineScheme(bits=bits))
    wanted = ClipRange(r.lo * 2.0**exponent, r.hi * 2.0**exponent)
    assert large.compute_range(AffineScheme(bits=bits)) == wanted


FOLLOWS = [  # entropy is SCALE_DEPENDENT: its docstring says how far it jumps
    (make, scheme)
    for make in (MinMaxCalibrator, PercentileCalibrator, *MAKERS[2:5], MseCalibrator)
    for scheme in (AffineScheme, SymmetricScheme)
    # a range [-t, t] has its affine zero point at a tie, whose rounding alone can move the noise by more
    if scheme is SymmetricScheme or getattr(make(), "of", "") != "absolute"
]
ORDINARY = {  # what normal values become
    "normal": lambda x: x,
    "relu": torch.relu,
    "silu": lambda x: torch.nn.functional.silu(3 * x),
    "laplace": lambda x: -x.sign() * torch.special.erfc(x.abs() / 2**0.5).log(),
}


@pytest.mark.parametrize(("make", "kind"), FOLLOWS)
@settings(deadline=None, max_examples=25)
@given(st.floats(1e-3, 1e3), st.sampled_from([3, 4, 8]), st.integers(0, 9), st.sampled_from(sorted(ORDINARY)))
def test_scaling_the_data_by_any_number_costs_no_more_than_a_tenth_of_a_decibel(make, kind, factor, bits, seed, shape):
    x = ORDINARY[shape](torch.randn(20_000, generator=torch.Generator().manual_seed(seed)))
    scheme, found = kind(bits=bits), []
    for data in (x, x * factor):
        calibrator = make()
        calibrator.observe(data)
        found.append(sqnr_of_range(data.double().numpy(), calibrator.compute_range(scheme), scheme))
    assert abs(found[0] - found[1]) < 0.1


@pytest.mark.parametrize("factor", [3.0, 0.7, 1234.5])
@pytest.mark.parametrize("bits", [4, 8])
def test_entropy_follows_the_scale_of_many_values_within_half_a_decibel(factor, bits):
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    scheme, found = AffineScheme(bits=bits), []
    for data in (x, x * factor):
        calibrator = EntropyCalibrator()
        calibrator.observe(data)
        found.append(sqnr_of_range(data.double().numpy(), calibrator.compute_range(scheme), scheme))
    assert abs(found[0] - found[1]) < 0.5


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_per_channel_is_a_loop_over_channels(make, axis):
    x = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1.0, 1e3, 1e6, 0.0])
    r = observed(make, x, channel_axis=axis)
    assert r.channels == x.shape[axis]
    for c in range(x.shape[axis]):
        single = observed(make, x.select(axis, c))
        assert (r.lo[c], r.hi[c]) == (single.lo, single.hi)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("xs", [[3.0], [0.0], [-2.0, -5.0], [7.0, 7.0], [0.0, 0.0], [1e-38, -1e-38], [3e38, -3e38]])
def test_degenerate_data_gives_a_range_with_zero_inside_the_data(make, xs):
    r = observed(make, xs)
    xs = [float(np.float32(x)) for x in xs]
    assert min(0.0, *xs) <= float(r.lo) <= 0 <= float(r.hi) <= max(0.0, *xs)
    SCHEME.qparams(r)  # and a scheme can use it


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.tensor([1.0, math.nan]), "1 of 2 values are NaN or Inf"),
        (torch.tensor([math.inf, 99.0]), "1 of 2 values are NaN or Inf"),
        (torch.zeros(0), "at least one value"),
        (torch.tensor([1, 2]), "floating point values, got torch.int64"),
    ],
)
def test_bad_batches_are_refused_and_change_nothing(make, bad, message):
    calibrator = make()
    calibrator.observe(torch.tensor([-1.0, 2.0]))
    before = calibrator.compute_range(SCHEME)
    with pytest.raises(CalibrationError, match=message):
        calibrator.observe(bad)
    assert calibrator.compute_range(SCHEME) == before


@pytest.mark.parametrize("make", MAKERS)
def test_life_cycle(make):
    calibrator = make(channel_axis=0)
    assert isinstance(calibrator, Calibrator)
    with pytest.raises(NotCalibratedError, match="no data seen yet"):
        calibrator.compute_range(SCHEME)
    x = torch.randn(3, 4, requires_grad=True)
    copy = x.detach().clone()
    calibrator.observe(x)
    assert torch.equal(x, copy)
    with pytest.raises(CalibrationError, match="3 channels so far, now 5"):
        calibrator.observe(torch.zeros(5, 4))
    calibrator.reset()
    with pytest.raises(NotCalibratedError):
        calibrator.compute_range(SCHEME)
    with pytest.raises(CalibrationError, match="no channel axis"):
        make(channel_axis=3).observe(torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PercentileCalibrator(of="mode"), "of is one of absolute, tails: got 'mode'"),
        (lambda: MeanStdCalibrator(k=0.0), "above 0: got 0.0"),
        (lambda: MeanStdCalibrator(k=math.nan), "got nan"),
        (lambda: MovingAverageCalibrator(new_weight=0.0), r"in \(0, 1\]: got 0.0"),
        (lambda: MovingAverageCalibrator(new_weight=1.5), "got 1.5"),
        (lambda: PercentileCalibrator(percent="99"), "got '99'"),
        (lambda: PercentileCalibrator(percent=True), "got True"),
        (lambda: PercentileCalibrator(percent=None), "share to keep.*got None"),
        (lambda: PercentileCalibrator(percent=np.array([99.0, 98.0])), "share to keep.*got array"),
        (lambda: MeanStdCalibrator(k=math.inf), "got inf"),
        (lambda: MeanStdCalibrator(k=1j), "got 1j"),
        (lambda: MovingAverageCalibrator(new_weight=True), "got True"),
        (lambda: MovingAverageCalibrator(new_weight="0.1"), "got '0.1'"),
        (lambda: MinMaxCalibrator(channel_axis=1.0), "whole number or None: got 1.0"),
        (lambda: MinMaxCalibrator(channel_axis=True), "got True"),
    ],
)
def test_wrong_parameters_are_refused(make, message):
    with pytest.raises(CalibrationError, match=message):
        make()


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("scheme", ["affine", None, 8])
def test_a_range_is_computed_for_a_scheme_not_for_its_name(make, scheme):
    calibrator = make()
    calibrator.observe(torch.ones(3))
    with pytest.raises(CalibrationError, match="a range is computed for a scheme"):
        calibrator.compute_range(scheme)


@pytest.mark.parametrize("bins", [100, 1, 2.0, "x", True, 2**15])
def test_bins_are_checked_at_once(bins):
    with pytest.raises(NumbersError, match="power of two"):
        MseCalibrator(bins=bins)


def test_a_refused_merge_leaves_no_trace():
    fresh, seen = MovingAverageCalibrator(), MovingAverageCalibrator()
    seen.observe(torch.ones(3))
    with pytest.raises(CalibrationError, match="do not merge"):
        fresh.merge(seen)
    with pytest.raises(NotCalibratedError):
        fresh.compute_range(SCHEME)


def test_only_equal_settings_merge():
    narrow, wide = MseCalibrator(bins=256), MseCalibrator()
    wide.observe(torch.ones(3))
    with pytest.raises(CalibrationError, match="same settings"):
        narrow.merge(wide)
    with pytest.raises(CalibrationError, match="same settings"):
        wide.merge(MinMaxCalibrator())
    with pytest.raises(CalibrationError, match="same settings"):
        PercentileCalibrator(percent=99.0).merge(PercentileCalibrator(percent=50.0))
    with pytest.raises(CalibrationError, match="same settings"):
        MinMaxCalibrator(channel_axis=0).merge(MinMaxCalibrator())
    one, two = MinMaxCalibrator(channel_axis=0), MinMaxCalibrator(channel_axis=0)
    one.observe(torch.ones(2, 3))
    two.observe(torch.ones(3, 3))
    with pytest.raises(CalibrationError, match="2 channels so far, now 3"):
        one.merge(two)


@pytest.mark.parametrize("percent", [0.0, -1.0, 100.1, math.nan])
def test_percent_out_of_range_is_refused(percent):
    with pytest.raises(CalibrationError, match="share to keep"):
        PercentileCalibrator(percent=percent)


def test_strides_and_dtypes_make_no_difference():
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for make in MAKERS:
        expected = observed(make, x, channel_axis=1)
        for same in (x.to(memory_format=torch.channels_last), x.double(), x.flip(3), x.numpy()):
            calibrator = make(channel_axis=1)
            calibrator.observe(same)
            assert calibrator.compute_range(SCHEME) == expected


def test_rows_of_a_vector_are_its_elements():
    assert rows_of(torch.zeros(5), 0).values.shape == (5, 1)
