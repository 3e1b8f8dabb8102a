"""Exercises of chapter 11, "At paper scale"."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qlearn.classroom.kinds import ChoiceExercise, FunctionExercise

if TYPE_CHECKING:
    import numpy as np


def pictures_needed(accuracy: float, half: float) -> int:
    """Return the smallest number of pictures whose accuracy is known to plus or minus half, at 95 %."""
    count = 1
    while 1.96 * math.sqrt(accuracy * (1 - accuracy) / count) > half:
        count += 1
    return count


def _draw_wish(rng: np.random.Generator, number: int) -> dict[str, Any]:
    accuracy, half = round(float(rng.uniform(0.02, 0.98)), 2), round(float(rng.uniform(0.011, 0.1)), 3)
    if number == 0:
        accuracy = 1.0  # always right: one picture says it all
    if number == 1:
        accuracy, half = 0.5, 0.9  # a wish that one picture fulfils, too
    return {"accuracy": accuracy, "half": half}


def levels_left(ratio: float, bits: int) -> int:
    """Return how many codes a channel reaches whose range is `ratio` times smaller than that of the largest."""
    highest = 2 ** (bits - 1) - 1
    reached = set()
    for code in range(-highest, highest + 1):
        if abs(code) <= round(highest / ratio):
            reached.add(code)
    return len(reached)


def _draw_ratio(rng: np.random.Generator, number: int) -> dict[str, Any]:
    bits = int(rng.choice([4, 6, 8]))
    ratio = round(float(2 ** rng.uniform(0, 9)), 2)
    if number == 0:
        ratio = 1.0  # the largest channel itself
    if number == 1:
        ratio, bits = 300.0, 8  # nothing but zero
    return {"ratio": ratio, "bits": bits}


def chance_of_a_coin(only_first: int, only_second: int) -> float:
    """Return the probability that a fair coin splits as many tosses at least as unevenly, in either direction."""
    tosses, most = only_first + only_second, max(only_first, only_second)
    ways = 0
    for heads in range(tosses + 1):
        if max(heads, tosses - heads) >= most:
            ways += math.comb(tosses, heads)
    return float(ways / 2**tosses)


def _draw_split(rng: np.random.Generator, number: int) -> dict[str, Any]:
    first, second = (int(count) for count in rng.integers(0, 40, 2))
    if number == 0:
        first = second = 0  # the same answers
    if number == 1:
        second = first  # as even as can be
    if number == 2:
        first = 0
    return {"only_first": first, "only_second": second}


EXERCISES = (
    FunctionExercise(
        id="11.1",
        title="Count the pictures",
        spec=pictures_needed,
        cases=(
            {"accuracy": 0.65, "half": 0.04},
            {"accuracy": 0.75, "half": 0.01},
            {"accuracy": 0.0, "half": 0.05},
        ),
        draw=_draw_wish,
    ),
    FunctionExercise(
        id="11.2",
        title="Count the codes that are left",
        spec=levels_left,
        cases=(
            {"ratio": 100.0, "bits": 8},
            {"ratio": 241.0, "bits": 8},
            {"ratio": 3.0, "bits": 4},
        ),
        draw=_draw_ratio,
    ),
    FunctionExercise(
        id="11.3",
        title="Toss a coin",
        spec=chance_of_a_coin,
        cases=(
            {"only_first": 5, "only_second": 0},
            {"only_first": 2, "only_second": 7},
            {"only_first": 3, "only_second": 3},
        ),
        draw=_draw_split,
    ),
    ChoiceExercise(
        id="11.4",
        title="Say what the numbers allow",
        right="c",
        why_not={
            "a": "the interval reaches from a loss of 1.2 points to a gain of as many: neither is excluded.",
            "b": "these are other photographs than those of the paper, and the network is another one.",
            "d": "two intervals that overlap say little; the paired difference has its own, and it leaves zero out.",
        },
    ),
)
