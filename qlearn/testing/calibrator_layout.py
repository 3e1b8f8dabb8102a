"""Checks of how the same values may lie in memory: channels, strides, dtypes, devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qlearn.numbers.qparams import ClipRange
from qlearn.schemes.affine import AffineScheme
from qlearn.testing.checks import Check, Finding, collect, expect, raised
from qlearn.testing.data import (
    AFFINE4,
    AFFINE8,
    EVERY_SCHEME,
    MORE_SCHEMES,
    SYMMETRIC4,
    SYMMETRIC8,
    channels,
    normal,
    scheme_for,
    scheme_text,
)
from qlearn.testing.probe import expect_close, expect_equal, observed, range_after, range_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from qlearn.schemes.base import Scheme
    from qlearn.testing.probe import Maker, Traits

CHECKS: list[Check] = []

SHAPES: tuple[tuple[int, tuple[int, ...], tuple[int, ...]], ...] = (
    (0, (5, 5, 8), (5, 7, 8)),
    (1, (6, 5, 2, 4), (4, 5, 2, 4)),
    (2, (6, 4, 5), (2, 7, 5)),
    (2, (2, 3, 5, 4), (3, 2, 5, 4)),
    (3, (2, 3, 4, 5), (3, 2, 2, 5)),
    (-1, (6, 4, 5), (9, 4, 5)),
    (-2, (6, 5, 4), (3, 5, 7)),
    (1, (20, 2), (5, 2)),
)
"""Channel axis, shape of a first batch, shape of a second one."""


@collect(
    CHECKS,
    remedy="Lay each batch out as one row per channel with x.movedim(axis, 0).flatten(1), at every update.",
)
def check_per_channel(make: Maker, traits: Traits) -> None:
    """With a channel axis the range has shape (C,) and equals a loop over the channels, after one update and more."""
    for axis, first, second in SHAPES:
        batches = [channels(*first, axis=axis), channels(*second, axis=axis, seed=8) * 2.0]
        _check_loop(make, batches, axis, [SYMMETRIC4])
    _check_loop(make, [normal(20, 1, 3)], 1, [AFFINE4])
    _check_loop(make, [channels(30, 5, axis=1)], 1, [AFFINE4, AFFINE8, SYMMETRIC8])
    _check_loop(make, [channels(8, 40, axis=1), channels(8, 40, axis=1, seed=8) * 2.0], 1, [AFFINE4, SYMMETRIC8])
    kinds = torch.tensor([0, 3, 4])  # two-sided, positive, negative
    _check_loop(make, [channels(60, 5, axis=1).index_select(1, kinds)], 1, _formats())
    x = channels(8, 5, 6, axis=1)
    eight = [part.clamp(max=0.0) * (8 - n) + part.clamp(min=0.0) * (n + 1) for n, part in enumerate(torch.split(x, 1))]
    _check_loop(make, eight, 1, [AFFINE4])  # minima come early, maxima late


def _formats() -> list[Scheme]:
    """Return an affine scheme, signed and unsigned in turn, and a symmetric one for each number of bits; and others."""
    turns = [scheme for n, scheme in enumerate(EVERY_SCHEME) if n % 2 == n // 4 % 2]
    return [*turns, *(s for s in MORE_SCHEMES if s not in turns), AffineScheme(bits=16, signed=False)]


def _check_loop(make: Maker, batches: Sequence[Tensor], axis: int, schemes: Sequence[Scheme]) -> None:
    """Compare with one calibrator for each channel."""
    shape, count = tuple(batches[0].shape), batches[0].shape[axis]
    words = f"channel_axis={axis}, normal data of {len(batches)} batches, the first of shape {shape}"
    together = observed(make, batches, words, channel_axis=axis)
    each = [observed(make, [x.select(axis, c) for x in batches], words) for c in range(count)]
    for scheme in schemes:
        given = f"{words}, {scheme_text(scheme)}"
        got, alone = range_of(together, scheme, given), [range_of(one, scheme, given) for one in each]
        expect(got.lo.shape == (count,), given, f"bounds of shape {got.lo.shape}, wanted: ({count},)")
        looped = ClipRange([r.lo for r in alone], [r.hi for r in alone])
        expect_equal(got, looped, given, "a calibrator for this channel alone")


@collect(CHECKS, remedy="Use reshape() or flatten() instead of view(), and no storage or stride of x.")
def check_layout(make: Maker, traits: Traits) -> None:
    """Strides make no difference: channels-last, transposed, sliced and expanded batches give equal ranges."""
    x = channels(4, 3, 6, 5, axis=1)
    wide = torch.full((4, 3, 6, 10), 99.0)
    wide[..., ::2] = x
    repeated = normal(1, 3, 6, 5)
    same: tuple[tuple[str, Tensor, Tensor], ...] = (
        ("channels last", x, x.contiguous(memory_format=torch.channels_last)),
        ("transposed", x, x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)),
        ("every second column of a wider tensor", x, wide[..., ::2]),
        ("expanded along the batch", repeated.repeat(4, 1, 1, 1), repeated.expand(4, 3, 6, 5)),
    )
    for axis in (None, 1):
        for name, plain, strided in same:
            given = f"channel_axis={axis}, data of shape {tuple(strided.shape)}, {name}"
            calibrator = make(channel_axis=axis)
            try:
                calibrator.observe(strided)  # itself, not a copy: clone() may tidy the strides
            except Exception as error:
                raise Finding(given, raised(error, "observe()")) from error
            wanted = range_after(make, [plain.contiguous()], scheme_for(axis), channel_axis=axis)
            expect_equal(range_of(calibrator, scheme_for(axis), given), wanted, given, "contiguous")


@collect(
    CHECKS,
    remedy="Convert half precision to float32 before any arithmetic, or raise a ValueError or TypeError.",
)
def check_dtype(make: Maker, traits: Traits) -> None:
    """float32 and float64 of the same values give equal ranges; so do float16 and bfloat16, or they are refused."""
    x = torch.round(channels(40, 3, 5, axis=1) * 4.0).clamp(-120, 120) / 4.0  # few digits: exact in every dtype
    for axis in (None, 1):
        wanted = range_after(make, [x, x * 2.0], scheme_for(axis), channel_axis=axis)
        for dtype in (torch.float64, torch.float16, torch.bfloat16):
            given = f"channel_axis={axis}, data of shape {tuple(x.shape)}, {dtype}"
            calibrator = make(channel_axis=axis)
            try:
                calibrator.observe(x.to(dtype))
                calibrator.observe((x * 2.0).to(dtype))
            except (ValueError, TypeError) as error:
                expect(dtype != torch.float64, given, raised(error, "observe()"))
                expect(str(error).strip(), given, f"{type(error).__name__} without a message")
                continue
            except Exception as error:
                raise Finding(given, raised(error, "observe()") + ": not a clear refusal") from error
            expect_equal(range_of(calibrator, scheme_for(axis), given), wanted, given, "float32")


@collect(
    CHECKS,
    remedy="Keep the state on the CPU, or move it to the batch's device; return NumPy float64 bounds.",
    where=torch.cuda.is_available,
    place="where CUDA is",
)
def check_cuda(make: Maker, traits: Traits) -> None:
    """Batches on a CUDA device give the range that they give on the CPU, up to 1e-6 of its width."""
    x, more = channels(16, 3, 40, axis=1), channels(16, 3, 40, axis=1, seed=8)
    for axis in (None, 1):
        given = f"channel_axis={axis}, data of shape {tuple(x.shape)} on a CUDA device"
        wanted = range_after(make, [x, more], AFFINE8, channel_axis=axis)
        got = range_of(observed(make, [x.cuda(), more.cuda()], given, channel_axis=axis), AFFINE8, given)
        expect_close(got, wanted, given, "on the CPU")
        mixed = range_of(observed(make, [x.cuda(), more], given, channel_axis=axis), AFFINE8, given)
        expect_close(mixed, wanted, f"{given}, the second batch on the CPU", "on the CPU")
