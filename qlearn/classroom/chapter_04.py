"""Exercises of chapter 04, "Calibration"."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qlearn.classroom.kinds import ChoiceExercise, FunctionExercise

if TYPE_CHECKING:
    import numpy as np


def min_max_range(batches: list[list[float]]) -> tuple[float, float]:
    """Return the smallest and the largest value of all batches, and of zero."""
    lo, hi = 0.0, 0.0
    for batch in batches:
        for value in batch:
            lo = min(lo, value)
            hi = max(hi, value)
    return lo, hi


def _draw_batches(rng: np.random.Generator, number: int) -> dict[str, Any]:
    shift = (5.0, -5.0, 0.0)[number % 3] if number < 3 else float(rng.normal())
    batches = [(shift + rng.normal(size=int(rng.integers(1, 6)))).round(2).tolist() for _ in range(rng.integers(1, 5))]
    if number == 3:
        batches = [[0.0, 0.0]]  # a constant tensor
    if number == 4:
        batches[0][0] = 1000.0  # one outlier, in the first batch
    return {"batches": batches}


def mean_std_range(values: list[float], k: float) -> tuple[float, float]:
    """Return mu - k sigma and mu + k sigma, cut to the values, with zero included. Sigma divides by n."""
    total = 0.0
    for value in values:
        total += value
    mean = total / len(values)
    squares = 0.0
    for value in values:
        squares += (value - mean) ** 2
    std = math.sqrt(squares / len(values))
    lo, hi = mean - k * std, mean + k * std
    lo, hi = max(lo, min(values)), min(hi, max(values))
    return min(lo, 0.0), max(hi, 0.0)


def _draw_spread(rng: np.random.Generator, number: int) -> dict[str, Any]:
    values = rng.normal(loc=rng.choice([-3.0, 0.0, 3.0]), size=int(rng.integers(2, 12))).round(2)
    if number == 0:
        values[:] = 0.75  # a constant tensor
    if number == 1:
        values = abs(values)
    if number == 2:
        values[0] = 50.0  # one outlier
    return {"values": values.tolist(), "k": float(rng.choice([0.5, 1.0, 2.0, 3.0]))}


def percentile_threshold(counts: list[int], width: float, percent: float) -> float:
    """Return the upper edge of the first bin up to which at least `percent` % of all values lie."""
    total = 0
    for count in counts:
        total += count
    seen, edge = 0, 0.0
    for number, count in enumerate(counts, start=1):
        seen += count
        edge = number * width
        if 100 * seen >= percent * total:
            break
    return edge


def _draw_counts(rng: np.random.Generator, number: int) -> dict[str, Any]:
    while True:
        counts = (rng.exponential(size=8) * 100 / (1 + rng.permutation(8))).astype(int)
        counts[0] += 1
        if number == 0:
            counts[1:] = 0  # a constant tensor
        if number == 1:
            counts[1:-1], counts[-1] = 0, 1  # one outlier
        percent = 100.0 if number == 2 else float(rng.integers(50, 1000)) / 10
        percent = max(percent, 50.0)
        share = 100 * counts.cumsum() / counts.sum()
        if number == 2 or abs(share - percent).min() > 1e-6:  # no tie: every way to round the count agrees
            width = float(2.0 ** rng.integers(-4, 3))
            return {"counts": counts.tolist(), "width": width, "percent": percent}


def merge_counts(a: list[int], exponent_a: int, b: list[int], exponent_b: int) -> list[int]:
    """Return the counts of both histograms in bins of the wider width; bin i starts at i * 2**exponent."""
    merged = [0] * len(a)
    widest = max(exponent_b, exponent_a)
    for counts, exponent in ((a, exponent_a), (b, exponent_b)):
        per_bin = 1
        for _ in range(widest - exponent):
            per_bin *= 2
        for place, count in enumerate(counts):
            merged[place // per_bin] += count
    return merged


def _draw_histograms(rng: np.random.Generator, number: int) -> dict[str, Any]:
    bins = 2 ** int(rng.integers(1, 5))
    a, b = (rng.integers(0, 20, bins).tolist() for _ in range(2))
    exponents = [int(exponent) for exponent in rng.integers(-4, 3, 2)]
    if number == 0:
        exponents = [-2, -2]
    if number == 1:
        exponents = [-9, 3]  # all of a falls into one bin
    if number == 2:
        a = [0] * bins
    return {"a": a, "exponent_a": exponents[0], "b": b, "exponent_b": exponents[1]}


def best_threshold(values: list[float], thresholds: list[float], bits: int) -> float:
    """Return the threshold whose restricted symmetric codes leave the least sum of squared errors."""
    return min(thresholds, key=lambda threshold: _noise(values, threshold, bits))


def _noise(values: list[float], threshold: float, bits: int) -> float:
    qmax = 2 ** (bits - 1) - 1
    scale = threshold / qmax
    noise = 0.0
    for value in values:
        code = max(-qmax, min(qmax, round(value / scale)))
        noise += (value - code * scale) ** 2
    return noise


def _draw_thresholds(rng: np.random.Generator, number: int) -> dict[str, Any]:
    while True:
        values = rng.normal(size=int(rng.integers(4, 20))).round(2)
        if number % 2:
            values[0] = float(rng.choice([-1, 1])) * round(float(rng.uniform(3, 8)), 2)  # one outlier
        if number == 0:
            values[:] = 0.75
        if number == 2:
            values = abs(values)
        bits = int(rng.integers(2, 5))
        thresholds = rng.uniform(0.2, 1.2, 5) * max(1.0, float(abs(values).max()))
        case = {"values": values.tolist(), "thresholds": thresholds.round(2).tolist(), "bits": bits}
        best, second = sorted(_noise(case["values"], t, bits) for t in case["thresholds"])[:2]
        if second > 1.02 * best + 1e-6:  # a clear winner, whatever the order of the additions
            return case


EXERCISES = (
    FunctionExercise(
        id="04.1",
        title="Collect the extremes",
        spec=min_max_range,
        cases=(
            {"batches": [[0.5, 2.0], [-1.0]]},
            {"batches": [[2.0, 3.0], [2.5]]},
            {"batches": [[-3.0], [-1.0, -2.0]]},
        ),
        draw=_draw_batches,
    ),
    FunctionExercise(
        id="04.2",
        title="Cut mean and deviation to the data",
        spec=mean_std_range,
        cases=(
            {"values": [-3.0, -1.0, 1.0, 3.0], "k": 1.0},
            {"values": [0.0, 0.0, 0.0, 4.0], "k": 3.0},
            {"values": [5.0, 6.0], "k": 1.0},
        ),
        draw=_draw_spread,
    ),
    FunctionExercise(
        id="04.3",
        title="Read a percentile off counts",
        spec=percentile_threshold,
        cases=(
            {"counts": [90, 9, 1], "width": 0.5, "percent": 99.0},
            {"counts": [90, 9, 1], "width": 0.5, "percent": 99.5},
            {"counts": [90, 9, 1, 0], "width": 0.25, "percent": 100.0},
        ),
        draw=_draw_counts,
    ),
    FunctionExercise(
        id="04.4",
        title="Merge two histograms",
        spec=merge_counts,
        cases=(
            {"a": [1, 2, 3, 4], "exponent_a": 0, "b": [5, 0, 0, 1], "exponent_b": 0},
            {"a": [1, 2, 3, 4], "exponent_a": -1, "b": [5, 0, 0, 1], "exponent_b": 0},
            {"a": [5, 0, 0, 1], "exponent_a": 1, "b": [1, 2, 3, 4], "exponent_b": -1},
        ),
        draw=_draw_histograms,
    ),
    FunctionExercise(
        id="04.5",
        title="Search the threshold",
        spec=best_threshold,
        cases=(
            {"values": [-1.0, -0.4, 0.1, 0.6, 1.0], "thresholds": [0.4, 1.0, 2.0], "bits": 3},
            {"values": [-0.5, -0.3, 0.2, 0.4, 0.5, 4.0], "thresholds": [0.5, 1.5, 4.0], "bits": 8},
            {"values": [-0.5, 0.5, 0.4, -0.4, 0.5, -0.5, 1.0], "thresholds": [0.5, 1.0], "bits": 2},
        ),
        draw=_draw_thresholds,
    ),
    ChoiceExercise(
        id="04.6",
        title="Name the culprit",
        right="c",
        why_not={
            "a": "the smallest of all values is the same, in whatever order they come.",
            "b": "a percentile is read from counts, and counts do not know who came first.",
            "d": "it searches the histogram, whose counts are sums of whole numbers: no order in them.",
        },
    ),
)
