"""Exercises of chapter 05, "Equalization"."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from qlearn.classroom.kinds import ChoiceExercise, FunctionExercise

if TYPE_CHECKING:
    import numpy as np


def equalizing_factors(first: list[list[float]], second: list[list[float]]) -> list[float]:
    """Return √(r1 / r2) for every channel: a row of the first layer, a column of the second; 1 where either is 0."""
    factors = []
    for channel, row in enumerate(first):
        written = max(abs(weight) for weight in row)
        read = max(abs(weights[channel]) for weights in second)
        factors.append(math.sqrt(written / read) if written > 0 and read > 0 else 1.0)
    return factors


def _draw_pair(rng: np.random.Generator, number: int) -> dict[str, Any]:
    inputs, channels, outputs = (int(n) for n in rng.integers(1, 5, 3))
    sizes = 2.0 ** rng.integers(-6, 7, (channels, 1))
    first = rng.normal(size=(channels, inputs)) * sizes + 1e-3
    second = rng.normal(size=(outputs, channels)) + 1e-3
    if number == 0:
        first[0] = 0.0  # nothing writes the channel: dead
    if number == 1:
        second[:, 0] = 0.0  # nothing reads it
    if number == 2:
        first, second = -abs(first), -abs(second)
    return {"first": first.round(3).tolist(), "second": second.round(3).tolist()}


def absorb(means: list[float], stds: list[float], weights: list[list[float]], biases: list[float]) -> list[float]:
    """Return the next layer's biases when each channel has lost max(0, mean - 3 std)."""
    raised = []
    for row, bias in zip(weights, biases, strict=True):
        gain = 0.0
        for weight, mean, std in zip(row, means, stds, strict=True):
            gain += weight * max(0.0, mean - 3 * std)
        raised.append(bias + gain)
    return raised


def _draw_statistics(rng: np.random.Generator, number: int) -> dict[str, Any]:
    channels, outputs = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    means, stds = rng.normal(2, 3, channels), rng.uniform(0.1, 1.5, channels)
    if number == 0:
        stds[:] = 0.0  # constants
    if number == 1:
        means = 3 * stds  # nothing to absorb, by a hair
    if number == 2:
        means = -abs(means)
    weights = rng.normal(size=(outputs, channels))
    return {
        "means": means.round(3).tolist(),
        "stds": stds.round(3).tolist(),
        "weights": weights.round(3).tolist(),
        "biases": rng.normal(size=outputs).round(3).tolist(),
    }


def corrected_bias(weights: list[float], bias: float, scale: float, means: list[float]) -> float:
    """Return the bias that keeps the mean of Σ w x + b when each weight becomes the nearest multiple of the scale."""
    shift = 0.0
    for weight, mean in zip(weights, means, strict=True):
        shift += (round(weight / scale) * scale - weight) * mean
    return bias - shift


def _draw_weights(rng: np.random.Generator, number: int) -> dict[str, Any]:
    taps = int(rng.integers(1, 7))
    weights, means = rng.normal(size=taps), abs(rng.normal(size=taps))
    scale = float(rng.choice([0.05, 0.1, 0.3]))
    if number == 0:
        means[:] = 0.0  # inputs that are zero on average: nothing to correct
    if number == 1:
        weights[:] = scale * rng.integers(-7, 8, taps)  # nothing was rounded
    if number == 2:
        means = -means
    return {
        "weights": weights.round(3).tolist(),
        "bias": round(float(rng.normal()), 3),
        "scale": scale,
        "means": means.round(3).tolist(),
    }


def least_error(weights: list[float], scale: float, inputs: list[list[float]]) -> float:
    """Return the least Σ (Σ (w_q - w) x)² over all ways to round each weight down or up."""
    best = math.inf
    for ups in itertools.product((0, 1), repeat=len(weights)):
        total = 0.0
        for x in inputs:
            difference = 0.0
            for weight, up, value in zip(weights, ups, x, strict=True):
                level = (math.floor(weight / scale) + up) * scale
                difference += (level - weight) * value
            total += difference**2
        best = min(best, total)
    return best


def _draw_filter(rng: np.random.Generator, number: int) -> dict[str, Any]:
    taps, count = int(rng.integers(1, 6)), int(rng.integers(1, 5))
    inputs = abs(rng.normal(size=(count, taps)))
    if number == 0:
        inputs[:] = inputs[:, :1]  # every weight sees the same
    if number == 1:
        inputs[1:] = 0.0
    if number == 2:
        inputs = rng.normal(size=(count, taps))
    return {
        "weights": rng.normal(size=taps).round(3).tolist(),
        "scale": 0.5,
        "inputs": inputs.round(3).tolist(),
    }


EXERCISES = (
    FunctionExercise(
        id="05.1",
        title="Find the factors",
        spec=equalizing_factors,
        cases=(
            {"first": [[16.0, -8.0], [0.5, 0.25]], "second": [[1.0, 8.0], [-0.5, 4.0]]},
            {"first": [[-9.0], [1.0]], "second": [[1.0, -4.0]]},
            {"first": [[0.0], [1.0]], "second": [[300.0, 4.0]]},
        ),
        draw=_draw_pair,
    ),
    FunctionExercise(
        id="05.2",
        title="Absorb a high bias",
        spec=absorb,
        cases=(
            {"means": [10.0, 0.5], "stds": [1.0, 1.0], "weights": [[2.0, 3.0]], "biases": [1.0]},
            {"means": [4.0, 7.0], "stds": [1.0, 2.0], "weights": [[1.0, -1.0], [0.5, 2.0]], "biases": [0.0, -1.0]},
            {"means": [-8.0], "stds": [1.0], "weights": [[1.0]], "biases": [0.25]},
        ),
        draw=_draw_statistics,
    ),
    FunctionExercise(
        id="05.3",
        title="Correct a bias",
        spec=corrected_bias,
        cases=(
            {"weights": [0.34, -0.12, 0.22, 0.04], "bias": 0.5, "scale": 0.1, "means": [1.0, 2.0, 0.5, 3.0]},
            {"weights": [0.34, -0.12], "bias": 0.0, "scale": 0.1, "means": [1.0, -2.0]},
            {"weights": [1.0], "bias": -0.25, "scale": 0.3, "means": [4.0]},
        ),
        draw=_draw_weights,
    ),
    FunctionExercise(
        id="05.4",
        title="Try every rounding",
        spec=least_error,
        cases=(
            {"weights": [0.2, 0.2], "scale": 0.5, "inputs": [[1.0, 1.0]]},
            {"weights": [0.2, -0.2, 0.7], "scale": 0.5, "inputs": [[1.0, 0.0, 2.0], [0.5, 1.0, 1.0]]},
            {"weights": [0.5, 0.6], "scale": 0.5, "inputs": [[1.0, 3.0]]},
        ),
        draw=_draw_filter,
    ),
    ChoiceExercise(
        id="05.5",
        title="Carry a ReLU6 along",
        right="c",
        why_not={
            "a": "h / s may be larger than 6, or may never come near it: the cut would happen at another place.",
            "b": "that is the end for a channel that was multiplied by s; this one was divided.",
            "d": "then values above 6 would no longer be cut, and the network would be another.",
        },
    ),
)
