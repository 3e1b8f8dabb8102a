"""Exercises of chapter 06, "Quantization analysis"."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qlearn.classroom.kinds import ChoiceExercise, FunctionExercise

if TYPE_CHECKING:
    import numpy as np


def rmse_in_steps(real: list[float], rounded: list[float], scale: float) -> float:
    """Return the root mean square of the error in steps."""
    total = 0.0
    for exact, found in zip(real, rounded, strict=True):
        total += (found - exact) ** 2
    return math.sqrt(total / len(real)) / scale


def _draw_rounded(rng: np.random.Generator, number: int) -> dict[str, Any]:
    scale = round(float(rng.uniform(0.05, 2.0)), 2)
    real = rng.normal(size=int(rng.integers(1, 12))).round(3)
    rounded = (real / scale).round() * scale
    if number == 0:
        rounded = real  # exact: nothing was lost
    if number == 1:
        rounded = rounded.clip(-scale, scale)  # clipped
    if number == 2:
        rounded = real + 3 * scale  # an error that came in
    return {"real": real.tolist(), "rounded": rounded.round(6).tolist(), "scale": scale}


def paired(first: list[int], second: list[int]) -> list[float]:
    """Return by how much the first is right more often, as a share, and the standard error of that."""
    only_first = only_second = 0
    for one, other in zip(first, second, strict=True):
        if one and not other:
            only_first += 1
        if other and not one:
            only_second += 1
    pictures = len(first)
    gap = only_first - only_second
    return [gap / pictures, math.sqrt(only_first + only_second - gap**2 / pictures) / pictures]


def _draw_answers(rng: np.random.Generator, number: int) -> dict[str, Any]:
    pictures = int(rng.integers(2, 13))
    first, second = rng.integers(0, 2, (2, pictures))
    if number == 0:
        second = first  # the same answers
    if number == 1:
        first[:], second[:] = 1, 0  # always right against always wrong
    if number == 2:
        first[:] = 1
    return {"first": first.tolist(), "second": second.tolist()}


def sqnr_without(parts_db: list[float], without: int) -> float:
    """Return the SQNR in dB that is left if one of several independent sources of noise is made perfect."""
    noise = 0.0
    for place, part in enumerate(parts_db):
        if place != without:
            noise += 10 ** (-part / 10)
    return -10 * math.log10(noise)


def _draw_parts(rng: np.random.Generator, number: int) -> dict[str, Any]:
    parts = rng.uniform(-5, 60, int(rng.integers(2, 6))).round(1)
    if number == 0:
        parts[:] = 40.0
    if number == 1:
        parts[0] = 150.0  # a source that costs nothing
    return {"parts_db": parts.tolist(), "without": int(rng.integers(0, len(parts)))}


def sigmoid_table(s_in: float, z_in: int, s_out: float, z_out: int, bits: int) -> list[int]:
    """Return the output code of sigmoid for every input code, the smallest first."""
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    table = []
    for code in range(lowest, highest + 1):
        real = 1 / (1 + math.exp(-s_in * (code - z_in)))
        table.append(max(lowest, min(highest, round(real / s_out) + z_out)))
    return table


def _draw_grids(rng: np.random.Generator, number: int) -> dict[str, Any]:
    bits = int(rng.integers(2, 6))
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    z_in = int(rng.integers(lowest, highest + 1))
    s_out, z_out = round(1 / (2**bits - 1), 4), lowest
    if number == 0:
        z_in = 0
    if number == 1:
        z_in = highest  # inputs that are never positive
    if number < 5:
        s_out, z_out = 0.031, int(rng.integers(lowest, highest + 1))  # the output has to be clamped
    return {"s_in": round(float(rng.uniform(0.1, 3.0)), 3), "z_in": z_in, "s_out": s_out, "z_out": z_out, "bits": bits}


EXERCISES = (
    FunctionExercise(
        id="06.1",
        title="Measure in steps",
        spec=rmse_in_steps,
        cases=(
            {"real": [0.9, -1.3, 2.1], "rounded": [1.0, -1.5, 2.0], "scale": 0.5},
            {"real": [3.0, -3.0], "rounded": [1.0, -1.0], "scale": 2.0},
            {"real": [0.25], "rounded": [0.25], "scale": 0.1},
        ),
        draw=_draw_rounded,
    ),
    FunctionExercise(
        id="06.2",
        title="Compare on the same pictures",
        spec=paired,
        cases=(
            {"first": [1, 1, 1, 0], "second": [1, 0, 0, 1]},
            {"first": [1, 0, 1, 1, 1], "second": [1, 0, 0, 1, 0]},
            {"first": [1, 0], "second": [1, 0]},
        ),
        draw=_draw_answers,
    ),
    FunctionExercise(
        id="06.3",
        title="What would perfect weights bring?",
        spec=sqnr_without,
        cases=(
            {"parts_db": [40.0, 40.0, 40.0], "without": 0},
            {"parts_db": [10.0, 30.0], "without": 0},
            {"parts_db": [45.0, 20.0, 40.0], "without": 2},
        ),
        draw=_draw_parts,
    ),
    FunctionExercise(
        id="06.4",
        title="Build a table",
        spec=sigmoid_table,
        cases=(
            {"s_in": 2.0, "z_in": 0, "s_out": 0.3, "z_out": -2, "bits": 2},
            {"s_in": 1.0, "z_in": -1, "s_out": 0.142, "z_out": -4, "bits": 3},
            {"s_in": 1.0, "z_in": 0, "s_out": 0.1, "z_out": 0, "bits": 3},
        ),
        draw=_draw_grids,
    ),
    ChoiceExercise(
        id="06.5",
        title="Read the numbers",
        right="b",
        why_not={
            "a": "a range that is too narrow clips, and clipping is far more than a third of a step.",
            "c": "the own error is measured on the very codes that came in: nothing of it is inherited.",
            "d": "0.27 only says that the layer rounds well on its grid; 9 dB say that the grid is bad.",
        },
    ),
)
