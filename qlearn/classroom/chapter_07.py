"""Exercises of chapter 07, "Mixed precision"."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from qlearn.classroom.kinds import ChoiceExercise, FunctionExercise

if TYPE_CHECKING:
    import numpy as np


def packed_bytes(counts: list[int], bits: list[int]) -> int:
    """Return the bytes of the weights of all layers, packed without gaps; every layer starts at a byte."""
    total = 0
    for count, width in zip(counts, bits, strict=True):
        whole, rest = divmod(count * width, 8)
        total += whole + (1 if rest else 0)
    return total


def _draw_layers(rng: np.random.Generator, number: int) -> dict[str, Any]:
    layers = int(rng.integers(1, 8))
    counts = rng.integers(1, 200, layers)
    bits = rng.integers(2, 17 if number > 9 else 9, layers)
    if number == 0:
        counts[:], bits[:] = 1, 2  # a byte each, however little is in it
    if number == 1:
        counts = 8 * counts  # nothing to round up
    if number == 2:
        bits[:] = 8
    return {"counts": counts.tolist(), "bits": bits.tolist()}


def best_bits(counts: list[int], widths: list[int], costs: list[list[float]], budget: int) -> list[int]:
    """Return for each layer the bits with the least sum of costs, the weights taking at most so many bits."""
    best, least = [], float("inf")
    for picks in itertools.product(range(len(widths)), repeat=len(counts)):
        used, paid = 0, 0.0
        for layer, pick in enumerate(picks):
            used += counts[layer] * widths[pick]
            paid += costs[layer][pick]
        if used <= budget and paid < least:
            least = paid
            best = [widths[pick] for pick in picks]
    return best


def _draw_budget(rng: np.random.Generator, number: int) -> dict[str, Any]:
    layers = int(rng.integers(1, 5))
    counts = rng.integers(1, 100, layers).tolist()
    widths = [2, 4, 8] if number % 2 else [4, 8]
    costs = [sorted(rng.uniform(0.01, 9.0, len(widths)).round(4).tolist(), reverse=True) for _ in range(layers)]
    budget = int(sum(counts) * rng.uniform(widths[0], widths[-1]))
    if number == 0:
        budget = sum(counts) * widths[0]  # no choice: exactly met by the fewest bits
    if number == 1:
        budget = sum(counts) * widths[-1]  # exactly met by the most
    if number == 2:
        budget = 10**9
    return {"counts": counts, "widths": widths, "costs": costs, "budget": budget}


def trace_estimate(matrix: list[list[float]], vectors: list[list[int]]) -> float:
    """Return Hutchinson's estimate of the trace: the mean of v' H v over the vectors v."""
    total = 0.0
    for v in vectors:
        for i, row in enumerate(matrix):
            for j, entry in enumerate(row):
                total += v[i] * entry * v[j]
    return total / len(vectors)


def _draw_matrix(rng: np.random.Generator, number: int) -> dict[str, Any]:
    size = int(rng.integers(1, 5))
    half = rng.normal(size=(size, size)).round(2)
    vectors = 2 * rng.integers(0, 2, (int(rng.integers(1, 7)), size)) - 1
    if number == 0:
        half[:] = 0.0
    if number == 1:
        vectors = vectors[:1]
    return {"matrix": (half + half.T).round(2).tolist(), "vectors": vectors.tolist()}


def bit_operations(  # noqa: PLR0917  (what a convolution is)
    inputs: int, outputs: int, kernel: int, height: int, width: int, groups: int, weight_bits: int, input_bits: int
) -> int:
    """Return the bit-operations of a convolution whose output has ``outputs`` channels of height times width."""
    products = 0
    for _ in range(outputs):
        products += height * width * kernel * kernel * (inputs // groups)
    return products * weight_bits * input_bits


def _draw_convolution(rng: np.random.Generator, number: int) -> dict[str, Any]:
    inputs, outputs, kernel = (int(rng.integers(1, top)) for top in (9, 9, 4))
    groups = 1
    if number % 3 == 0:
        groups, outputs = inputs, 2 * inputs  # depthwise, two filters for each channel
    if number == 1:
        kernel = 1
    return {
        "inputs": inputs,
        "outputs": outputs,
        "kernel": kernel,
        "height": int(rng.integers(1, 12)),
        "width": int(rng.integers(1, 12)),
        "groups": groups,
        "weight_bits": int(rng.integers(2, 9)),
        "input_bits": int(rng.choice([4, 8, 16])),
    }


EXERCISES = (
    FunctionExercise(
        id="07.1",
        title="Pack the weights",
        spec=packed_bytes,
        cases=(
            {"counts": [8], "bits": [3]},
            {"counts": [3, 3], "bits": [4, 4]},
            {"counts": [27, 144, 10], "bits": [3, 5, 8]},
        ),
        draw=_draw_layers,
    ),
    FunctionExercise(
        id="07.2",
        title="Try everything",
        spec=best_bits,
        cases=(
            {"counts": [10], "widths": [4, 8], "costs": [[3.0, 0.0]], "budget": 80},
            {
                "counts": [6, 6, 10],
                "widths": [4, 8],
                "costs": [[3.0, 0.0], [4.0, 0.0], [6.0, 0.0]],
                "budget": 136,
            },
            {
                "counts": [10, 10],
                "widths": [2, 4, 8],
                "costs": [[9.0, 2.0, 0.1], [5.0, 1.5, 0.3]],
                "budget": 100,
            },
        ),
        draw=_draw_budget,
    ),
    FunctionExercise(
        id="07.3",
        title="Estimate a trace",
        spec=trace_estimate,
        cases=(
            {"matrix": [[2.0, 1.0], [1.0, 3.0]], "vectors": [[1, 1]]},
            {"matrix": [[2.0, 1.0], [1.0, 3.0]], "vectors": [[1, 1], [1, -1]]},
            {"matrix": [[0.0, 5.0], [5.0, 0.0]], "vectors": [[1, -1], [-1, 1], [1, 1]]},
        ),
        draw=_draw_matrix,
    ),
    FunctionExercise(
        id="07.4",
        title="Count bit-operations",
        spec=bit_operations,
        cases=(
            {
                "inputs": 3,
                "outputs": 5,
                "kernel": 1,
                "height": 8,
                "width": 8,
                "groups": 1,
                "weight_bits": 8,
                "input_bits": 8,
            },
            {
                "inputs": 16,
                "outputs": 32,
                "kernel": 3,
                "height": 10,
                "width": 12,
                "groups": 1,
                "weight_bits": 4,
                "input_bits": 8,
            },
            {
                "inputs": 16,
                "outputs": 16,
                "kernel": 3,
                "height": 10,
                "width": 10,
                "groups": 16,
                "weight_bits": 4,
                "input_bits": 16,
            },
        ),
        draw=_draw_convolution,
    ),
    ChoiceExercise(
        id="07.5",
        title="Promise only what is true",
        right="c",
        why_not={
            "a": "a kernel for int8 codes multiplies int8 codes, whatever values they may have: the time is the same.",
            "b": "each code still has a byte of its own there; only packing makes the memory smaller.",
            "d": "a code of 3 bits in an int8 is an ordinary int8 code; every int8 kernel takes it.",
        },
    ),
)
