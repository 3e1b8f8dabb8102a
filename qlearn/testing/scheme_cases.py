"""The formats and ranges that schemes are asked about, and the refusals that are theirs to make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from qlearn.errors import NumbersError
from qlearn.numbers.qparams import ClipRange, QParams
from qlearn.testing.checks import Finding, expect, raised
from qlearn.testing.data import scheme_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import Tensor

    from qlearn.schemes.base import Scheme

    Maker = Callable[..., Scheme]

FORMATS = tuple((bits, signed) for signed in (True, False) for bits in range(2, 17))
"""Bits and signedness."""

FEW = ((2, True), (4, True), (8, True), (16, True), (8, False))

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Case:
    """A scheme, a range, and what the scheme made of it."""

    scheme: Scheme
    clip_range: ClipRange
    qp: QParams

    def __str__(self) -> str:
        return given(self.scheme, self.clip_range)

    @property
    def reach(self) -> tuple[float, float]:
        """The real numbers of qmin and qmax, float64; per tensor only."""
        scale, zero_point = float(self.qp.scale), float(self.qp.zero_point)
        return scale * (self.qp.qmin - zero_point), scale * (self.qp.qmax - zero_point)

    def values(self, count: int = 301) -> Tensor:
        """Return sorted float32 values over one and a half times the reach, with steps, halves and zero among them."""
        scale, (lo, hi) = float(self.qp.scale), self.reach
        edges = np.linspace(1.5 * lo, 1.5 * hi, count)
        near = scale * np.arange(-4, 4.25, 0.25)
        both = np.clip(np.concatenate([edges, near, [lo, hi]]), -LARGEST, LARGEST)
        return torch.from_numpy(np.unique(both).astype(np.float32))


def given(scheme: Scheme, clip_range: ClipRange) -> str:
    """Return scheme and range in words."""
    return f"{scheme_text(scheme)}, range {clip_range}"


def ordinary() -> tuple[ClipRange, ...]:
    """Return ranges of all proportions, from one-sided to even, sizes 1e-3 to 1e3."""
    rng = np.random.default_rng(11)
    sizes = 10.0 ** rng.uniform(-3, 3, 24)
    shares = rng.uniform(0, 1, 24)
    known = ((-1.0, 1.0), (-1.0, 2.5), (0.0, 6.0), (-3.0, 0.0), (-0.1, 5.0), (-100.0, 0.003), (-1.0, 127.0), (0.0, 1.0))
    drawn = [(-size * share, size * (1 - share)) for size, share in zip(sizes, shares, strict=True)]
    positive = [(0.0, size) for size in sizes[:6]]
    return tuple(ClipRange(lo, hi) for lo, hi in (*known, *drawn, *positive))


def few() -> tuple[ClipRange, ...]:
    """Return four ranges: even, uneven, one-sided."""
    return ClipRange(-1.0, 1.0), ClipRange(-0.3, 2.5), ClipRange(0.0, 6.0), ClipRange(-700.0, 20.0)


def extreme() -> tuple[ClipRange, ...]:
    """Return the smallest and the largest ranges that float32 data can have."""
    pairs = [(-size, size) for size in (1e-45, 1e-38, 1e-30, 1e30, 1e38)]
    one_sided = [(0.0, 1e-38), (0.0, 1e38), (-1e38, 0.0), (-1e-38, 1e38), (-1e-3, 1e38)]
    return tuple(ClipRange(lo, hi) for lo, hi in (*pairs, *one_sided))


def schemes(make: Maker, formats: Iterable[tuple[int, bool]] = FORMATS) -> Iterator[Scheme]:
    """Make the scheme for each format. Unsigned, a symmetric one may refuse with NumbersError."""
    for bits, signed in formats:
        words = f"bits={bits}, signed={signed}"
        try:
            made = make(bits=bits, signed=signed)
        except NumbersError as error:
            if not signed and make(bits=bits).symmetric:
                continue
            raise Finding(words, raised(error, "the factory")) from error
        except Exception as error:
            raise Finding(words, raised(error, "the factory")) from error
        yield made


def ask(scheme: Scheme, clip_range: ClipRange, **params: int) -> QParams | None:
    """Return the scheme's answer, or None for the one refusal it may make: negative values without a sign."""
    words = given(scheme, clip_range)
    try:
        answer: object = scheme.qparams(clip_range, **params)
    except Exception as error:
        may_refuse = scheme.symmetric and not scheme.signed and bool((clip_range.lo < 0).any())
        if may_refuse and isinstance(error, NumbersError):
            return None
        raise Finding(words, raised(error, "qparams()")) from error
    if not isinstance(answer, QParams):
        raise Finding(words, f"qparams() returned a {type(answer).__name__}, no QParams")
    return answer


def cases(make: Maker, ranges: Iterable[ClipRange], formats: Iterable[tuple[int, bool]] = FORMATS) -> Iterator[Case]:
    """Ask the scheme in each format about each range."""
    ranges, answered = tuple(ranges), 0
    for scheme in schemes(make, formats):
        for clip_range in ranges:
            qp = ask(scheme, clip_range)
            if qp is not None:
                answered += 1
                yield Case(scheme, clip_range, qp)
    expect(answered >= len(ranges), "all formats and ranges", f"{answered} answers only")
