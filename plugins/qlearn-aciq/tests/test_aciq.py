"""The calibrator, looked up by name: the conformance kit, then the formulas against slow loops."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
import qlearn_aciq
import torch
from qlearn_aciq import PRIORS, threshold

import qlearn as ql
from qlearn.errors import CalibrationError
from qlearn.testing import CalibratorSuite

SCHEMES = ("affine", "symmetric", "symmetric_restricted")
STEPS = (3, 4, 7, 14, 15, 16, 30, 63, 255, 510, 2**16 - 1, 2**17 - 2)  # 2 to 16 bits, one-sided and two-sided


class TestAciq(CalibratorSuite):
    name = "aciq"
    params = [{}, {"prior": "gauss"}]


def test_comes_in_through_the_entry_point():
    (row,) = [row for row in ql.plugins().rows if row.provider == "qlearn-aciq"]
    assert (row.kind, row.name, row.status, row.plugin) == ("calibrator", "aciq", "ok", "aciq")


def test_examples():
    results = doctest.testmod(qlearn_aciq)
    assert results.attempted > 0
    assert results.failed == 0


def draw(prior, n=20_000):
    """Quantiles of the prior with spread 1, in random order: no luck of the draw."""
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    values = torch.special.ndtri(u) if prior == "gauss" else torch.where(u < 0.5, (2 * u).log(), -(2 - 2 * u).log())
    return values[torch.randperm(n, generator=torch.Generator().manual_seed(0))].float()


def density(prior, x):
    return np.exp(-np.abs(x)) / 2 if prior == "laplace" else np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def expected_noise(prior, t, steps):
    """Clipping by a sum over a fine grid of x beyond t, rounding as a twelfth of the squared step."""
    x = t + (np.arange(40_000) + 0.5) * 1e-3
    return 2 * np.sum((x - t) ** 2 * density(prior, x)) * 1e-3 + (2 * t / steps) ** 2 / 12


def smallest_argument(function, lo, hi):
    """Shrink an interval around the minimum of a function that falls, then rises."""
    for _ in range(60):
        third = (hi - lo) / 3
        lo, hi = (lo, hi - third) if function(lo + third) < function(hi - third) else (lo + third, hi)
    return (lo + hi) / 2


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("steps", STEPS)
def test_threshold_has_the_least_expected_noise(prior, steps):
    best = smallest_argument(lambda t: expected_noise(prior, t, steps), 0.1, 30.0)
    assert threshold(prior, steps) == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("prior", PRIORS)
def test_tail_is_the_mean_of_what_lies_beyond(prior):
    _, tail = PRIORS[prior]
    for t in (0.0, 0.5, 2.0, 5.0):
        x = t + (np.arange(60_000) + 0.5) * 1e-3
        assert tail(t) == pytest.approx(np.sum((x - t) * density(prior, x)) * 1e-3, rel=1e-5)


@pytest.mark.parametrize("steps", STEPS)
def test_for_laplace_it_is_lamberts_function(steps):
    w = 1.0
    for _ in range(100):  # Newton's method for w * exp(w) = 3 * steps**2, from below: log first
        w -= (w + math.log(w) - math.log(3 * steps**2)) / (1 + 1 / w)
    assert threshold("laplace", steps) == pytest.approx(w, rel=1e-12)


@pytest.mark.parametrize(
    ("prior", "published"),
    [("laplace", [2.83, 3.89, 5.03]), ("gauss", [1.71, 2.15, 2.55])],
)
def test_published_values(prior, published):
    """Cut to two digits, for 2**bits steps; n levels from end to end have n - 1."""
    assert [threshold(prior, 2**bits) for bits in (2, 3, 4)] == pytest.approx(published, abs=0.01)


def range_of(x, scheme, **params):
    calibrator = ql.calibrator("aciq", **params)
    calibrator.observe(x)
    return calibrator.compute_range(scheme)


def sqnr(x, scheme, r):
    return ql.sqnr_db(x, ql.fake_quantize(x, scheme.qparams(r)))


def best_sqnr(x, scheme):
    """Try thresholds all the way to the largest value."""
    lo, hi = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    candidates = np.linspace(0.05, 1.0, 96) * max(-lo, hi)
    return max(sqnr(x, scheme, ql.ClipRange(max(lo, -t), min(hi, t))) for t in candidates)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("side", ["both", "relu", "negative"])
def test_at_4_bits_it_comes_within_0_15_decibels_of_the_best(name, prior, side):
    x = draw(prior)
    x = {"both": x, "relu": x.clamp(min=0), "negative": x.clamp(max=0)}[side]
    scheme = ql.scheme(name, bits=4)
    got = sqnr(x, scheme, range_of(x, scheme, prior=prior))
    assert got > best_sqnr(x, scheme) - 0.15
    minmax = ql.ClipRange.including_zero(float(x.min()), float(x.max()))
    assert got > sqnr(x, scheme, minmax) + 2.0


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", range(2, 17))
def test_every_format_is_at_least_as_good_as_minmax(bits, signed):
    for name, x in (("affine", draw("laplace")), ("symmetric", draw("laplace").clamp(min=0))):
        scheme = ql.scheme(name, bits=bits, signed=signed)
        minmax = ql.ClipRange.including_zero(float(x.min()), float(x.max()))
        assert sqnr(x, scheme, range_of(x, scheme)) >= sqnr(x, scheme, minmax) - 0.01


def test_zeros_among_data_of_one_sign_make_no_difference():
    x, scheme = draw("laplace").abs(), ql.scheme("affine", bits=4)
    plain = range_of(x, scheme)
    assert range_of(torch.cat([x, torch.zeros(10 * len(x))]), scheme) == plain
    assert float(plain.hi) < float(x.max())


def test_one_side_is_as_good_as_two_with_twice_the_steps():
    x = draw("laplace")
    two = range_of(torch.cat([x, -x]), ql.scheme("symmetric", bits=5))
    one = range_of(x.abs(), ql.scheme("affine", bits=4))
    assert float(one.hi) == pytest.approx(float(two.hi), rel=0.02)  # 30 steps and 31
    mirrored = range_of(-x.abs(), ql.scheme("affine", bits=4))
    assert (float(mirrored.lo), float(mirrored.hi)) == (pytest.approx(-float(one.hi), rel=0.01), 0.0)


def test_the_range_follows_the_mean_where_the_scheme_can():
    x = draw("laplace") * 0.1 + 0.5
    affine, symmetric = (range_of(x, ql.scheme(name, bits=2)) for name in ("affine", "symmetric"))
    assert float(affine.lo + affine.hi) / 2 > 0.3
    assert float(affine.hi) < float(symmetric.hi)


def test_an_unknown_prior_is_refused():
    with pytest.raises(CalibrationError, match="no prior 'cauchy', the priors are laplace, gauss"):
        ql.calibrator("aciq", prior="cauchy")
