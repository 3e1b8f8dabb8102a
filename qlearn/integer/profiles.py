"""Which runtime computes what in which way: one frozen value, passed as an argument.

A profile names, for every operation where runtimes differ, the function that computes it.
``fixed`` and ``float32`` are the two policies of the course: one way of rounding throughout.
``litert_reference``, ``xnnpack`` and ``onnxruntime`` compute the same integers as those runtimes, bit for bit.

==================  =================  ===============  ==================  ===================
operation           litert_reference   xnnpack          onnxruntime         fixed / float32
==================  =================  ===============  ==================  ===================
conv2d              Q31, twice         float32          float32             Q31 / float32
linear              float64, away      float32          float32             Q31 / float32
add                 Q31, three times   21 bits, up      float32, fused      Q31 / float32
multiply            Q31                float32          float32, Z in       Q31 / float32
mean                Q31                float32, Z in    float32             Q31 / float32
average pool        away               away             float32, Z in       away
change of scale     Q31                8 bits, up       float32             Q31 / float32
softmax             fixed point        float32, away    float32, even       fixed / float32
sigmoid, tanh       float32, away      float32, Z in    rational function   float64, away
hard-swish          16 bits            16 bits          float32             float64, away
quantize            x / S, away        x (1/S), even    x / S, even         x (1/S), even
==================  =================  ===============  ==================  ===================

"Z in" says that the zero point is added before rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import KernelError
from qlearn.integer import elementwise, reduce, reference, softmax, tables
from qlearn.integer.requantize import (
    requantize_fixed,
    requantize_float32,
    requantize_float64,
    requantize_wide,
    round_half_away,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from qlearn.numbers.qparams import QParams

    Codes = NDArray[Any]
    Requantize = Callable[[Codes, ArrayLike, ArrayLike, ArrayLike, int | None], NDArray[np.int64]]


@dataclass(frozen=True)
class Profile:
    """The arithmetic of one runtime: one function for each operation where runtimes differ.

    Parameters
    ----------
    name : str
    requantize, linear : (accumulator, S_in, S_weight, S_out, axis) -> steps
        Of convolutions and of fully connected layers.
    wide, wide_linear : likewise
        Of 64-bit accumulators: 16-bit activations.
    add : (a, b, qparams of a, of b, of the output, sign) -> codes
    multiply : (a, b, qparams of a, of b, of the output) -> codes
    mean : (sum, count, qparams, of the output) -> codes
    average : (windows, qparams, of the output) -> codes
    convert : (codes, qparams, of the output) -> codes
        A change of scale.
    softmax : (codes, qparams, of the output, beta) -> codes
    table : (name of a function, qparams, of the output) -> table of codes
    quantize : (real numbers, qparams) -> codes

    Examples
    --------
    >>> profile = profile_named("litert_reference")
    >>> profile.linear(np.int32([5, 15]), 1.0, 0.1, 1.0, None)
    array([1, 2])
    """

    name: str
    requantize: Requantize
    linear: Requantize
    wide: Requantize
    wide_linear: Requantize
    add: Callable[..., Codes]
    multiply: Callable[..., Codes]
    mean: Callable[[Codes, int, QParams, QParams], Codes]
    average: Callable[[reference.Windows, QParams, QParams], Codes]
    convert: Callable[[Codes, QParams, QParams], Codes]
    softmax: Callable[[Codes, QParams, QParams, float], Codes]
    table: Callable[[str, QParams, QParams], Codes]
    quantize: Callable[[NDArray[np.float32], QParams], Codes]


def _quantize_away(x: NDArray[np.float32], qparams: QParams) -> Codes:
    """round(x / S) + Z, halves away from zero: LiteRT's reference kernel of QUANTIZE."""
    return _saturated(round_half_away(x / qparams.scale), qparams)


def _quantize_divide(x: NDArray[np.float32], qparams: QParams) -> Codes:
    """rint(x / S) + Z: ONNX's QuantizeLinear."""
    return _saturated(np.rint(x / qparams.scale), qparams)


def _saturated(steps: NDArray[Any], qparams: QParams) -> Codes:
    return np.asarray(np.clip(steps + qparams.zero_point, qparams.qmin, qparams.qmax).astype(qparams.dtype))


FIXED = Profile(
    name="fixed",
    requantize=requantize_fixed,
    linear=requantize_fixed,
    wide=requantize_wide,
    wide_linear=requantize_wide,
    add=elementwise.add_fixed,
    multiply=elementwise.multiply_fixed,
    mean=reduce.mean_fixed,
    average=reduce.average_half_away,
    convert=elementwise.convert_fixed,
    softmax=softmax.softmax_fixed,
    table=tables.unary_table,
    quantize=reference.quantize,
)
FLOAT32 = Profile(
    name="float32",
    requantize=requantize_float32,
    linear=requantize_float32,
    wide=requantize_float32,
    wide_linear=requantize_float32,
    add=elementwise.add_float32,
    multiply=elementwise.multiply_float32,
    mean=reduce.mean_float32,
    average=reduce.average_half_away,
    convert=elementwise.convert_float32,
    softmax=softmax.softmax_float,
    table=tables.unary_table,
    quantize=reference.quantize,
)
LITERT_REFERENCE = replace(
    FIXED,
    name="litert_reference",
    linear=requantize_float64,
    wide_linear=requantize_float64,
    table=tables.table_litert,
    quantize=_quantize_away,
)
XNNPACK = replace(
    FLOAT32,
    name="xnnpack",
    wide=requantize_wide,
    wide_linear=requantize_float64,
    add=elementwise.add_xnnpack,
    mean=reduce.mean_xnnpack,
    convert=elementwise.convert_xnnpack,
    table=tables.table_xnnpack,
)
ONNXRUNTIME = replace(
    FLOAT32,
    name="onnxruntime",
    add=elementwise.add_onnxruntime,
    multiply=elementwise.multiply_onnxruntime,
    mean=reduce.mean_onnxruntime,
    average=reduce.average_onnxruntime,
    softmax=softmax.softmax_onnxruntime,
    table=tables.table_onnxruntime,
    quantize=_quantize_divide,
)

POLICIES: dict[str, Profile] = {profile.name: profile for profile in (FIXED, FLOAT32)}
"""The two profiles with one way of rounding throughout."""

PROFILES: dict[str, Profile] = POLICIES | {p.name: p for p in (LITERT_REFERENCE, XNNPACK, ONNXRUNTIME)}
"""All profiles by name."""


def profile_named(name: str) -> Profile:
    """Return the profile of that name; KernelError lists the names if there is none.

    Examples
    --------
    >>> profile_named("xnnpack").add.__name__
    'add_xnnpack'
    """
    if name not in PROFILES:
        raise KernelError(f"no requantization policy {name!r}: choose one of {', '.join(sorted(PROFILES))}")
    return PROFILES[name]
