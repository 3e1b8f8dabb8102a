"""Exercises of chapter 10, "Write a plugin"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qlearn.classroom.kinds import ChoiceExercise, FunctionExercise

if TYPE_CHECKING:
    import numpy as np


def merge_means(count_a: int, mean_a: float, count_b: int, mean_b: float) -> tuple[int, float]:
    """Return count and mean of the values of two workers together."""
    count = 0
    total = 0.0
    for number, mean in ((count_a, mean_a), (count_b, mean_b)):
        count += number
        total += number * mean
    return count, total / count


def _draw_means(rng: np.random.Generator, number: int) -> dict[str, Any]:
    counts = [int(count) for count in rng.integers(1, 1000, 2)]
    means = rng.normal(size=2).round(3).tolist()
    if number == 0:
        counts[1] = counts[0]
    if number == 1:
        counts[0] = 0  # a worker that saw nothing
    return {"count_a": counts[0], "mean_a": means[0], "count_b": counts[1], "mean_b": means[1]}


def power_of_two(scale: float) -> float:
    """Return the smallest power of two that is at least `scale`."""
    power = 1.0
    while power < scale:
        power *= 2
    while power / 2 >= scale:
        power /= 2
    return power


def _draw_scale(rng: np.random.Generator, number: int) -> dict[str, Any]:
    if number < 3:
        return {"scale": (1.0, 0.125, 1024.0)[number]}
    return {"scale": float(2.0 ** rng.uniform(-20, 10))}


def energy_threshold(counts: list[int], share: float) -> int:
    """Return the first upper edge below which at least `share` of the energy lies."""
    total = sum(count * (i + 0.5) ** 2 for i, count in enumerate(counts))
    seen, edge = 0.0, 0
    for i, count in enumerate(counts):
        seen += count * (i + 0.5) ** 2
        edge = i + 1
        if seen >= share * total:
            break
    return edge


def _draw_energy(rng: np.random.Generator, number: int) -> dict[str, Any]:
    while True:
        counts = (rng.exponential(size=10) * 1000 / 3.0 ** rng.integers(0, 8, 10)).astype(int)
        counts[0] += 1
        if number == 0:
            counts[1:] = 0
        if number == 1:
            counts[1:-1], counts[-1] = 0, 1  # one outlier
        share = float(rng.integers(500, 1000)) / 1000
        energies = [int(count) * (i + 0.5) ** 2 for i, count in enumerate(counts)]
        shares = [sum(energies[: i + 1]) / sum(energies) for i in range(len(energies))]
        if min(abs(reached - share) for reached in shares) > 1e-6:  # no tie
            return {"counts": counts.tolist(), "share": share}


EXERCISES = (
    FunctionExercise(
        id="10.1",
        title="Merge two means",
        spec=merge_means,
        cases=(
            {"count_a": 2, "mean_a": 1.0, "count_b": 2, "mean_b": 3.0},
            {"count_a": 1, "mean_a": 0.0, "count_b": 3, "mean_b": 4.0},
            {"count_a": 100, "mean_a": -1.0, "count_b": 0, "mean_b": 7.0},
        ),
        draw=_draw_means,
    ),
    FunctionExercise(
        id="10.2",
        title="Round a scale up to a power of two",
        spec=power_of_two,
        cases=({"scale": 0.3}, {"scale": 0.25}, {"scale": 3.0}),
        draw=_draw_scale,
    ),
    FunctionExercise(
        id="10.3",
        title="Keep a share of the energy",
        spec=energy_threshold,
        cases=(
            {"counts": [10, 10], "share": 0.5},
            {"counts": [1000, 0, 0, 1], "share": 0.99},
            {"counts": [1000, 100, 10, 1], "share": 0.7},
        ),
        draw=_draw_energy,
    ),
    ChoiceExercise(
        id="10.4",
        title="Choose what to declare",
        right="b",
        why_not={
            "a": "the largest value is exact, but of which batches? Reverse their order and see.",
            "c": "two of them, merged, would not know which batches were the last ten.",
            "d": "it never reaches beyond a value that it has seen.",
        },
    ),
    ChoiceExercise(
        id="10.5",
        title="Name what happens",
        right="d",
        why_not={
            "a": "which one was first differs from machine to machine, and so would your results.",
            "b": "a warning scrolls by, and the results still differ from machine to machine.",
            "c": "then the recipe would mean one thing here and another there.",
        },
    ),
)
