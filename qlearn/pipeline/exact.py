"""The integer kernels once more, in torch, on integer-valued floats: fast, and equal to the reference bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from qlearn.graph.ops import pad_spatial
from qlearn.integer.softmax import softmax_float
from qlearn.integer.tables import unary_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from qlearn.numbers.qparams import QParams
    from qlearn.pipeline.simulate import QuantizedLayer

EXACT_IN_FLOAT32 = 2**24


def conv2d(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """Exact accumulator, then one float32 multiplication per output channel."""
    weight, x = _weight(layer), _centred(*inputs[0])
    attrs = layer.node.attrs
    x, weight = _exact_dtype(x, weight, inputs[0][1])
    accumulator = F.conv2d(
        pad_spatial(x, attrs["padding"]),
        weight,
        stride=attrs["stride"],
        dilation=attrs["dilation"],
        groups=attrs["groups"],
    )
    return _requantized(layer, accumulator, inputs[0][1], axis=1)


def linear(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """Exact accumulator, then one float32 multiplication per output."""
    x, weight = _exact_dtype(_centred(*inputs[0]), _weight(layer), inputs[0][1])
    return _requantized(layer, F.linear(x, weight), inputs[0][1], axis=-1)


def add(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """A (S_a / S_y) + b (S_b / S_y), every operation in float32, ties to even."""
    left, right = _in_steps_of_the_output(layer, inputs)
    return torch.round(left + right) + int(_output(layer).zero_point)


def subtract(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """A (S_a / S_y) - b (S_b / S_y), as `add`."""
    left, right = _in_steps_of_the_output(layer, inputs)
    return torch.round(left - right) + int(_output(layer).zero_point)


def multiply(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """The product of the codes, exact, then times S_a S_b / S_y in float32."""
    (a, qa), (b, qb) = inputs
    product = (_centred(a, qa).double() * _centred(b, qb).double()).float()
    steps = product * float(np.float32(qa.scale) * np.float32(qb.scale) / np.float32(_output(layer).scale))
    return torch.round(steps) + int(_output(layer).zero_point)


def concat(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """Each tensor brought to the scale of the output: S_x (q - Z_x) / S_y in float32, ties to even."""
    output = _output(layer)
    scale = torch.tensor([float(output.scale)], dtype=torch.float32)
    parts = [
        codes
        if qparams == output
        else torch.round(_centred(codes, qparams) * float(qparams.scale) / scale) + int(output.zero_point)
        for codes, qparams in inputs
    ]
    return torch.cat(parts, dim=layer.node.attrs["axis"])


def unary(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """One look-up for each code, in the table of the integer kernel."""
    codes, qparams = inputs[0]
    table = torch.from_numpy(unary_table(layer.node.attrs["function"], qparams, _output(layer)))
    return table[codes.long() - qparams.qmin].float()


def softmax(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """Softmax over the last axis, by the integer kernel: its float32 sum depends on the order."""
    codes, qparams = inputs[0]
    steps = softmax_float(codes.long().numpy(), qparams, _output(layer), layer.node.attrs["beta"])
    return torch.from_numpy(steps).float()


def mean(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """Sum exactly over some axes, by default height and width, then multiply by S_x / (S_y count)."""
    (codes, qparams), output, attrs = inputs[0], _output(layer), layer.node.attrs
    axes = attrs.get("axes", (2, 3))
    total = _centred(codes, qparams).double().sum(dim=axes, keepdim=attrs["keepdim"])
    share = np.float32(1.0 / np.prod([codes.shape[axis] for axis in axes]))
    multiplier = np.float32(np.float32(qparams.scale) * share) / np.float32(output.scale)
    return torch.round(total.float() * float(multiplier)) + int(output.zero_point)


def avg_pool2d(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """Integer mean over a window, halves away from zero; scale and zero point stay."""
    (codes, qparams), attrs = inputs[0], layer.node.attrs
    zero = int(qparams.zero_point) if attrs["count_include_pad"] else 0
    ph, pw = attrs["padding"]
    sides = (pw, pw, ph, ph)
    padded = F.pad(codes.double(), sides, value=float(zero))
    ones = F.pad(torch.ones_like(codes[:1, :1]).double(), sides, value=float(attrs["count_include_pad"]))
    total, count = (F.avg_pool2d(v, attrs["kernel"], attrs["stride"], divisor_override=1) for v in (padded, ones))
    return (total.sign() * torch.floor((2 * total.abs() + count) / (2 * count))).float()


def max_pool2d(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """Largest code of a window."""
    attrs = layer.node.attrs
    return F.max_pool2d(inputs[0][0], attrs["kernel"], attrs["stride"], attrs["padding"])


def flatten(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """One row per picture."""
    return inputs[0][0].flatten(1)


def reshape(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """The same codes in another shape."""
    return inputs[0][0].reshape(len(inputs[0][0]), *layer.node.attrs["shape"])


def transpose(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """The axes in another order."""
    return inputs[0][0].permute(layer.node.attrs["axes"])


def strided_slice(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """Every step-th code of a window."""
    return inputs[0][0][tuple(slice(*bounds) for bounds in layer.node.attrs["slices"])]


def pad(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """Zero points (real zeros) before and after along each axis."""
    codes, qparams = inputs[0]
    flat = [amount for before_after in reversed(layer.node.attrs["amounts"]) for amount in before_after]
    return F.pad(codes, flat, value=float(qparams.zero_point))


def clamp(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """The caller clamps to the layer's codes."""
    return inputs[0][0]


EXACT_OPS: dict[str, Callable[[QuantizedLayer, list[tuple[Tensor, QParams]]], Tensor]] = {
    "conv2d": conv2d,
    "linear": linear,
    "add": add,
    "subtract": subtract,
    "multiply": multiply,
    "concat": concat,
    "unary": unary,
    "softmax": softmax,
    "global_avg_pool": mean,
    "mean": mean,
    "avg_pool2d": avg_pool2d,
    "max_pool2d": max_pool2d,
    "flatten": flatten,
    "reshape": reshape,
    "transpose": transpose,
    "slice": strided_slice,
    "pad": pad,
    "clamp": clamp,
}


def _centred(codes: Tensor, qparams: QParams) -> Tensor:
    return codes - int(qparams.zero_point)


def _in_steps_of_the_output(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> tuple[Tensor, Tensor]:
    """Both operands of a sum in float32, as multiples of S_y."""
    left, right = (
        _centred(codes, qparams) * float(np.float32(qparams.scale) / np.float32(_output(layer).scale))
        for codes, qparams in inputs
    )
    return left, right


def _weight(layer: QuantizedLayer) -> Tensor:
    assert layer.weight is not None
    assert layer.weight_qparams is not None
    weight = torch.from_numpy(layer.weight).float()
    zero = torch.tensor(layer.weight_qparams.zero_point, dtype=torch.float32)
    return weight - zero.reshape(-1, *[1] * (weight.ndim - 1))


def _exact_dtype(x: Tensor, weight: Tensor, x_qparams: QParams) -> tuple[Tensor, Tensor]:
    """float32 if no input can bring the sum to 2**24, else float64."""
    farthest = max(x_qparams.qmax - int(x_qparams.zero_point), int(x_qparams.zero_point) - x_qparams.qmin)
    bound = farthest * float(weight.abs().flatten(1).sum(dim=1, dtype=torch.float64).max())
    return (x, weight) if bound < EXACT_IN_FLOAT32 else (x.double(), weight.double())


def _requantized(layer: QuantizedLayer, accumulator: Tensor, x: QParams, axis: int) -> Tensor:
    """Policy float32: rint(float32(acc) * float32(float32(S_x S_w) / S_y)) + Z_y."""
    assert layer.weight_qparams is not None
    output = _output(layer)
    per_output = [1] * accumulator.ndim
    per_output[axis] = -1
    if layer.bias is not None:
        accumulator = accumulator.double() + torch.from_numpy(layer.bias).double().reshape(per_output)
    multiplier = np.float32(x.scale) * layer.weight_qparams.scale / np.float32(output.scale)
    factor = torch.tensor(multiplier, dtype=torch.float32)
    steps = torch.round(accumulator.float() * (factor.reshape(per_output) if factor.ndim else factor))
    return steps + int(output.zero_point)


def _output(layer: QuantizedLayer) -> QParams:
    assert layer.output is not None
    return layer.output
