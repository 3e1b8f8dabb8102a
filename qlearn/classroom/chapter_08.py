"""Exercises of chapter 08, "Quantization-aware training"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qlearn.classroom.kinds import ChoiceExercise, FunctionExercise

if TYPE_CHECKING:
    import numpy as np


def input_gradient(x: list[float], gradient: list[float], scale: float, qmin: int, qmax: int) -> list[float]:
    """Return the gradient of x: what arrives, where round(x / S) is a code, and 0 elsewhere. Z is 0."""
    passed = []
    for value, arriving in zip(x, gradient, strict=True):
        code = round(value / scale)
        passed.append(arriving if qmin <= code <= qmax else 0.0)
    return passed


def step_size_gradient(x: list[float], gradient: list[float], scale: float, qmin: int, qmax: int) -> float:
    """Return the gradient of S: the sum of what arrives, times round(v) - v inside and the limit outside. Z is 0."""
    total = 0.0
    for value, arriving in zip(x, gradient, strict=True):
        v = value / scale
        code = round(v)
        if code < qmin:
            slope: float = qmin
        elif code > qmax:
            slope = qmax
        else:
            slope = code - v
        total += arriving * slope
    return total


def _draw_gradient(rng: np.random.Generator, number: int) -> dict[str, Any]:
    qmin, qmax = ((-4, 3), (-7, 7), (0, 15))[int(rng.integers(3))]
    scale = float(2.0 ** rng.integers(-4, 2))
    size = int(rng.integers(2, 7))
    v = rng.uniform(qmin - 2, qmax + 2, size)
    if number == 0:
        v = rng.uniform(-0.4, 0.4, size)  # everything rounds to 0
    if number == 1:
        v = v.clip(0, None) + qmax + 1  # everything is clipped
    if number == 2:
        v[0] = 1000.0  # one outlier
    v = v.round() + ((v - v.round()) * 0.9).round(2)  # not near a tie: every way to divide agrees
    gradient = rng.normal(size=size).round(2)
    return {"x": (v * scale).tolist(), "gradient": gradient.tolist(), "scale": scale, "qmin": qmin, "qmax": qmax}


def moving_range(batches: list[list[float]], momentum: float) -> tuple[float, float]:
    """Return the averages of the batches' extremes, zero included: the first batch starts, each later one counts m."""
    lo, hi = 0.0, 0.0
    for seen, batch in enumerate(batches):
        low, high = 0.0, 0.0
        for value in batch:
            low, high = min(low, value), max(high, value)
        weight = momentum if seen else 1.0
        lo = (1 - weight) * lo + weight * low
        hi = (1 - weight) * hi + weight * high
    return lo, hi


def _draw_batches(rng: np.random.Generator, number: int) -> dict[str, Any]:
    shift = (5.0, -5.0, 0.0)[number % 3] if number < 3 else float(rng.normal())
    batches = [(shift + rng.normal(size=int(rng.integers(1, 6)))).round(2).tolist() for _ in range(rng.integers(1, 6))]
    if number == 3:
        batches = [[0.75, 0.75]]  # a constant tensor
    if number == 4:
        batches[-1][0] = 1000.0  # one outlier, in the last batch
    return {"batches": batches, "momentum": float(rng.choice([0.01, 0.1, 0.5, 1.0]))}


def steps_until_it_moves(update: float, scale: float) -> int:
    """Return after how many equal updates a weight that is kept in float, and starts at 0, has another code than 0."""
    weight, steps = 0.0, 0
    while round(weight / scale) == 0:
        weight += update
        steps += 1
    return steps


def _draw_update(rng: np.random.Generator, number: int) -> dict[str, Any]:
    while True:
        ratio = float(10 ** rng.uniform(-2, 0.3))  # updates to half a step
        ratio = 0.9 if number == 0 else 7.3 if number == 1 else ratio
        if 0.02 < (1 / ratio) % 1 < 0.98 or ratio > 1:  # not near a tie
            scale = float(2.0 ** rng.integers(-8, 1))
            return {"update": float(rng.choice([-1, 1])) * ratio * scale / 2, "scale": scale}


EXERCISES = (
    FunctionExercise(
        id="08.1",
        title="Pass the gradient on",
        spec=input_gradient,
        cases=(
            {"x": [0.2, -0.7, 9.0], "gradient": [1.0, 2.0, 3.0], "scale": 0.5, "qmin": -4, "qmax": 3},
            {"x": [1.7, -2.2, 1.8], "gradient": [1.0, 1.0, 1.0], "scale": 0.5, "qmin": -4, "qmax": 3},
            {"x": [-0.1, -0.2, 0.1], "gradient": [1.0, 1.0, -1.0], "scale": 0.25, "qmin": 0, "qmax": 15},
        ),
        draw=_draw_gradient,
    ),
    FunctionExercise(
        id="08.2",
        title="Move the step size",
        spec=step_size_gradient,
        cases=(
            {"x": [0.4], "gradient": [1.0], "scale": 0.5, "qmin": -4, "qmax": 3},
            {"x": [9.0, -9.0], "gradient": [1.0, 2.0], "scale": 0.5, "qmin": -4, "qmax": 3},
            {"x": [0.4, 0.6, 9.0], "gradient": [1.0, 1.0, -0.5], "scale": 0.5, "qmin": -4, "qmax": 3},
        ),
        draw=_draw_gradient,
    ),
    FunctionExercise(
        id="08.3",
        title="Let a range follow the batches",
        spec=moving_range,
        cases=(
            {"batches": [[-1.0, 2.0]], "momentum": 0.1},
            {"batches": [[-1.0, 2.0], [-3.0, 4.0]], "momentum": 0.5},
            {"batches": [[1.0, 2.0], [3.0, 4.0], [2.0, 10.0]], "momentum": 0.1},
        ),
        draw=_draw_batches,
    ),
    FunctionExercise(
        id="08.4",
        title="Count until the code moves",
        spec=steps_until_it_moves,
        cases=(
            {"update": 0.3, "scale": 1.0},
            {"update": -0.06, "scale": 0.25},
            {"update": 0.7, "scale": 1.0},
        ),
        draw=_draw_update,
    ),
    ChoiceExercise(
        id="08.5",
        title="Name the culprit",
        right="c",
        why_not={
            "a": "collecting new statistics changes no step size in the units it is stored in, "
            "and could not repair one that had run away.",
            "b": "then the loss in training would be bad, too: training rounds at the same places.",
            "d": "evaluation and integers have the same codes; only a few sums of training lie near a tie.",
        },
    ),
)
