"""Checks of what a scheme's answer does to numbers: rounding, saturation, and the integer kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from qlearn.integer import reference
from qlearn.integer.profiles import POLICIES
from qlearn.numbers.affine import dequantize, fake_quantize, quantize
from qlearn.numbers.qparams import ClipRange, QParams, along_axis
from qlearn.testing.checks import Check, collect, expect
from qlearn.testing.data import normal, scheme_text
from qlearn.testing.scheme_cases import FEW, ask, cases, extreme, few, ordinary, schemes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from qlearn.schemes.base import Scheme
    from qlearn.testing.scheme_cases import Maker

CHECKS: list[Check] = []

FLOAT32_SLACK = 2.0**-22
"""Share of |x| that float32 arithmetic may add to an error: the reciprocal, the product and the way back round once."""


@collect(
    CHECKS, remedy="Make the zero point an integer within [qmin, qmax]; without an exact zero, padding adds noise."
)
def check_zero_is_exact(make: Maker) -> None:
    """Real zero is an integer, and comes back as exactly zero."""
    zero = torch.zeros(1)
    for case in cases(make, (*ordinary(), ClipRange(0.0, 0.0), *extreme())):
        back, code = float(fake_quantize(zero, case.qp)), int(quantize(zero, case.qp))
        got = f"{case.qp}: zero has the code {code} and comes back as {back!r}"
        expect(back == 0.0 and code == case.qp.zero_point, case, got)


@collect(CHECKS, remedy="Let scale and zero point be those of one and the same grid; the steps are S wide everywhere.")
def check_rounding_error(make: Maker) -> None:
    """Inside what the integers reach, fake_quantize(x) is off by half a step at most, plus 2^-22 of x for float32."""
    for case in cases(make, (*few(), *ordinary()[8:14])):
        x, (lo, hi) = case.values(), case.reach
        inside = x[(x >= lo) & (x <= hi)].double()
        error = (fake_quantize(inside.float(), case.qp).double() - inside).abs()
        excess = error - (float(case.qp.scale) / 2 + FLOAT32_SLACK * inside.abs())
        worst = int(excess.argmax())
        got = f"{case.qp}: x = {float(inside[worst]):.9g} is off by {float(error[worst]):.9g}"
        expect(float(excess[worst]) <= 0.0, case, got)


@collect(CHECKS, remedy="Return the limits of the format in QParams: codes beyond them are cut, they must not wrap.")
def check_saturation(make: Maker) -> None:
    """Outside, values take the nearest end: qmin or qmax, infinity included."""
    for case in cases(make, few()):
        lo, hi = case.reach
        step = float(case.qp.scale)
        far = torch.tensor([-torch.inf, -3e38, lo - 1e3 * step, lo - step, hi + step, hi + 1e3 * step, 3e38, torch.inf])
        got = quantize(far, case.qp).tolist()
        wanted = [case.qp.qmin] * 4 + [case.qp.qmax] * 4
        expect(got == wanted, case, f"{case.qp}: {[f'{v:.4g}' for v in far.tolist()]} became {got}; wanted: {wanted}")


@collect(
    CHECKS, remedy="Use a scale that float32 holds: with another one the grid of the second pass is not the first's."
)
def check_idempotent(make: Maker) -> None:
    """What is on the grid stays: fake_quantize of fake_quantize changes nothing."""
    for case in cases(make, (*few(), *ordinary()[8:14])):
        once = fake_quantize(case.values(), case.qp)
        twice = fake_quantize(once, case.qp)
        changed = once != twice
        expect(not changed.any(), case, f"{case.qp}: {int(changed.sum())} of {once.numel()} values move once more")


@collect(CHECKS, remedy="Look for a negative scale or for codes that wrap.")
def check_monotone(make: Maker) -> None:
    """A larger value never gets a smaller code."""
    for case in cases(make, (*few(), *ordinary()[8:14])):
        x = case.values()
        down = torch.diff(quantize(x, case.qp).to(torch.int64)) < 0
        at = int(down.int().argmax())
        expect(not down.any(), case, f"{case.qp}: {float(x[at + 1]):.9g} has a smaller code than {float(x[at]):.9g}")


@collect(CHECKS, remedy="Return the limits of the format in QParams; the smallest dtype that holds them is taken.")
def check_fits_dtype(make: Maker) -> None:
    """All codes fit the bits of the scheme and the dtype of the QParams, and go there and back unchanged."""
    for case in cases(make, few()):
        qp, bits = case.qp, case.scheme.bits
        info = np.iinfo(qp.dtype)
        expect(qp.bits <= bits, case, f"{qp} needs {qp.bits} bits")
        expect(info.min <= qp.qmin and qp.qmax <= info.max, case, f"{qp} does not fit {qp.dtype}")
        expect(info.bits <= 8 or bits > 8, case, f"{qp} is stored as {qp.dtype}")
        codes = torch.arange(qp.qmin, qp.qmax + 1)
        back = quantize(dequantize(codes, qp), qp).to(torch.int64)
        lost = int((back != codes).sum())
        expect(lost == 0, case, f"{qp}: {lost} of {codes.numel()} codes come back as another code")


@collect(
    CHECKS, remedy="Stay in the family r = S (q - Z) with the S and Z that are returned: the kernels know no other."
)
def check_integer_kernel(make: Maker) -> None:
    """A small convolution on integers agrees with the same one on fake-quantized numbers within one code."""
    x, weight = normal(2, 3, 6, 6), normal(4, 3, 3, 3, seed=1) * torch.tensor([1.0, 0.1, 3.0, 0.5]).reshape(4, 1, 1, 1)
    for scheme in schemes(make, ((4, True), (8, True), (8, False))):
        one_sided = scheme.symmetric and not scheme.signed
        _check_kernel(scheme, x.abs() if one_sided else x, weight.abs() if one_sided else weight)


def _check_kernel(scheme: Scheme, x: Tensor, weight: Tensor) -> None:
    """Run both, and compare the codes."""
    x_qp = _fit(scheme, x)
    w_range = ClipRange.including_zero(weight.amin((1, 2, 3)).numpy(), weight.amax((1, 2, 3)).numpy())
    w_qp = ask(scheme, w_range, axis=0)
    words = f"{scheme_text(scheme)}, convolution of (2, 3, 6, 6) with (4, 3, 3, 3)"
    expect(w_qp is not None, words, f"no QParams for {w_range}")
    assert w_qp is not None
    fake = torch.nn.functional.conv2d(fake_quantize(x, x_qp).double(), fake_quantize(weight, w_qp).double())
    y_qp = _fit(scheme, fake.float())
    wanted = quantize(fake.float(), y_qp).numpy().astype(np.int64)
    accumulator = reference.conv2d(
        _codes(x, x_qp), _codes(weight, w_qp), x_zero=int(x_qp.zero_point), w_zero=w_qp.zero_point
    )
    for name, policy in POLICIES.items():
        scaled = policy.requantize(accumulator, x_qp.scale, w_qp.scale, y_qp.scale, 1)
        got = np.clip(scaled + y_qp.zero_point, y_qp.qmin, y_qp.qmax)
        apart = int(np.abs(got - wanted).max())
        expect(apart <= 1, f"{words}, policy {name}", f"codes up to {apart} apart; x {x_qp}, weight {w_qp}, y {y_qp}")


def _codes(x: Tensor, qp: QParams) -> NDArray[np.integer]:
    """Return the integers, from the NumPy kernel."""
    return reference.quantize(x.numpy().astype(np.float32), qp)


def _fit(scheme: Scheme, x: Tensor) -> QParams:
    """Return the QParams of a tensor's full range."""
    r = ClipRange.including_zero(float(x.min()), float(x.max()))
    qp = ask(scheme, r)
    expect(qp is not None, scheme_text(scheme), f"no QParams for {r}")
    assert qp is not None
    return qp


@collect(CHECKS, remedy="Keep one scale for each channel, along the axis that was asked for.")
def check_broadcast(make: Maker) -> None:
    """Per channel, fake quantization of a tensor equals that of its channels one by one."""
    x = normal(4, 3, 2, 5) * torch.tensor([0.01, 1.0, 100.0]).reshape(1, 3, 1, 1)
    many = normal(2, 40, 6) * 2.0 ** torch.linspace(-20.0, 20.0, 40).reshape(1, 40, 1)
    for scheme in schemes(make, FEW):
        one_sided = scheme.symmetric and not scheme.signed
        for axis in (0, 1, 2, -1):
            _check_channels(scheme, x.abs() if one_sided else x, axis)
        for axis in (0, 1, 2):
            values = many.movedim(1, axis)
            _check_channels(scheme, values.abs() if one_sided else values, axis)


def _check_channels(scheme: Scheme, values: Tensor, axis: int) -> None:
    """Compare with the channels one by one."""
    rows = values.movedim(axis, 0).flatten(1)
    r = ClipRange.including_zero(rows.amin(1).numpy(), rows.amax(1).numpy())
    qp = ask(scheme, r, axis=axis)
    words = f"{scheme_text(scheme)}, data of shape {tuple(values.shape)}, axis={axis}"
    expect(qp is not None and qp.axis == axis, words, qp)
    assert qp is not None
    got = fake_quantize(values, qp)
    scale = np.broadcast_to(along_axis(qp.scale, axis, values.ndim), tuple(values.shape))
    for c in range(values.shape[axis]):
        part, alone = values.select(axis, c), _fit(scheme, values.select(axis, c))
        same = torch.equal(got.select(axis, c), fake_quantize(part, alone))
        expect(same, f"{words}, channel {c}", f"scale {scale.take(c, axis).max():.6g}; the channel alone: {alone}")
