"""One operation of the integer model: what it holds, and how it is computed with the reference kernels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import AccumulatorOverflowError, KernelError
from qlearn.integer import reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from qlearn.integer.requantize import Policy
    from qlearn.numbers.qparams import QParams

SHARING_OPS = frozenset({"clamp", "avg_pool2d", "max_pool2d", "flatten", "slice", "pad"})
"""Operations whose output has the scale and zero point of their input."""


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """One operation on integers.

    Parameters
    ----------
    name : str
        The site of its output.
    op : str
        ``"input"``, ``"conv2d"``, ``"linear"``, ``"add"``, …, or ``"float"``.
    inputs : tuple of str
    output : QParams
        Scale and zero point of its output.
    attrs : mapping
        Strides, padding and the like; ``attrs["function"]`` of a float layer takes and returns float32 arrays.
    weight, weight_qparams, bias : integer array, QParams and int32 array, or None
        bias is in steps of float32(S_x S_w).
    clamp : (int, int) or None
        Smallest and largest output code: qmin and qmax narrowed by a fused ReLU or ReLU6.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    output: QParams
    attrs: Mapping[str, Any] = field(default_factory=dict)
    weight: NDArray[Any] | None = None
    weight_qparams: QParams | None = None
    bias: NDArray[np.int32] | None = None
    clamp: tuple[int, int] | None = None

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest output code."""
        return self.clamp or (self.output.qmin, self.output.qmax)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights (one per weight up to 8 bits, two above) and of the int32 bias."""
        return sum(0 if array is None else array.nbytes for array in (self.weight, self.bias))


def run_layer(layer: IntegerLayer, inputs: Sequence[tuple[NDArray[Any], QParams]], policy: Policy) -> NDArray[Any]:
    """Compute the output codes of a layer from the codes and qparams of its inputs."""
    codes = KERNELS[layer.op](layer, inputs, policy)
    if layer.op in SHARING_OPS and layer.clamp is None:
        return codes
    return np.asarray(np.clip(codes, *layer.limits).astype(layer.output.dtype))


def code_limits(clamp: tuple[float, float], qparams: QParams) -> tuple[int, int]:
    """Return the codes of a real clamp: Z + round(limit / S), halves away from zero, inside [qmin, qmax].

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> code_limits((0.0, 6.0), QParams(0.05, -100, -128, 127))
    (-100, 20)
    """
    codes = []
    for limit, outermost in zip(clamp, (qparams.qmin, qparams.qmax), strict=True):
        if np.isinf(limit):
            codes.append(outermost)
            continue
        with np.errstate(over="ignore"):  # a limit that is infinitely many steps away clips nothing
            steps = np.float64(np.float32(limit) / qparams.scale)
        rounded = np.sign(steps) * np.floor(np.abs(steps) + 0.5)
        codes.append(int(np.clip(int(qparams.zero_point) + rounded, qparams.qmin, qparams.qmax)))
    return codes[0], codes[1]


def check_accumulator(layer: IntegerLayer, x: QParams) -> None:
    """Raise AccumulatorOverflowError if some input could drive the layer's sum out of int32."""
    if layer.weight is None or layer.weight_qparams is None:
        return
    outputs = layer.weight.shape[0]
    zero = np.broadcast_to(layer.weight_qparams.zero_point, outputs).astype(np.int64)
    weight = layer.weight.reshape(outputs, -1).astype(np.int64) - zero[:, None]
    farthest = max(x.qmax - int(x.zero_point), int(x.zero_point) - x.qmin)
    bias = np.zeros(outputs, np.int64) if layer.bias is None else layer.bias.astype(np.int64)
    bound = int((np.abs(weight).sum(axis=1) * farthest + np.abs(bias)).max())
    if bound > reference.INT32_MAX:
        raise AccumulatorOverflowError(
            f"layer {layer.name!r}: the accumulator can reach {bound:.3g}, more than int32 holds "
            f"({reference.INT32_MAX:.3g}). Use fewer bits for its weights or its input, or keep it in float"
        )


def _conv2d(layer: IntegerLayer, inputs: Sequence[tuple[NDArray[Any], QParams]], policy: Policy) -> NDArray[Any]:
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
    steps = policy.requantize(accumulator, x_qparams.scale, w_qparams.scale, layer.output.scale, axis=1)
    return steps + layer.output.zero_point


def _linear(layer: IntegerLayer, inputs: Sequence[tuple[NDArray[Any], QParams]], policy: Policy) -> NDArray[Any]:
    (x, x_qparams), weight, w_qparams = inputs[0], *_weights(layer)
    accumulator = reference.linear(x, weight, layer.bias, x_zero=int(x_qparams.zero_point), w_zero=w_qparams.zero_point)
    steps = policy.requantize(accumulator, x_qparams.scale, w_qparams.scale, layer.output.scale, axis=-1)
    return steps + layer.output.zero_point


def _add(layer: IntegerLayer, inputs: Sequence[tuple[NDArray[Any], QParams]], policy: Policy) -> NDArray[Any]:
    (a, a_qparams), (b, b_qparams) = inputs
    centred = (a.astype(np.int32) - a_qparams.zero_point, b.astype(np.int32) - b_qparams.zero_point)
    return (
        policy.add(
            *centred,
            np.float32(a_qparams.scale),
            np.float32(b_qparams.scale),
            np.float32(layer.output.scale),
            bits=max(a_qparams.bits, b_qparams.bits),
        )
        + layer.output.zero_point
    )


def _global_avg_pool(
    layer: IntegerLayer, inputs: Sequence[tuple[NDArray[Any], QParams]], policy: Policy
) -> NDArray[Any]:
    x, x_qparams = inputs[0]
    total = reference.global_sum(x, x_zero=int(x_qparams.zero_point), keepdim=layer.attrs["keepdim"])
    share = np.float32(1.0 / (x.shape[2] * x.shape[3]))
    return policy.requantize(total, x_qparams.scale, share, layer.output.scale, axis=None) + layer.output.zero_point


def _avg_pool2d(layer: IntegerLayer, inputs: Sequence[tuple[NDArray[Any], QParams]], policy: Policy) -> NDArray[Any]:
    x, x_qparams = inputs[0]
    return reference.avg_pool2d(x, x_zero=int(x_qparams.zero_point), **layer.attrs)


def _max_pool2d(layer: IntegerLayer, inputs: Sequence[tuple[NDArray[Any], QParams]], policy: Policy) -> NDArray[Any]:
    return reference.max_pool2d(inputs[0][0], **layer.attrs)


def _pad(layer: IntegerLayer, inputs: Sequence[tuple[NDArray[Any], QParams]], policy: Policy) -> NDArray[Any]:
    x, x_qparams = inputs[0]
    return reference.pad(x, x_zero=int(x_qparams.zero_point), amounts=layer.attrs["amounts"])


def _slice(layer: IntegerLayer, inputs: Sequence[tuple[NDArray[Any], QParams]], policy: Policy) -> NDArray[Any]:
    return reference.strided_slice(inputs[0][0], slices=layer.attrs["slices"])


def _flatten(layer: IntegerLayer, inputs: Sequence[tuple[NDArray[Any], QParams]], policy: Policy) -> NDArray[Any]:
    x = inputs[0][0]
    return x.reshape(x.shape[0], -1)


def _clamp(layer: IntegerLayer, inputs: Sequence[tuple[NDArray[Any], QParams]], policy: Policy) -> NDArray[Any]:
    return inputs[0][0]  # run_layer clips to the layer's limits


def _float(layer: IntegerLayer, inputs: Sequence[tuple[NDArray[Any], QParams]], policy: Policy) -> NDArray[Any]:
    function: Callable[..., NDArray[np.float32]] = layer.attrs["function"]
    real = function(*(reference.dequantize(*pair) for pair in inputs))
    if np.isnan(real).any():
        raise KernelError(f"layer {layer.name!r}, which runs in float, gave NaN: no integer stands for it")
    return reference.quantize(real, layer.output)


KERNELS: dict[str, Callable[..., NDArray[Any]]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "add": _add,
    "global_avg_pool": _global_avg_pool,
    "avg_pool2d": _avg_pool2d,
    "max_pool2d": _max_pool2d,
    "pad": _pad,
    "slice": _slice,
    "flatten": _flatten,
    "clamp": _clamp,
    "float": _float,
}


def _weights(layer: IntegerLayer) -> tuple[NDArray[Any], QParams]:
    assert layer.weight is not None  # guaranteed by quantize_model and load
    assert layer.weight_qparams is not None
    return layer.weight, layer.weight_qparams
