"""What operations of an ONNX file have in common: limits, weights, windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.export.onnx_build import OnnxBuilder, Site, refuse, stored_zero

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qlearn.integer.layers import IntegerLayer, Limit


def clamped(builder: OnnxBuilder, layer: IntegerLayer, codes: str, shape: tuple[int, ...]) -> str:
    """Limit codes where uint8 does not: Clip, or Max and Min with one limit per channel.

    The limits are real numbers of codes, so quantizing again gives the codes themselves.
    """
    q = layer.output
    bounds = [_stored_limit(layer, limit) for limit in layer.limits]
    if np.all(bounds[0] <= 0) and np.all(bounds[1] >= 255):
        return codes
    low, high = ((bound - stored_zero(q)).astype(np.float32) * q.scale for bound in bounds)
    real, name = builder.dequantized(codes, q), layer.name
    if low.ndim == high.ndim == 0:
        limits = [builder.constant(f"{name}:{end}", value) for end, value in (("low", low), ("high", high))]
        return builder.quantized(builder.node("Clip", [real, *limits], f"{name}:clip"), q, f"{name}:clamped")
    for op, end, limit in (("Max", "low", low), ("Min", "high", high)):
        along = limit.reshape(-1, 1, 1) if limit.ndim and len(shape) == 4 else limit  # else channels are last
        real = builder.node(op, [real, builder.constant(f"{name}:{end}", along)], f"{name}:{op.lower()}")
    return builder.quantized(real, q, f"{name}:clamped")


def pool(builder: OnnxBuilder, layer: IntegerLayer, x: Site, op: str, **attributes: Any) -> str:
    """MaxPool or AveragePool."""
    name = f"{layer.name}:{op.lower()}"
    return builder.node(op, [builder.real(x)], name, kernel_shape=layer.attrs["kernel"], **windows(layer), **attributes)


def windows(layer: IntegerLayer) -> dict[str, Any]:
    """Return strides and padding, which is (rows, columns) or (top, bottom, left, right), as ONNX orders them."""
    padding = layer.attrs["padding"]
    top, bottom, left, right = padding if len(padding) == 4 else (padding[0], padding[0], padding[1], padding[1])
    return {"strides": layer.attrs["stride"], "pads": (top, left, bottom, right)}


def reshaped(builder: OnnxBuilder, name: str, real: str, shape: tuple[int, ...]) -> str:
    """Reshape."""
    return builder.node("Reshape", [real, builder.integers(f"{name}:shape", shape)], f"{name}:reshape")


def weight_of(layer: IntegerLayer) -> NDArray[Any]:
    """Return the weights of a layer that has some."""
    assert layer.weight is not None
    return layer.weight


def weighted(builder: OnnxBuilder, layer: IntegerLayer, x: Site) -> list[str]:
    """Return the names of the input, of the int8 weights, and of the int32 bias in steps of float32(S_x S_w)."""
    weight, q = weight_of(layer), layer.weight_qparams
    assert q is not None
    if np.any(q.zero_point) or q.qmin < -128 or q.qmax > 127:
        raise refuse(
            layer,
            f"its weights (codes from {q.qmin} to {q.qmax}) are not int8 with zero point 0, as fast kernels want them. "
            "Quantize weights with bits=8 and a symmetric scheme",
        )
    if layer.bias is not None and layer.bias.dtype != np.int32:
        raise refuse(layer, f"its bias is {layer.bias.dtype}, and the accumulators have 32 bits")
    parts: dict[str, NDArray[Any]] = {"weight": weight.astype(np.int8)}
    scales = {"weight": q.scale, "bias": np.asarray(x.qparams.scale * q.scale, np.float32)}
    if layer.bias is not None:
        parts["bias"] = layer.bias
    names = [builder.real(x)]
    for kind, integers in parts.items():
        scale, label = scales[kind], f"{layer.name}:{kind}"
        inputs = [
            builder.constant(label, integers),
            builder.constant(f"{label}_scale", scale),
            builder.constant(f"{label}_zero_point", np.zeros(scale.shape, integers.dtype)),
        ]
        axis = {"axis": 0} if scale.ndim else {}
        names.append(builder.node("DequantizeLinear", inputs, f"{label}_dequantized", **axis))
    return names


def _stored_limit(layer: IntegerLayer, limit: Limit) -> NDArray[np.int64]:
    """A limit on codes as the file has them."""
    return np.asarray(limit, np.int64) + (stored_zero(layer.output) - int(layer.output.zero_point))
