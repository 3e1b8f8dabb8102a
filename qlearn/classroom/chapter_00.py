"""Exercises of chapter 00, "Start here"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.classroom.kinds import ChoiceExercise, FunctionExercise

if TYPE_CHECKING:
    from numpy.typing import NDArray


def weight_bytes(weights: int, bits: int) -> int:
    """Count the bytes that hold all bits; a byte that is begun counts whole."""
    total, used = 0, 0
    for _ in range(weights * bits):
        if used == 0:
            total += 1
        used = (used + 1) % 8
    return total


def _draw_bytes(rng: np.random.Generator, number: int) -> dict[str, Any]:
    weights = (0, 1, 7, 8)[number] if number < 4 else int(rng.integers(1, 2000))
    return {"weights": weights, "bits": int(rng.integers(2, 17))}


def code_limits(bits: int) -> list[int]:
    """Return the smallest and the largest signed integer of that many bits."""
    size = 1
    for _ in range(bits - 1):
        size = size * 2
    return [-size, size - 1]


def _draw_bits(_rng: np.random.Generator, number: int) -> dict[str, Any]:
    return {"bits": 2 + number % 15}


def agreement(float_logits: NDArray[Any], int8_logits: NDArray[Any]) -> float:
    """Return the share of rows whose largest entry is at the same place; of equal entries the first counts."""
    same = 0
    for left, right in zip(float_logits, int8_logits, strict=True):
        places = []
        for row in (left, right):
            best = 0
            for place in range(len(row)):
                if row[place] > row[best]:
                    best = place
            places.append(best)
        same += places[0] == places[1]
    return same / len(float_logits)


def _draw_logits(rng: np.random.Generator, number: int) -> dict[str, Any]:
    rows, classes = int(rng.integers(1, 30)), int(rng.integers(2, 12))
    logits = rng.normal(size=(rows, classes)).round(3)
    if number == 0:
        logits = np.ones_like(logits)  # all equal: the first place wins
    if number == 1:
        logits = np.abs(logits)
    noise = rng.normal(scale=0.5, size=logits.shape).round(3) if number else np.zeros_like(logits)
    if number == 2:
        noise[0, 0] = 1000.0  # one outlier decides its row
    return {"float_logits": logits, "int8_logits": logits + noise}


EXERCISES = (
    FunctionExercise(
        id="00.1",
        title="Count bytes",
        spec=weight_bytes,
        cases=({"weights": 1000, "bits": 8}, {"weights": 3, "bits": 4}, {"weights": 1000, "bits": 32}),
        draw=_draw_bytes,
    ),
    FunctionExercise(
        id="00.2",
        title="Find the limits",
        spec=code_limits,
        cases=({"bits": 8}, {"bits": 2}, {"bits": 4}),
        draw=_draw_bits,
    ),
    FunctionExercise(
        id="00.3",
        title="Measure agreement",
        spec=agreement,
        cases=(
            {"float_logits": np.array([[1.0, 2.0], [4.0, 3.0]]), "int8_logits": np.array([[0.0, 9.0], [5.0, 3.0]])},
            {"float_logits": np.array([[1.0, 2.0], [4.0, 3.0]]), "int8_logits": np.array([[3.0, 2.0], [5.0, 3.0]])},
            {"float_logits": np.array([[1.0, 2.0, 3.0]]), "int8_logits": np.array([[2.0, 2.0, 1.0]])},
        ),
        draw=_draw_logits,
    ),
    ChoiceExercise(
        id="00.4",
        title="Choose what calibration decides",
        right="b",
        why_not={
            "a": "weights are known without any picture: their ranges are read off the weights themselves.",
            "c": "calibration needs no labels and changes no weight; nothing is trained.",
            "d": "the recipe says how many bits; calibration takes that as given.",
        },
    ),
)
