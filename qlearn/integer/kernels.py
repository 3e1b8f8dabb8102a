"""The table of operations: how each layer of an integer model is computed, under any profile.

A kernel takes the layer, its inputs with their `QParams`, and a profile;
it returns output codes, zero point included, which `run_layer` clamps to the layer's limits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import KernelError
from qlearn.integer import moves, reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from qlearn.integer.layers import IntegerLayer
    from qlearn.integer.profiles import Profile
    from qlearn.numbers.qparams import QParams

    Codes = NDArray[Any]
    Inputs = Sequence[tuple[Codes, QParams]]


def conv2d(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """Σ (q_w - Z_w) (q_x - Z_x) + bias, requantized per output channel; depthwise is ``groups = C``."""
    (x, x_qparams), weight, w_qparams = inputs[0], *_weights(layer)
    accumulator = reference.conv2d(
        x,
        weight,
        layer.bias,
        x_zero=int(x_qparams.zero_point),
        w_zero=w_qparams.zero_point,
        stride=layer.attrs["stride"],
        padding=layer.attrs["padding"],
        dilation=layer.attrs["dilation"],
        groups=layer.attrs["groups"],
    )
    requantize = profile.wide if accumulator.dtype == np.int64 else profile.requantize
    steps = requantize(accumulator, *weight_scales(x_qparams, w_qparams), layer.output.scale, 1)
    return steps + layer.output.zero_point


def linear(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """Σ (q_w - Z_w) (q_x - Z_x) + bias over the last axis, requantized per output."""
    (x, x_qparams), weight, w_qparams = inputs[0], *_weights(layer)
    accumulator = reference.linear(x, weight, layer.bias, x_zero=int(x_qparams.zero_point), w_zero=w_qparams.zero_point)
    requantize = profile.wide_linear if accumulator.dtype == np.int64 else profile.linear
    return requantize(accumulator, x_qparams.scale, w_qparams.scale, layer.output.scale, -1) + layer.output.zero_point


def add(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """Sum a + b, each with its own scale."""
    (a, a_qparams), (b, b_qparams) = inputs
    return profile.add(a, b, a_qparams, b_qparams, layer.output, sign=1)


def subtract(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """Difference a - b, each with its own scale."""
    (a, a_qparams), (b, b_qparams) = inputs
    return profile.add(a, b, a_qparams, b_qparams, layer.output, sign=-1)


def multiply(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """Product a b, element by element; a (N, C, 1, 1) input scales channels, as squeeze-and-excite does."""
    (a, a_qparams), (b, b_qparams) = inputs
    return profile.multiply(a, b, a_qparams, b_qparams, layer.output)


def concat(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """Tensors one behind the other along an axis, each first brought to the scale of the output."""
    parts = [x.astype(np.int64) if q == layer.output else profile.convert(x, q, layer.output) for x, q in inputs]
    return np.concatenate(parts, axis=layer.attrs["axis"])


def convert(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """The same real numbers on another scale; between int8 and uint8 of one scale, codes move by 128."""
    x, qparams = inputs[0]
    if qparams.scale == layer.output.scale and abs(int(layer.output.zero_point) - int(qparams.zero_point)) == 128:
        return np.asarray(x.astype(np.int64) - qparams.zero_point + layer.output.zero_point)
    return profile.convert(x, qparams, layer.output)


def mean(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """Mean over some axes, by default height and width (a global average pool)."""
    x, qparams = inputs[0]
    axes = tuple(layer.attrs.get("axes", (2, 3)))
    count = int(np.prod([x.shape[axis] for axis in axes]))
    total = reference.axis_sum(x, axes=axes, keepdim=layer.attrs["keepdim"])
    return profile.mean(total, count, qparams, layer.output)


def avg_pool2d(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """Mean over a window; padded places hold real zero and count only with ``count_include_pad``."""
    x, qparams = inputs[0]
    seen = reference.windows(
        x,
        kernel=layer.attrs["kernel"],
        stride=layer.attrs["stride"],
        padding=layer.attrs["padding"],
        fill=int(qparams.zero_point),
        count_include_pad=bool(layer.attrs.get("count_include_pad", False)),
    )
    return profile.average(seen, qparams, layer.output)


def max_pool2d(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """Largest code of a window."""
    attrs = layer.attrs
    return reference.max_pool2d(inputs[0][0], kernel=attrs["kernel"], stride=attrs["stride"], padding=attrs["padding"])


def unary(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """A function of one number: a look-up in a table of all codes (paper §4)."""
    x, qparams = inputs[0]
    if qparams.bits > 8:
        raise KernelError(f"layer {layer.name!r}: a table of {layer.attrs['function']} needs 8-bit codes")
    return profile.table(layer.attrs["function"], qparams, layer.output)[x.astype(np.int64) - qparams.qmin]


def softmax(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """Softmax over the last axis."""
    x, qparams = inputs[0]
    return profile.softmax(x, qparams, layer.output, layer.attrs.get("beta", 1.0))


def pad(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """Zero points (real zeros) before and after along each axis."""
    x, qparams = inputs[0]
    return moves.pad(x, x_zero=int(qparams.zero_point), amounts=layer.attrs["amounts"])


def strided_slice(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """Every step-th code of a window."""
    return moves.strided_slice(inputs[0][0], slices=layer.attrs["slices"])


def reshape(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """The same codes in another shape."""
    return moves.reshape(inputs[0][0], shape=layer.attrs["shape"])


def transpose(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """The axes in another order."""
    return moves.transpose(inputs[0][0], axes=layer.attrs["axes"])


def flatten(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """One row per picture."""
    x = inputs[0][0]
    return x.reshape(x.shape[0], -1)


def clamp(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """The codes themselves: `run_layer` clips to the layer's limits."""
    return inputs[0][0]


def float_layer(layer: IntegerLayer, inputs: Inputs, profile: Profile) -> Codes:
    """A layer without an integer kernel: dequantize, run in float32, quantize."""
    function: Callable[..., NDArray[np.float32]] = layer.attrs["function"]
    real = function(*(reference.dequantize(*pair) for pair in inputs))
    if np.isnan(real).any():
        raise KernelError(f"layer {layer.name!r}, which runs in float, gave NaN: no integer stands for it")
    return reference.quantize(real, layer.output)


KERNELS: dict[str, Callable[[IntegerLayer, Inputs, Profile], Codes]] = {
    "conv2d": conv2d,
    "linear": linear,
    "add": add,
    "subtract": subtract,
    "multiply": multiply,
    "concat": concat,
    "convert": convert,
    "mean": mean,
    "global_avg_pool": mean,
    "avg_pool2d": avg_pool2d,
    "max_pool2d": max_pool2d,
    "unary": unary,
    "softmax": softmax,
    "pad": pad,
    "slice": strided_slice,
    "reshape": reshape,
    "transpose": transpose,
    "flatten": flatten,
    "clamp": clamp,
    "float": float_layer,
}


def weight_scales(x: QParams, w: QParams) -> tuple[Any, Any]:
    """Return S_x and S_w; for uint8 weights, LiteRT's first format, their product, rounded to float32 first, and 1."""
    if w.qmin == 0 and w.axis is None:
        return x.scale * w.scale, np.float32(1)
    return x.scale, w.scale


def _weights(layer: IntegerLayer) -> tuple[Codes, QParams]:
    assert layer.weight is not None  # guaranteed by quantize_model, load and import_litert
    assert layer.weight_qparams is not None
    return layer.weight, layer.weight_qparams
