"""One operation of ours as nodes of ONNX: one short function per op, and a table of them.

A function takes the builder, the layer, the sites that it reads and the shape of its output (batch included).
It returns the name of the layer's real numbers; `emit` quantizes and clamps them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.export import onnx_parts as parts
from qlearn.export.onnx_build import OnnxBuilder, Site, check_stored, refuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from qlearn.integer.layers import IntegerLayer

    Emit = Callable[[OnnxBuilder, IntegerLayer, list[Site], tuple[int, ...]], str]

INT64 = np.iinfo(np.int64)


def emit(builder: OnnxBuilder, layer: IntegerLayer, sources: list[Site], shape: tuple[int, ...]) -> Site:
    """Write one layer.

    Parameters
    ----------
    builder : OnnxBuilder
    layer : IntegerLayer
    sources : list of Site
        Its inputs.
    shape : tuple of int
        Shape of its output, batch included.

    Returns
    -------
    Site
        Its output.

    Raises
    ------
    ExportError
        Naming a layer that ONNX Runtime would compute otherwise, or not at all.
    """
    if layer.op not in EMITTERS:
        raise refuse(layer, layer.attrs.get("reason", "there is no such operator"))
    check_stored(layer)
    real = EMITTERS[layer.op](builder, layer, sources, shape)
    codes = parts.clamped(builder, layer, builder.quantized(real, layer.output, layer.name), shape)
    return Site(codes, shape, layer.output)


def conv2d(builder: OnnxBuilder, layer: IntegerLayer, sources: list[Site], shape: tuple[int, ...]) -> str:
    """Conv with any groups, strides, dilations and padding."""
    attrs = layer.attrs
    return builder.node(
        "Conv",
        parts.weighted(builder, layer, sources[0]),
        f"{layer.name}:conv",
        kernel_shape=parts.weight_of(layer).shape[2:],
        group=attrs["groups"],
        dilations=attrs["dilation"],
        **parts.windows(layer),
    )


def linear(builder: OnnxBuilder, layer: IntegerLayer, sources: list[Site], shape: tuple[int, ...]) -> str:
    """Gemm; with more than two axes, all but the last become rows, and rows become axes again."""
    x, name = sources[0], layer.name
    inputs = parts.weighted(builder, layer, x)
    if len(x.shape) == 2:
        return builder.node("Gemm", inputs, f"{name}:gemm", transB=1)
    rows = parts.reshaped(builder, f"{name}:rows", inputs[0], (-1, x.shape[-1]))
    inputs[0] = builder.requantized(rows, x.qparams, f"{name}:rows")
    product = builder.node("Gemm", inputs, f"{name}:gemm", transB=1)
    product = builder.requantized(product, layer.output, f"{name}:gemm")
    return parts.reshaped(builder, name, product, (-1, *shape[1:]))


def plain(op: str, **attributes: Any) -> Emit:
    """Return how to write an operator that reads its inputs and nothing else."""

    def run(builder: OnnxBuilder, layer: IntegerLayer, sources: list[Site], shape: tuple[int, ...]) -> str:
        return builder.node(op, [builder.real(site) for site in sources], f"{layer.name}:{op.lower()}", **attributes)

    return run


def concat(builder: OnnxBuilder, layer: IntegerLayer, sources: list[Site], shape: tuple[int, ...]) -> str:
    """Concat; inputs keep scales of their own."""
    values = [builder.real(site) for site in sources]
    if len(values) == 1:
        return values[0]
    return builder.node("Concat", values, f"{layer.name}:concat", axis=layer.attrs["axis"])


def same(builder: OnnxBuilder, layer: IntegerLayer, sources: list[Site], shape: tuple[int, ...]) -> str:
    """Nothing: quantizing with the layer's scale, or its limits, is all there is."""
    return builder.real(sources[0])


def mean(builder: OnnxBuilder, layer: IntegerLayer, sources: list[Site], shape: tuple[int, ...]) -> str:
    """GlobalAveragePool; other axes than height and width are brought there first."""
    x, name = sources[0], layer.name
    ndim = len(x.shape)
    axes = sorted(axis % ndim for axis in layer.attrs.get("axes", (2, 3)))
    real = builder.real(x)
    if (ndim, axes) != (4, [2, 3]):
        kept = [axis for axis in range(ndim) if axis not in axes]
        order = [*kept, *axes]
        if order != list(range(ndim)):
            real = builder.node("Transpose", [real], f"{name}:transpose", perm=order)
            real = builder.requantized(real, x.qparams, f"{name}:transpose")
        sizes = [int(np.prod([x.shape[axis] for axis in group], dtype=np.int64)) for group in (kept[1:], axes)]
        real = parts.reshaped(builder, f"{name}:picture", real, (-1, *sizes, 1))
        real = builder.requantized(real, x.qparams, f"{name}:picture")
    pooled = builder.node("GlobalAveragePool", [real], f"{name}:globalaveragepool")
    if (ndim, axes) == (4, [2, 3]) and layer.attrs["keepdim"]:
        return pooled
    pooled = builder.requantized(pooled, layer.output, f"{name}:globalaveragepool")
    return parts.reshaped(builder, name, pooled, (-1, *shape[1:]))


def avg_pool2d(builder: OnnxBuilder, layer: IntegerLayer, sources: list[Site], shape: tuple[int, ...]) -> str:
    """AveragePool."""
    counted = int(layer.attrs.get("count_include_pad", False))
    return parts.pool(builder, layer, sources[0], "AveragePool", count_include_pad=counted)


def max_pool2d(builder: OnnxBuilder, layer: IntegerLayer, sources: list[Site], shape: tuple[int, ...]) -> str:
    """MaxPool."""
    return parts.pool(builder, layer, sources[0], "MaxPool")


def unary(builder: OnnxBuilder, layer: IntegerLayer, sources: list[Site], shape: tuple[int, ...]) -> str:
    """Sigmoid, Tanh, HardSwish, HardSigmoid; SiLU is Mul(x, Sigmoid(x))."""
    function, x = layer.attrs["function"], builder.real(sources[0])
    name = f"{layer.name}:{function}"
    if function == "silu":
        return builder.node("Mul", [x, builder.node("Sigmoid", [x], f"{layer.name}:sigmoid")], name)
    if function == "hard_sigmoid":
        return builder.node("HardSigmoid", [x], name, alpha=1 / 6, beta=0.5)
    if function not in UNARY_OPERATORS:
        raise refuse(layer, f"ONNX Runtime has no {function} that computes the same table")
    return builder.node(UNARY_OPERATORS[function], [x], name)


def softmax(builder: OnnxBuilder, layer: IntegerLayer, sources: list[Site], shape: tuple[int, ...]) -> str:
    """Softmax over the last axis; a factor before it is part of the scale that it reads."""
    x, beta = sources[0], np.float32(layer.attrs.get("beta", 1.0))
    real = builder.dequantized(x.codes, x.qparams, x.qparams.scale * beta)
    return builder.node("Softmax", [real], f"{layer.name}:softmax", axis=-1)


def pad(builder: OnnxBuilder, layer: IntegerLayer, sources: list[Site], shape: tuple[int, ...]) -> str:
    """Pad with real zeros."""
    before, after = zip(*layer.attrs["amounts"], strict=True)
    amounts = builder.integers(f"{layer.name}:amounts", [*before, *after])
    return builder.node("Pad", [builder.real(sources[0]), amounts], f"{layer.name}:pad")


def strided_slice(builder: OnnxBuilder, layer: IntegerLayer, sources: list[Site], shape: tuple[int, ...]) -> str:
    """Slice, along the axes that are cut."""
    cut = [(axis, slice(*bounds)) for axis, bounds in enumerate(layer.attrs["slices"]) if slice(*bounds) != slice(None)]
    if not cut:
        return builder.real(sources[0])
    steps = [1 if bounds.step is None else bounds.step for _, bounds in cut]
    outermost = [(0, INT64.max) if step > 0 else (INT64.max, INT64.min) for step in steps]
    starts = [o[0] if bounds.start is None else bounds.start for (_, bounds), o in zip(cut, outermost, strict=True)]
    stops = [o[1] if bounds.stop is None else bounds.stop for (_, bounds), o in zip(cut, outermost, strict=True)]
    columns = {"starts": starts, "stops": stops, "axes": [axis for axis, _ in cut], "steps": steps}
    inputs = [builder.integers(f"{layer.name}:{key}", [int(v) for v in values]) for key, values in columns.items()]
    return builder.node("Slice", [builder.real(sources[0]), *inputs], f"{layer.name}:slice")


def reshape(builder: OnnxBuilder, layer: IntegerLayer, sources: list[Site], shape: tuple[int, ...]) -> str:
    """Reshape; the batch stays."""
    return parts.reshaped(builder, layer.name, builder.real(sources[0]), (-1, *shape[1:]))


def transpose(builder: OnnxBuilder, layer: IntegerLayer, sources: list[Site], shape: tuple[int, ...]) -> str:
    """Transpose."""
    return builder.node("Transpose", [builder.real(sources[0])], f"{layer.name}:transpose", perm=layer.attrs["axes"])


UNARY_OPERATORS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "hard_swish": "HardSwish"}

EMITTERS: dict[str, Emit] = {
    "conv2d": conv2d,
    "linear": linear,
    "add": plain("Add"),
    "subtract": plain("Sub"),
    "multiply": plain("Mul"),
    "concat": concat,
    "convert": same,
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
    "flatten": plain("Flatten", axis=1),
    "clamp": same,
}
"""How each operation is written. A new operation is one function and one line."""
