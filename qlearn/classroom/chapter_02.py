"""Exercises of chapter 02, "Granularity"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qlearn.classroom.kinds import ChoiceExercise, FunctionExercise

if TYPE_CHECKING:
    import numpy as np


def _largest(row: list[float]) -> float:
    largest = 0.0
    for value in row:
        largest = max(largest, abs(value))
    return largest


def row_scales(weight: list[list[float]], bits: int) -> list[float]:
    """Return the scale of each row: its largest absolute value over qmax; 1 for a row of zeros."""
    qmax = 2 ** (bits - 1) - 1
    scales = []
    for row in weight:
        largest = _largest(row)
        scales.append(largest / qmax if largest > 0 else 1.0)
    return scales


def _draw_weight(rng: np.random.Generator, number: int) -> dict[str, Any]:
    weight = rng.normal(size=(int(rng.integers(1, 5)), int(rng.integers(1, 6))))
    weight *= 10.0 ** rng.integers(-3, 2, size=(len(weight), 1))
    if number == 0:
        weight[:] = -0.75  # the largest absolute value is negative
    if number == 1:
        weight[0] = 0.0  # a dead channel
    if number == 2:
        weight[0, 0] = 100.0  # an outlier
    return {"weight": weight.round(4).tolist(), "bits": int(rng.integers(2, 9))}


def bits_lost(weight: list[list[float]]) -> list[int]:
    """Return for each row the number of times that its range can be doubled without passing the largest."""
    reaches = [_largest(row) for row in weight]
    lost = []
    for reach in reaches:
        bits = 0
        while reach * 2 ** (bits + 1) <= max(reaches):
            bits += 1
        lost.append(bits)
    return lost


def _draw_unequal(rng: np.random.Generator, number: int) -> dict[str, Any]:
    while True:
        rows, columns = int(rng.integers(2, 6)), int(rng.integers(1, 5))
        weight = rng.uniform(0.1, 1.0, (rows, columns)) * rng.choice([-1, 1], (rows, columns))
        weight *= 2.0 ** rng.integers(0, 9, size=(rows, 1))
        if number == 0:
            weight[:] = weight[0]  # all alike
        if number == 1:
            weight[-1] = -200.0  # one row, negative, sets the range
        weight = weight.round(3)
        ratios = [max(map(_largest, weight)) / _largest(row) for row in weight]
        if all(min(abs(ratio / 2**k - 1) for k in range(1, 14)) > 1e-6 for ratio in ratios):  # no tie
            return {"weight": weight.tolist()}


def rescale(
    first: list[list[float]], second: list[list[float]], factors: list[float]
) -> tuple[list[list[float]], list[list[float]]]:
    """Return rows of the first times the factors, columns of the second divided by them."""
    rows = [[value * factors[i] for value in row] for i, row in enumerate(first)]
    columns = [[value / factors[i] for i, value in enumerate(row)] for row in second]
    return rows, columns


def _draw_layers(rng: np.random.Generator, number: int) -> dict[str, Any]:
    size = int(rng.integers(2, 5))  # square matrices: a pair of them is one array
    first, second = (rng.normal(size=(size, size)).round(2).tolist() for _ in range(2))
    factors = (2.0 ** rng.integers(-3, 4, size)).tolist()
    if number == 0:
        factors = [1.0] * size
    if number == 1:
        factors = [8.0] * size
    return {"first": first, "second": second, "factors": factors}


EXERCISES = (
    FunctionExercise(
        id="02.1",
        title="One scale for each row",
        spec=row_scales,
        cases=(
            {"weight": [[0.7, -0.35], [-0.07, 0.01]], "bits": 4},
            {"weight": [[-1.27, 0.5], [0.1, 0.127]], "bits": 8},
            {"weight": [[0.0, 0.0], [3.0, -1.0]], "bits": 3},
        ),
        draw=_draw_weight,
    ),
    FunctionExercise(
        id="02.2",
        title="Count the bits that are lost",
        spec=bits_lost,
        cases=(
            {"weight": [[1.0, -0.2], [0.4, 0.3]]},
            {"weight": [[0.3, 0.1], [-5.0, 1.0], [0.01, 0.02]]},
            {"weight": [[2.0], [0.5], [-1.5]]},
        ),
        draw=_draw_unequal,
    ),
    FunctionExercise(
        id="02.3",
        title="Write it in other numbers",
        spec=rescale,
        cases=(
            {"first": [[1.0, 2.0], [3.0, 4.0]], "second": [[1.0, 1.0], [2.0, 0.0]], "factors": [1.0, 2.0]},
            {"first": [[0.5, -1.0], [0.25, 8.0]], "second": [[3.0, -1.0], [1.0, 4.0]], "factors": [4.0, 0.5]},
            {"first": [[1.0, 0.0], [0.0, 1.0]], "second": [[1.0, 0.0], [0.0, 1.0]], "factors": [0.25, 8.0]},
        ),
        draw=_draw_layers,
    ),
    ChoiceExercise(
        id="02.4",
        title="Choose what cannot have a scale of its own",
        right="b",
        why_not={
            "a": "each output channel has a sum of its own, and the scale stands before it.",
            "c": "one scale per layer output is what activations have; it comes in when the sum is finished.",
            "d": "a row of a fully connected layer is an output channel: its scale stands before its sum.",
        },
    ),
    ChoiceExercise(
        id="02.5",
        title="Read a table",
        right="c",
        why_not={
            "a": "activations alone cost one point; clipped activations would have cost more there.",
            "b": "per channel has 8 bits too, and keeps 69 %.",
            "d": "wrong preprocessing would have spoilt the float row as well.",
        },
    ),
)
