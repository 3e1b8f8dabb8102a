"""Drive a calibrator and compare what it says; whatever goes wrong becomes a finding with its input."""

from __future__ import annotations

import math
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qlearn.analysis.metrics import sqnr_db
from qlearn.errors import NotCalibratedError
from qlearn.numbers.affine import fake_quantize
from qlearn.numbers.qparams import ClipRange
from qlearn.testing.checks import Finding, expect, raised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor

    from qlearn.calibrators.spec import Calibrator, Trait
    from qlearn.schemes.base import Scheme
    from qlearn.testing.data import Sample

    Maker = Callable[..., Calibrator]
    Traits = frozenset[Trait]

RESOLUTION = 1 / 256
"""Share of its width by which an APPROXIMATE range may move when the data are scaled: one step at 8 bits."""

LOUDEST_DIFFERENCE = 0.1
"""Decibels by which the noise may move if the range moves further: near its minimum noise is flat."""


def feed(calibrator: Calibrator, batches: Iterable[Tensor], given: object) -> Calibrator:
    """Let a calibrator observe batches, each a copy, and return it."""
    for batch in batches:
        try:
            calibrator.observe(batch.clone())
        except Exception as error:
            raise Finding(given, raised(error, f"observe() of shape {tuple(batch.shape)}")) from error
    return calibrator


def observed(make: Maker, batches: Iterable[Tensor], given: object, **params: Any) -> Calibrator:
    """Return a new calibrator that saw the batches."""
    return feed(make(**params), batches, given)


def range_of(calibrator: Calibrator, scheme: Scheme, given: object) -> ClipRange:
    """Return the range of a calibrator that has seen data."""
    try:
        answer: object = calibrator.compute_range(scheme)
    except Exception as error:
        raise Finding(given, raised(error, "compute_range()")) from error
    if not isinstance(answer, ClipRange):
        raise Finding(given, f"compute_range() returned a {type(answer).__name__}, no ClipRange")
    return answer


def range_after(
    make: Maker, batches: Iterable[Tensor], scheme: Scheme, given: object = "data", **params: Any
) -> ClipRange:
    """Return the range of a new calibrator that saw the batches."""
    return range_of(observed(make, batches, given, **params), scheme, given)


def range_for(make: Maker, sample: Sample, **params: Any) -> ClipRange:
    """Return the range of a new calibrator that saw a sample in one batch."""
    return range_after(make, [sample.values], sample.scheme, sample, **params)


def expect_equal(got: ClipRange, wanted: ClipRange, given: object, instead_of: str) -> None:
    """Raise a finding unless two ranges are equal, bit for bit."""
    expect(got == wanted, given, f"{text(got, wanted)}; {instead_of}: {text(wanted, got)}")


def expect_close(got: ClipRange, wanted: ClipRange, given: object, instead_of: str) -> None:
    """Raise a finding unless two ranges agree within 1e-6 of their width."""
    expect(close(got, wanted), given, f"{text(got, wanted)}; {instead_of}: {text(wanted, got)}")


def expect_same_noise(got: ClipRange, wanted: ClipRange, s: Sample, instead_of: str) -> None:
    """Raise a finding unless two ranges are close, or do the same to the data."""
    if close(got, wanted, RESOLUTION):
        return
    a, b = (sqnr_db(s.values, fake_quantize(s.values, s.scheme.qparams(r))) for r in (got, wanted))
    ok = math.isclose(a, b, rel_tol=0.0, abs_tol=LOUDEST_DIFFERENCE)
    expect(ok, s, f"{text(got, wanted)}, SQNR {a:.2f} dB; {instead_of}: {text(wanted, got)}, {b:.2f} dB")


def close(a: ClipRange, b: ClipRange, tolerance: float = 1e-6) -> bool:
    """Return True if two ranges agree within a share of their width."""
    if a.lo.shape != b.lo.shape:
        return False
    allowed = tolerance * np.maximum(a.hi - a.lo, b.hi - b.lo)
    return bool((np.abs(a.lo - b.lo) <= allowed).all() and (np.abs(a.hi - b.hi) <= allowed).all())


def text(r: ClipRange, other: ClipRange) -> str:
    """Return a range in full, of several channels the first that differs from the other range.

    Examples
    --------
    >>> text(ClipRange([0, -2], [1, 1]), ClipRange([0, -3], [1, 1]))
    '[-2.0, 1.0] in channel 1 of 2'
    >>> text(ClipRange(-1, 1), ClipRange([0, -3], [1, 1]))
    '[-1.0, 1.0]'
    """
    if r.channels is None:
        return f"[{float(r.lo)!r}, {float(r.hi)!r}]"
    if r.lo.shape != other.lo.shape or r == other:
        return f"{r} of shape {r.lo.shape}"
    c = int(np.argmax((r.lo != other.lo) | (r.hi != other.hi)))
    return f"[{float(r.lo[c])!r}, {float(r.hi[c])!r}] in channel {c} of {r.channels}"


def expect_empty(calibrator: Calibrator, scheme: Scheme, given: object) -> None:
    """Raise a finding unless the calibrator says that it has seen nothing."""
    try:
        answer = calibrator.compute_range(scheme)
    except NotCalibratedError:
        return
    except Exception as error:
        raise Finding(given, f"{raised(error, 'compute_range()')}, no NotCalibratedError") from error
    raise Finding(given, f"compute_range() returned {answer}, no NotCalibratedError")


def refusal(calibrator: Calibrator, batch: Tensor) -> Exception | None:
    """Return the exception of observe(), or None if it took the batch."""
    try:
        calibrator.observe(batch)
    except Exception as error:
        return error
    return None


def merge_refusal(into: Calibrator, other: Calibrator) -> Exception | None:
    """Return the exception of merge(), or None if it went through."""
    try:
        into.merge(other)
    except Exception as error:
        return error
    return None


def global_state() -> dict[str, Any]:
    """Return the state of everything that a calibrator must leave alone."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  (the global generator is what is watched)
    return {
        "torch's random generator": torch.get_rng_state().numpy().tobytes(),
        "NumPy's random generator": (name, np.asarray(keys).tobytes(), *rest),
        "Python's random generator": random.getstate(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's grad mode": torch.is_grad_enabled(),
        "torch's number of threads": torch.get_num_threads(),
        "NumPy's error handling": np.geterr(),
    }


def seed_generators(seed: int) -> None:
    """Seed the global random generators; somebody's calibrator might draw from them."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)


@contextmanager
def stirred_generators() -> Iterator[None]:
    """Seed the global random generators as nobody would, and put them back after a ``with`` block."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    seed_generators(987_654_321)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])
