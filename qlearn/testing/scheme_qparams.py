"""Checks of what a scheme returns: scale, zero point, limits, axis."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import numpy as np

from qlearn.numbers.qparams import SMALLEST_SCALE, ClipRange, QParams
from qlearn.testing.checks import Check, Finding, collect, expect, raised
from qlearn.testing.probe import global_state, stirred_generators
from qlearn.testing.scheme_cases import (
    FEW,
    FORMATS,
    ask,
    cases,
    extreme,
    few,
    given,
    ordinary,
    schemes,
)

if TYPE_CHECKING:
    from qlearn.schemes.base import Scheme
    from qlearn.testing.scheme_cases import Maker

CHECKS: list[Check] = []


@collect(CHECKS, remedy="Take the limits from qlearn.schemes.base.integer_limits(bits, signed); it refuses the rest.")
def check_formats(make: Maker) -> None:
    """Every format from 2 to 16 bits is made as asked, with limits that fit; other numbers of bits raise ValueError."""
    asked = list(schemes(make))
    for scheme, (bits, signed) in zip(asked, [f for f in FORMATS if f[1] or len(asked) == len(FORMATS)], strict=True):
        words = f"bits={bits}, signed={signed}"
        got = f"bits={scheme.bits}, signed={scheme.signed}"
        expect((scheme.bits, scheme.signed) == (bits, signed), words, got)
        lowest = -(2 ** (bits - 1)) if signed else 0
        highest = lowest + 2**bits - 1
        got = f"qmin={scheme.qmin}, qmax={scheme.qmax}; a format of this size has [{lowest}, {highest}]"
        expect(lowest <= scheme.qmin < scheme.qmax <= highest, words, got)
        expect(scheme.qmin <= 0 <= scheme.qmax, words, got)
    for bits in (1, 17, 0, -8):
        try:
            make(bits=bits)
        except ValueError as error:
            expect(str(error).strip(), f"bits={bits}", f"{type(error).__name__} without a message")
        except Exception as error:
            raise Finding(f"bits={bits}", raised(error, "the factory") + ", no ValueError") from error
        else:
            raise Finding(f"bits={bits}", "no error")


@collect(
    CHECKS, remedy="Compute in float64 and end with qlearn.numbers.qparams.float32_scale; take 1 for an empty range."
)
def check_positive_scale(make: Maker) -> None:
    """The scale is a finite float32 number above 0, of shape () for one range."""
    for case in cases(make, ordinary()):
        scale = np.asarray(case.qp.scale)
        expect(scale.dtype == np.float32, case, f"scale of dtype {scale.dtype}; runtimes hold it as float32")
        expect(scale.shape == (), case, f"scale of shape {scale.shape} for one range")
        expect(np.isfinite(scale) and scale >= SMALLEST_SCALE, case, f"scale {scale!r}")


@collect(
    CHECKS, remedy="Round, clip to [qmin, qmax] and convert to int32; a range that holds zero makes that lossless."
)
def check_zero_point(make: Maker) -> None:
    """The zero point is an integer between qmin and qmax, which are those of the scheme."""
    for case in cases(make, ordinary()):
        zero_point, qp = np.asarray(case.qp.zero_point), case.qp
        expect(np.issubdtype(zero_point.dtype, np.integer), case, f"zero point {zero_point} of {zero_point.dtype}")
        expect(zero_point.shape == np.shape(qp.scale), case, f"zero point of shape {zero_point.shape}")
        limits = f"[{case.scheme.qmin}, {case.scheme.qmax}]"
        expect((qp.qmin, qp.qmax) == (case.scheme.qmin, case.scheme.qmax), case, f"{qp}; the scheme has {limits}")
        expect(qp.qmin <= zero_point <= qp.qmax, case, f"zero point {zero_point} outside {limits}")


@collect(CHECKS, remedy="Fix the zero point to 0, or say symmetric = False: kernels skip it on the strength of that.")
def check_symmetric(make: Maker) -> None:
    """`symmetric` says whether the zero point is always 0."""
    elsewhere = [case for case in cases(make, ordinary()) if np.any(case.qp.zero_point)]
    if make().symmetric:
        for case in elsewhere:
            expect(not case.scheme.symmetric, case, f"symmetric = True, but the zero point is {case.qp.zero_point}")
    else:
        expect(elsewhere, "ranges of all proportions", "symmetric = False, but the zero point is 0 for all of them")


@collect(
    CHECKS, remedy="S = (hi - lo) / (qmax - qmin) and Z = round(qmin - lo / S): count steps, not codes, and round."
)
def check_covers_range(make: Maker) -> None:
    """The integers reach both ends of the range, but for half a step."""
    for case in cases(make, ordinary()):
        lo, hi = case.reach
        below, above = float(case.clip_range.lo), float(case.clip_range.hi)
        # Half a step is lost where the zero point is rounded, and at one end of a full range symmetric format.
        # The hundredth is for a float32 scale: 2**16 steps of it.
        missed = max(lo - below, above - hi) / float(case.qp.scale)
        expect(missed <= 0.51, case, f"{case.qp} reaches [{lo:.6g}, {hi:.6g}]: {missed:.3g} steps are missing")


@collect(CHECKS, remedy="Look for a factor of 2 too much, for a width that is counted twice, and for a fixed scale.")
def check_uses_range(make: Maker) -> None:
    """The range needs this scale: with half of it the integers would not reach both ends any more."""
    for case in cases(make, ordinary()):
        (lo, hi), r = case.reach, case.clip_range
        wasted = lo / 2 <= 1.000001 * float(r.lo) and hi / 2 >= 1.000001 * float(r.hi)
        expect(not wasted, case, f"{case.qp} reaches [{lo:.6g}, {hi:.6g}], more than twice as far")


@collect(CHECKS, remedy="Treat width 0 on its own: S = 1 and the zero point of any other range.")
def check_degenerate_range(make: Maker) -> None:
    """The range [0, 0] of data that are all zero gets a scale above 0 and a zero point in its limits."""
    for case in cases(make, [ClipRange(0.0, 0.0)]):
        qp = case.qp
        expect(np.isfinite(qp.scale) and qp.scale >= SMALLEST_SCALE, case, f"scale {qp.scale!r}")
        expect(qp.qmin <= qp.zero_point <= qp.qmax, case, f"zero point {qp.zero_point}")
    mixed = ClipRange([0.0, 0.0], [1.0, 0.0])
    for scheme in schemes(make, FEW):
        answer = ask(scheme, mixed)
        ok = answer is not None and np.shape(answer.scale) == (2,) and (answer.scale >= SMALLEST_SCALE).all()
        expect(ok, given(scheme, mixed), answer)


@collect(
    CHECKS, remedy="Keep every step between float32's smallest normal number and its largest: float32_scale() does."
)
def check_extreme_ranges(make: Maker) -> None:
    """Ranges from 1e-45 to 1e38 get a finite, normal scale and a zero point in its limits."""
    for case in cases(make, extreme()):
        qp = case.qp
        expect(np.isfinite(qp.scale) and qp.scale >= SMALLEST_SCALE, case, f"scale {qp.scale!r}")
        expect(qp.qmin <= qp.zero_point <= qp.qmax, case, f"zero point {qp.zero_point}")


@collect(CHECKS, remedy="Remove absolute constants such as a smallest scale of 1e-8; float32 itself sets the limit.")
def check_scale_by_powers_of_two(make: Maker) -> None:
    """A range times a power of two, from 2^-90 to 2^90, gives the scale times the same and the same zero point."""
    for case in cases(make, few(), FEW):
        for k in (-90, -20, 3, 90):
            scaled = ClipRange(case.clip_range.lo * 2.0**k, case.clip_range.hi * 2.0**k)
            qp = ask(case.scheme, scaled)
            wanted = QParams(case.qp.scale * np.float32(2.0**k), case.qp.zero_point, case.qp.qmin, case.qp.qmax)
            expect(qp == wanted, f"{case}, times 2**{k}", f"{qp}; without the factor: {case.qp}")


@collect(CHECKS, remedy="Let NumPy work on whole arrays with np.where and np.maximum; no max() over all channels.")
def check_per_channel(make: Maker) -> None:
    """A range of shape (C,) gives scales and zero points of shape (C,), those of each channel alone."""
    two_sided = ClipRange([-1.0, 0.0, -300.0, 0.0, -1e-6, -0.2], [0.5, 3.0, 7.0, 0.0, 1e-6, 100.0])
    one_sided = ClipRange([0.0, 0.0, 0.0], [1e-3, 0.0, 50.0])
    sizes = 2.0 ** np.linspace(-20.0, 20.0, 40)
    many = ClipRange(-sizes * np.linspace(0.0, 1.0, 40), sizes[::-1]), ClipRange(np.zeros(40), sizes)
    for scheme in schemes(make):
        for r in (two_sided, one_sided, ClipRange([-0.5], [0.25]), ClipRange([0.0], [2.0]), *many):
            qp, words = ask(scheme, r), given(scheme, r)
            if qp is None:
                continue
            expect(
                np.shape(qp.scale) == np.shape(qp.zero_point) == r.lo.shape, words, f"{qp}: a shape is not {r.lo.shape}"
            )
            for c in range(r.lo.size):
                alone = ask(scheme, ClipRange(r.lo[c], r.hi[c]))
                got = QParams(qp.scale[c], qp.zero_point[c], qp.qmin, qp.qmax)
                expect(got == alone, f"{words}, channel {c}", f"{got}; the channel alone: {alone}")


@collect(
    CHECKS, remedy="Pass the argument axis on to QParams where the range is per channel, and None where it is not."
)
def check_axis(make: Maker) -> None:
    """The axis that is asked for is the axis of the QParams; one range in all has none."""
    per_channel, single = ClipRange([0.0, 0.0], [1.0, 2.0]), ClipRange(0.0, 1.0)
    for scheme in schemes(make, FEW):
        for axis in (0, 1, 2, 3, -1):
            for r, wanted in ((per_channel, axis), (single, None)):
                qp = ask(scheme, r, axis=axis)
                expect(
                    qp is not None and qp.axis == wanted,
                    f"{given(scheme, r)}, axis={axis}",
                    f"{qp}; wanted: axis={wanted}",
                )
        default = ask(scheme, per_channel)
        expect(
            default is not None and default.axis == 0,
            f"{given(scheme, per_channel)}, no axis given",
            f"{default}; wanted: axis=0",
        )


@collect(CHECKS, remedy="Make the class a frozen dataclass: no state, no random numbers.")
def check_deterministic(make: Maker) -> None:
    """Equal ranges give equal QParams, from any instance and whatever was asked before; no global state changes."""
    ranges = few()
    with stirred_generators():
        before = global_state()
        for scheme, other in zip(schemes(make, FEW), schemes(make, FEW), strict=True):
            first = [ask(scheme, r) for r in ranges]
            again = [ask(scheme, ClipRange(r.lo, r.hi)) for r in reversed(ranges)][::-1]
            elsewhere = [ask(other, r) for r in ranges]
            for r, a, b, c in zip(ranges, first, again, elsewhere, strict=True):
                expect(a == b, given(scheme, r), f"{b} when asked again; at first: {a}")
                expect(a == c, given(scheme, r), f"{c} from a second instance; from the first: {a}")
        changed = [name for name, state in global_state().items() if before[name] != state]
    expect(not changed, "a few ranges", f"changed: {', '.join(changed)}")


@collect(CHECKS, remedy="Define the class at the top of a module and keep numbers only: recipes are copied and sent.")
def check_round_trip(make: Maker) -> None:
    """Pickled or deep-copied, a scheme answers as before."""
    for scheme in schemes(make, FEW):
        for way, trip in (("pickle", _pickled), ("deepcopy", copy.deepcopy)):
            try:
                copied = trip(scheme)
            except Exception as error:
                raise Finding(f"bits={scheme.bits}, signed={scheme.signed}", raised(error, way)) from error
            for r in few():
                got, wanted = ask(copied, r), ask(scheme, r)
                expect(got == wanted, f"{given(scheme, r)}, {way}", f"{got}; the original: {wanted}")


def _pickled(scheme: Scheme) -> Scheme:
    copied: Scheme = pickle.loads(pickle.dumps(scheme))  # noqa: S301  (what was pickled a moment ago)
    return copied
