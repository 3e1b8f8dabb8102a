"""Exercises of chapter 03, "Post-training quantization"."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qlearn.classroom.kinds import ChoiceExercise, FunctionExercise

if TYPE_CHECKING:
    import numpy as np


def fold_channel(  # noqa: PLR0917  (the numbers that a batch norm has)
    weights: list[float], bias: float, gamma: float, beta: float, mean: float, variance: float, eps: float
) -> list[float]:
    """Return the weights of one channel and then its bias, with the batch norm folded in (paper eq. 6 and 7)."""
    factor = gamma / math.sqrt(variance + eps)
    folded = []
    for weight in weights:
        folded.append(weight * factor)  # noqa: PERF401  (written out for readers)
    folded.append(beta + (bias - mean) * factor)
    return folded


def _draw_channel(rng: np.random.Generator, number: int) -> dict[str, Any]:
    weights = rng.normal(size=int(rng.integers(1, 7))).round(3)
    bias, gamma, beta, mean = rng.normal(size=4).round(3).tolist()
    variance = round(float(rng.uniform(0.01, 4.0)), 3)
    if number == 0:
        weights[:] = 0.0  # a dead channel
    if number == 1:
        gamma = 0.0
    if number == 2:
        variance = 0.0  # the channel never moved: only eps is left
    if number == 3:
        bias = 0.0  # eq. 7 as it is printed
    return {
        "weights": weights.tolist(),
        "bias": bias,
        "gamma": gamma,
        "beta": beta,
        "mean": mean,
        "variance": variance,
        "eps": 1e-3,
    }


def combined_bias(weight_codes: list[int], bias_code: int, x_zero: int) -> int:
    """Return the constant c for which Σ w q + c is Σ w (q - Z) + bias, whatever the input codes q are."""
    constant = bias_code
    for weight in weight_codes:
        constant -= weight * x_zero
    return constant


def _draw_filter(rng: np.random.Generator, number: int) -> dict[str, Any]:
    weights = rng.integers(-127, 128, int(rng.integers(1, 10)))
    x_zero = int(rng.integers(-128, 128))
    if number == 0:
        weights[:] = 0
    if number == 1:
        x_zero = 0
    if number == 2:
        x_zero = -128  # after a ReLU
    if number == 3:
        weights[:] = 127
    return {"weight_codes": weights.tolist(), "bias_code": int(rng.integers(-(2**20), 2**20)), "x_zero": x_zero}


def requantize(accumulator: int, mantissa: int, right: int, zero_point: int) -> int:
    """Return the int8 code: times mantissa / 2**31 (halves up), over 2**right (halves away from zero), + Z, clamp."""
    product = accumulator * mantissa
    high = (product + 2**30) // 2**31
    size = -high if high < 0 else high
    whole: int = 2**right
    steps, rest = divmod(size, whole)
    if 2 * rest >= whole and right > 0:
        steps += 1
    code = zero_point + (-steps if high < 0 else steps)
    return max(-128, min(127, code))


def _draw_accumulator(rng: np.random.Generator, number: int) -> dict[str, Any]:
    right = int(rng.integers(0, 12))
    mantissa = int(rng.integers(2**30, 2**31))
    accumulator = int(rng.integers(-128, 128)) * 2**right + int(rng.integers(-3, 4))
    if number < 8:  # halves, with both signs: mantissa 2**30 halves the accumulator
        mantissa, right = 2**30, max(right, 1)
        accumulator = (2 * int(rng.integers(-60, 60)) + 1) * 2**right
    if number == 8:
        accumulator = 0
    if number == 9:
        accumulator = -(2**31)  # the smallest accumulator
    return {
        "accumulator": accumulator,
        "mantissa": mantissa,
        "right": right,
        "zero_point": int(rng.integers(-128, 128)),
    }


def accumulator_bits(weight_codes: list[int], bias_code: int, x_zero: int) -> int:
    """Return the fewest bits of a signed accumulator that no picture can bring to overflow."""
    largest = smallest = bias_code
    for weight in weight_codes:
        ends = (weight * (-128 - x_zero), weight * (127 - x_zero))
        largest += max(ends)
        smallest += min(ends)
    bits = 1
    while smallest < -(2 ** (bits - 1)) or largest > 2 ** (bits - 1) - 1:
        bits += 1
    return bits


def _draw_wide_filter(rng: np.random.Generator, number: int) -> dict[str, Any]:
    case = _draw_filter(rng, number)
    if number > 3:
        case["weight_codes"] = rng.integers(-127, 128, int(rng.integers(1, 200))).tolist()
        case["bias_code"] = int(rng.integers(-2000, 2000))
    if number == 4:
        case |= {"weight_codes": [1], "bias_code": 0, "x_zero": -1}  # largest 128: one more than int8 holds
    if number == 5:
        case |= {"weight_codes": [1], "bias_code": 0, "x_zero": 0}  # -128 to 127: just int8
    return case


EXERCISES = (
    FunctionExercise(
        id="03.1",
        title="Fold one channel",
        spec=fold_channel,
        cases=(
            {
                "weights": [0.5, -1.0],
                "bias": 0.0,
                "gamma": 0.8,
                "beta": 0.1,
                "mean": 0.5,
                "variance": 0.15,
                "eps": 0.01,
            },
            {
                "weights": [0.5, -1.0],
                "bias": 0.3,
                "gamma": 0.8,
                "beta": 0.1,
                "mean": 0.5,
                "variance": 0.15,
                "eps": 0.01,
            },
            {"weights": [1.0], "bias": -1.0, "gamma": -0.5, "beta": 2.0, "mean": 1.0, "variance": 0.24, "eps": 0.01},
        ),
        draw=_draw_channel,
    ),
    FunctionExercise(
        id="03.2",
        title="Move the zero point into the bias",
        spec=combined_bias,
        cases=(
            {"weight_codes": [4, -2, 1, 3], "bias_code": 28, "x_zero": -3},
            {"weight_codes": [4, -2, 1, 3], "bias_code": 28, "x_zero": 0},
            {"weight_codes": [10, 20], "bias_code": -5, "x_zero": 7},
        ),
        draw=_draw_filter,
    ),
    FunctionExercise(
        id="03.3",
        title="Requantize with integers only",
        spec=requantize,
        cases=(
            {"accumulator": 93, "mantissa": 1717986918, "right": 3, "zero_point": -128},
            {"accumulator": -25, "mantissa": 1717986918, "right": 3, "zero_point": 10},
            {"accumulator": 5000, "mantissa": 1717986918, "right": 3, "zero_point": 0},
        ),
        draw=_draw_accumulator,
    ),
    FunctionExercise(
        id="03.4",
        title="Size the accumulator",
        spec=accumulator_bits,
        cases=(
            {"weight_codes": [1], "bias_code": 0, "x_zero": 0},
            {"weight_codes": [1, -1], "bias_code": 0, "x_zero": -128},
            {"weight_codes": [127] * 9, "bias_code": 10000, "x_zero": -128},
        ),
        draw=_draw_wide_filter,
    ),
    ChoiceExercise(
        id="03.5",
        title="Pad the border",
        right="b",
        why_not={
            "a": "the code 0 stands for the real number S (0 − Z), and that is zero only if Z is 0.",
            "c": "−128 is the smallest code; it stands for real zero only where Z is −128, as after a ReLU.",
            "d": "the border belongs to the input, and the input has a zero point of its own.",
        },
    ),
)
