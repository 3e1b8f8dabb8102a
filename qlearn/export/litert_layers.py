"""One operation of ours as operators of LiteRT: one short function per op."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.export import litert_parts as parts
from qlearn.export.litert_build import FROM_FILE, TO_FILE, LiteBuilder, Site, file_axis, refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from qlearn.integer.layers import IntegerLayer

    Emit = Callable[[LiteBuilder, IntegerLayer, list[Site], int], int]


def emit(builder: LiteBuilder, layer: IntegerLayer, sources: list[Site], shape: tuple[int, ...]) -> Site:
    """Write one layer.

    Parameters
    ----------
    builder : LiteBuilder
    layer : IntegerLayer
    sources : list of Site
        Its inputs.
    shape : tuple of int
        Shape of its output in our layout, batch included.

    Returns
    -------
    Site
        Its output.

    Raises
    ------
    ExportError
        Naming a layer that LiteRT has no operator for.
    """
    if layer.op not in EMITTERS:
        raise refuse(layer, layer.attrs.get("reason", "there is no such operator"))
    site = builder.site(layer.name, shape, layer.output, layer.name)
    EMITTERS[layer.op](builder, layer, sources, site.index)
    number = parts.activation_number(layer)
    fused = None if number is None else parts.with_activation(builder.operators[-1], number)
    if fused is None:
        return parts.clamped(builder, layer, site)
    builder.operators[-1] = fused
    return site


def conv2d(builder: LiteBuilder, layer: IntegerLayer, sources: list[Site], output: int) -> int:
    """CONV_2D or DEPTHWISE_CONV_2D; padding that is neither SAME nor VALID becomes a PAD before it."""
    weight, attrs, x = _weight(layer), layer.attrs, sources[0]
    depthwise = attrs["groups"] == x.shape[1] and attrs["groups"] > 1
    x_index, kind = parts.padded(builder, layer, x, weight.shape[2:], attrs["dilation"])
    stored = weight.transpose(1, 2, 3, 0) if depthwise else weight.transpose(0, 2, 3, 1)
    options = parts.strides(attrs["stride"]) | {"padding": kind}
    options |= {"dilationHFactor": attrs["dilation"][0], "dilationWFactor": attrs["dilation"][1]}
    inputs = [x_index, *parts.weight_and_bias(builder, layer, x.qparams, stored, 3 if depthwise else 0)]
    if depthwise:
        return builder.add(
            "DEPTHWISE_CONV_2D", inputs, output, depthMultiplier=weight.shape[0] // x.shape[1], **options
        )
    return builder.add("CONV_2D", inputs, output, **options)


def linear(builder: LiteBuilder, layer: IntegerLayer, sources: list[Site], output: int) -> int:
    """FULLY_CONNECTED over the last axis."""
    x = sources[0]
    if len(x.shape) == 4:
        raise refuse(layer, "its input has four axes: flatten it first")
    inputs = [x.index, *parts.weight_and_bias(builder, layer, x.qparams, _weight(layer), 0)]
    return builder.add("FULLY_CONNECTED", inputs, output, keepNumDims=len(x.shape) > 2)


def two_inputs(op: str) -> Emit:
    """ADD, SUB, MUL."""

    def run(builder: LiteBuilder, layer: IntegerLayer, sources: list[Site], output: int) -> int:
        return builder.add(op, [site.index for site in sources], output)

    return run


def concat(builder: LiteBuilder, layer: IntegerLayer, sources: list[Site], output: int) -> int:
    """CONCATENATION; an input on another scale passes a QUANTIZE first."""
    parts = [
        site.index
        if site.qparams == layer.output
        else builder.add(
            "QUANTIZE", [site.index], builder.site(f"{layer.name}/{i}", site.shape, layer.output, layer.name).index
        )
        for i, site in enumerate(sources)
    ]
    return builder.add("CONCATENATION", parts, output, axis=file_axis(layer.attrs["axis"], len(sources[0].shape)))


def mean(builder: LiteBuilder, layer: IntegerLayer, sources: list[Site], output: int) -> int:
    """MEAN over some axes, by default height and width."""
    x = sources[0]
    axes = sorted(file_axis(axis, len(x.shape)) for axis in layer.attrs.get("axes", (2, 3)))
    index = builder.constant(f"{layer.name}/axes", np.array(axes, np.int32))
    return builder.add("MEAN", [x.index, index], output, keepDims=layer.attrs["keepdim"])


def pool(op: str) -> Emit:
    """AVERAGE_POOL_2D, MAX_POOL_2D."""

    def run(builder: LiteBuilder, layer: IntegerLayer, sources: list[Site], output: int) -> int:
        x, attrs = sources[0], layer.attrs
        counted = op == "AVERAGE_POOL_2D" and attrs.get("count_include_pad", False)
        wins = op == "MAX_POOL_2D" and int(x.qparams.zero_point) == x.qparams.qmin
        x_index, kind = parts.padded(builder, layer, x, attrs["kernel"], by_pad=bool(counted or wins), same=not counted)
        height, width = attrs["kernel"]
        return builder.add(
            op,
            [x_index],
            output,
            padding=kind,
            filterHeight=height,
            filterWidth=width,
            **parts.strides(attrs["stride"]),
        )

    return run


def unary(builder: LiteBuilder, layer: IntegerLayer, sources: list[Site], output: int) -> int:
    """LOGISTIC, TANH (both with prescribed outputs), HARD_SWISH."""
    function = layer.attrs["function"]
    operators = {"sigmoid": "LOGISTIC", "tanh": "TANH", "hard_swish": "HARD_SWISH"}
    if function not in operators:
        raise refuse(layer, f"there is no int8 operator for {function}")
    parts.check_fixed_output(builder, layer, function)
    return builder.add(operators[function], [sources[0].index], output)


def softmax(builder: LiteBuilder, layer: IntegerLayer, sources: list[Site], output: int) -> int:
    """SOFTMAX over the last axis, output in steps of 1/256."""
    if len(sources[0].shape) == 4:
        raise refuse(layer, "its input has four axes")
    parts.check_fixed_output(builder, layer, "softmax")
    return builder.add("SOFTMAX", [sources[0].index], output, beta=layer.attrs.get("beta", 1.0))


def convert(builder: LiteBuilder, layer: IntegerLayer, sources: list[Site], output: int) -> int:
    """QUANTIZE from one scale to another."""
    return builder.add("QUANTIZE", [sources[0].index], output)


def pad(builder: LiteBuilder, layer: IntegerLayer, sources: list[Site], output: int) -> int:
    """PAD with zero points."""
    site = Site(output, (), layer.output)
    return parts.pad(builder, site, f"{layer.name}/amounts", sources[0].index, layer.attrs["amounts"])


def strided_slice(builder: LiteBuilder, layer: IntegerLayer, sources: list[Site], output: int) -> int:
    """STRIDED_SLICE."""
    x = sources[0]
    given = [*layer.attrs["slices"], *[(None, None, None)] * (len(x.shape) - len(layer.attrs["slices"]))]
    bounds = [slice(*each).indices(size) for each, size in zip(given, x.shape, strict=True)]
    if any(step < 1 for _, _, step in bounds):
        raise refuse(layer, "it runs backwards")
    order = TO_FILE if len(x.shape) == 4 else range(len(x.shape))
    columns = [np.array([bounds[axis][column] for axis in order], np.int32) for column in range(3)]
    names = ("begin", "end", "step")
    constants = [builder.constant(f"{layer.name}/{n}", c) for n, c in zip(names, columns, strict=True)]
    return builder.add("STRIDED_SLICE", [x.index, *constants], output)


def reshape(builder: LiteBuilder, layer: IntegerLayer, sources: list[Site], output: int) -> int:
    """RESHAPE in our order of axes: transposed before and after where the order matters."""
    x = sources[0]
    shape = builder.tensors[output].shape
    ours = tuple(shape[axis] for axis in FROM_FILE) if len(shape) == 4 else shape
    index = x.index
    if len(x.shape) == 4 and x.shape[2:] != (1, 1):
        index = parts.transposed(builder, f"{layer.name}/channels_first", index, FROM_FILE, x.qparams)
    if len(ours) != 4 or ours[2:] == (1, 1):
        return parts.reshaped(builder, layer.name, index, output)
    middle = builder.codes(f"{layer.name}/reshaped", ours, x.qparams, layer.name)
    parts.reshaped(builder, layer.name, index, middle)
    axes = builder.constant(f"{layer.name}/channels_last", np.array(TO_FILE, np.int32))
    return builder.add("TRANSPOSE", [middle, axes], output)


def transpose(builder: LiteBuilder, layer: IntegerLayer, sources: list[Site], output: int) -> int:
    """TRANSPOSE, its axes in the order of the file."""
    order = tuple(layer.attrs["axes"])
    if len(order) == 4:
        order = tuple(FROM_FILE[order[axis]] for axis in TO_FILE)
    axes = builder.constant(f"{layer.name}/axes", np.array(order, np.int32))
    return builder.add("TRANSPOSE", [sources[0].index, axes], output)


def clamp(builder: LiteBuilder, layer: IntegerLayer, sources: list[Site], output: int) -> int:
    """RESHAPE to the same shape; the limits follow as MAXIMUM and MINIMUM."""
    return parts.reshaped(builder, layer.name, sources[0].index, output)


EMITTERS: dict[str, Emit] = {
    "conv2d": conv2d,
    "linear": linear,
    "add": two_inputs("ADD"),
    "subtract": two_inputs("SUB"),
    "multiply": two_inputs("MUL"),
    "concat": concat,
    "convert": convert,
    "mean": mean,
    "global_avg_pool": mean,
    "avg_pool2d": pool("AVERAGE_POOL_2D"),
    "max_pool2d": pool("MAX_POOL_2D"),
    "unary": unary,
    "softmax": softmax,
    "pad": pad,
    "slice": strided_slice,
    "reshape": reshape,
    "transpose": transpose,
    "flatten": reshape,
    "clamp": clamp,
}
"""How each operation is written."""


def _weight(layer: IntegerLayer) -> NDArray[Any]:
    assert layer.weight is not None
    return layer.weight
