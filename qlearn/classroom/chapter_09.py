"""Exercises of chapter 09, "Best practices"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qlearn.classroom.kinds import ChoiceExercise, FunctionExercise

if TYPE_CHECKING:
    import numpy as np

PICTURES, QUANTIZATION, RUNTIME = 1, 2, 3
"""The parts of a deployment that can be broken."""


def stop_at(lows: list[float], limit: float) -> int:
    """Return the first rung whose low end is not below the limit, or -1."""
    for index, low in enumerate(lows):
        if low >= limit:
            return index
    return -1


def _draw_ladder(rng: np.random.Generator, number: int) -> dict[str, Any]:
    lows = rng.uniform(-4, 1, int(rng.integers(1, 7))).round(1)
    limit = float(rng.choice([-2.0, -1.0, -0.5]))
    if number == 0:
        lows = lows - 10  # nothing is good enough
    if number == 1:
        lows[-1] = limit  # just good enough
    if number == 2:
        lows[:] = 0.0  # the first one will do
    return {"lows": lows.tolist(), "limit": limit}


def pictures_needed(differ: float, points: float) -> int:
    """Return the smallest number of pictures whose interval reaches no further down than `points`."""
    pictures = 1
    while 196**2 * differ > points**2 * pictures:
        pictures += 1
    return pictures


def _draw_shares(rng: np.random.Generator, number: int) -> dict[str, Any]:
    differ, points = round(float(rng.uniform(0.001, 0.2)), 3), float(rng.choice([0.5, 1.0, 2.0, 3.0]))
    if number == 0:
        differ = 0.0  # never a different verdict
    if number == 1:
        differ, points = 0.25, 1.96  # a whole number exactly
    return {"differ": differ, "points": points}


def broken_part(expected: int, float_there: int, simulated: int, same: int, limit: int) -> int:
    """Return which part is broken: 0 for none, else `PICTURES`, `QUANTIZATION` or `RUNTIME`."""
    if expected - float_there > limit:
        return PICTURES
    if float_there - simulated > limit:
        return QUANTIZATION
    if not same:
        return RUNTIME
    return 0


def _draw_deployment(rng: np.random.Generator, number: int) -> dict[str, Any]:
    expected, limit = int(rng.integers(60, 99)), int(rng.choice([1, 2, 5]))
    float_there = expected - int(rng.choice([-5, 0, limit, limit + 1, 30]))
    simulated = float_there - int(rng.choice([-5, 0, limit, limit + 1, 25]))
    same = int(rng.integers(0, 2))
    if number == 0:
        float_there = simulated = expected - 40  # the quantization is innocent
    if number == 1:
        float_there, simulated, same = expected, expected, 0  # the same answers, and still a bug
    if number == 2:
        float_there, simulated, same = expected - limit, expected - 2 * limit, 1  # each just within the limit
    if number == 3:
        float_there, simulated, same = expected + 5, expected + 5, 1  # easier pictures than in training
    given = {"expected": expected, "float_there": float_there, "simulated": simulated}
    return given | {"same": same, "limit": limit}


EXERCISES = (
    FunctionExercise(
        id="09.1",
        title="Stop at the right rung",
        spec=stop_at,
        cases=(
            {"lows": [-61.0, -0.4, -0.1], "limit": -1.0},
            {"lows": [-3.0, -1.0], "limit": -1.0},
            {"lows": [-3.0, -1.2], "limit": -1.0},
        ),
        draw=_draw_ladder,
    ),
    FunctionExercise(
        id="09.2",
        title="How many pictures prove it?",
        spec=pictures_needed,
        cases=(
            {"differ": 0.25, "points": 1.96},
            {"differ": 0.01, "points": 1.0},
            {"differ": 0.1, "points": 1.0},
        ),
        draw=_draw_shares,
    ),
    FunctionExercise(
        id="09.3",
        title="Which part is broken?",
        spec=broken_part,
        cases=(
            {"expected": 96, "float_there": 60, "simulated": 60, "same": 1, "limit": 1},
            {"expected": 96, "float_there": 96, "simulated": 10, "same": 0, "limit": 1},
            {"expected": 96, "float_there": 95, "simulated": 95, "same": 0, "limit": 1},
        ),
        draw=_draw_deployment,
    ),
    ChoiceExercise(
        id="09.4",
        title="The next step",
        right="c",
        why_not={
            "a": "it may be 2.5 points worse. That nobody can tell is the fault of 150 pictures.",
            "b": "training costs hours, and nothing shows yet that anything was lost.",
            "d": "that selects luck: the pictures on which you choose can no longer prove anything.",
        },
    ),
    ChoiceExercise(
        id="09.5",
        title="The best of forty",
        right="b",
        why_not={
            "a": "of forty networks that are all as good as float, the best one on 500 pictures is ahead by luck.",
            "c": "rounding changes answers both ways, so a gain is possible; the question is how much of it is luck.",
            "d": "nobody will deploy the mean. The chosen recipe has an accuracy of its own, and can be measured.",
        },
    ),
)
