"""Exercises of chapter 01, "Schemes"."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qlearn.classroom.kinds import ChoiceExercise, FunctionExercise

if TYPE_CHECKING:
    import numpy as np


def scale_and_zero_point(lo: float, hi: float, bits: int) -> tuple[float, int]:
    """Return S and Z for signed integers, after the range was widened to hold zero."""
    lo = lo if lo < 0 else 0.0
    hi = hi if hi > 0 else 0.0
    qmin, levels = -(1 << (bits - 1)), (1 << bits) - 1
    scale = (hi - lo) / levels if hi > lo else 1.0
    return scale, round(qmin - lo / scale)


def _draw_range(rng: np.random.Generator, number: int) -> dict[str, Any]:
    bits = int(rng.integers(2, 13))
    fixed = ((0.0, 0.0), (2.0, 2.0), (1.0, 5.0), (-5.0, -1.0), (0.0, 6.0), (-0.01, 1000.0))
    if number < len(fixed):  # constants, all positive, all negative, ReLU6, one outlier
        lo, hi = fixed[number]
        return {"lo": lo, "hi": hi, "bits": bits}
    while True:
        lo, hi = sorted(rng.normal(loc=rng.choice([-2.0, 0.0, 2.0]), size=2).round(2).tolist())
        if _far_from_tie(lo, hi, bits):
            return {"lo": lo, "hi": hi, "bits": bits}


def _far_from_tie(lo: float, hi: float, bits: int) -> bool:
    """Whether every way to write eq. 4 rounds the same way."""
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    levels = (1 << bits) - 1
    place = -lo * levels / (hi - lo) if hi > lo else 0.0
    return abs(place - math.floor(place) - 0.5) > 0.02


def quantize(x: list[float], scale: float, zero_point: int, qmin: int, qmax: int) -> list[int]:
    """Return the codes: round to nearest, ties to even, then add Z, then clamp."""
    codes = []
    for value in x:
        steps = value / scale
        below = math.floor(steps)
        rest = steps - below
        if rest > 0.5 or (rest == 0.5 and below % 2 == 1):
            below += 1
        codes.append(max(qmin, min(qmax, below + zero_point)))
    return codes


def _draw_values(rng: np.random.Generator, number: int) -> dict[str, Any]:
    bits = int(rng.integers(2, 9))
    qmin, qmax = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale = float(2.0 ** rng.integers(-4, 3))  # a power of two: ties are exact
    steps = rng.integers(2 * qmin - 4, 2 * qmax + 5, size=6) / 2
    values = (steps * scale).tolist()
    if number == 0:
        values = [scale / 2] * 6  # a constant tensor, on a tie
    if number == 1:
        values = [abs(value) for value in values]
    if number == 2:
        values[0] = 1e6  # one outlier
    if number == 3:
        values = [qmin * scale, (qmin - 1) * scale]  # the smallest integer
    return {"x": values, "scale": scale, "zero_point": int(rng.integers(qmin, qmax + 1)), "qmin": qmin, "qmax": qmax}


def symmetric_scale(values: list[float], bits: int) -> float:
    """Return S of the restricted symmetric scheme; 1 if all values are zero."""
    largest = 0.0
    for value in values:
        magnitude = -value if value < 0 else value
        if magnitude > largest:  # noqa: PLR1730  (written out for readers)
            largest = magnitude
    return largest / (2 ** (bits - 1) - 1) if largest > 0 else 1.0


def _draw_weights(rng: np.random.Generator, number: int) -> dict[str, Any]:
    values = rng.normal(size=int(rng.integers(1, 9))).round(3)
    if number == 0:
        values = 0 * values
    if number == 1:
        values = abs(values) + 0.5
    if number == 2:
        values = -abs(values) - 0.5
    if number == 3:
        values[0] = -1000.0  # one outlier
    if number == 4:
        values[:] = 0.25
    return {"values": values.tolist(), "bits": int(rng.integers(2, 17))}


def bits_needed(sqnr: float, bits: int, target: float) -> int:
    """Return the fewest bits that reach the target, at 6.02 dB per bit; fewer bits than now are fine."""
    while sqnr - 6.02 >= target and bits > 2:
        sqnr, bits = sqnr - 6.02, bits - 1
    while sqnr < target:
        sqnr, bits = sqnr + 6.02, bits + 1
    return bits


def _draw_targets(rng: np.random.Generator, number: int) -> dict[str, Any]:
    while True:
        bits, sqnr = int(rng.integers(2, 10)), round(float(rng.uniform(5, 50)), 1)
        target = sqnr if number == 0 else round(float(rng.uniform(5, 90)), 1)
        steps = (target - sqnr) / 6.02
        if (number == 0 or abs(steps - round(steps)) > 0.02) and bits + steps > 2:
            return {"sqnr": sqnr, "bits": bits, "target": target}


EXERCISES = (
    FunctionExercise(
        id="01.1",
        title="Find scale and zero point",
        spec=scale_and_zero_point,
        cases=(
            {"lo": -1.0, "hi": 2.5, "bits": 3},
            {"lo": 2.0, "hi": 3.0, "bits": 8},
            {"lo": -3.0, "hi": -2.0, "bits": 8},
        ),
        draw=_draw_range,
    ),
    FunctionExercise(
        id="01.2",
        title="Quantize a list",
        spec=quantize,
        cases=(
            {"x": [-1.0, 0.0, 0.6, 1.2], "scale": 0.5, "zero_point": -2, "qmin": -4, "qmax": 3},
            {"x": [-9.0, 9.0], "scale": 0.5, "zero_point": -2, "qmin": -4, "qmax": 3},
            {"x": [0.25, 0.75, -0.25], "scale": 0.5, "zero_point": -1, "qmin": -4, "qmax": 3},
        ),
        draw=_draw_values,
    ),
    FunctionExercise(
        id="01.3",
        title="Find the symmetric scale",
        spec=symmetric_scale,
        cases=(
            {"values": [0.5, 1.27], "bits": 8},
            {"values": [-1.4, 0.7], "bits": 4},
            {"values": [0.0, 0.0], "bits": 8},
        ),
        draw=_draw_weights,
    ),
    FunctionExercise(
        id="01.4",
        title="Count the bits",
        spec=bits_needed,
        cases=(
            {"sqnr": 20.0, "bits": 4, "target": 56.1},  # six steps of 6.02 dB reach it, six of 6 dB do not
            {"sqnr": 20.0, "bits": 4, "target": 20.0},
            {"sqnr": 40.0, "bits": 8, "target": 30.0},
        ),
        draw=_draw_targets,
    ),
    ChoiceExercise(
        id="01.5",
        title="Choose a scheme",
        right="c",
        why_not={
            "a": "with Z = 0 the codes below zero stand for negative numbers, and ReLU6 gives none: half are idle.",
            "b": "zero is exact in both: the affine zero point is a whole number, so S (Z − Z) = 0.",
            "d": "the symmetric range is [−6, 6]; everything from 0 to 6 is inside.",
        },
    ),
)
