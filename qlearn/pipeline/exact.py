"""The integer kernels once more, in torch, on integer-valued floats: fast, and equal to the reference bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from qlearn.graph.ops import pad_spatial

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
    output = _output(layer)
    left, right = (
        _centred(codes, qparams) * float(np.float32(qparams.scale) / np.float32(output.scale))
        for codes, qparams in inputs
    )
    return torch.round(left + right) + int(output.zero_point)


def global_avg_pool(layer: QuantizedLayer, inputs: list[tuple[Tensor, QParams]]) -> Tensor:
    """Sum exactly, then multiply by S_x / (S_y H W)."""
    (codes, qparams), output = inputs[0], _output(layer)
    total = _centred(codes, qparams).double().sum(dim=(2, 3), keepdim=layer.node.attrs["keepdim"])
    share = np.float32(1.0 / (codes.shape[2] * codes.shape[3]))
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
    "global_avg_pool": global_avg_pool,
    "avg_pool2d": avg_pool2d,
    "max_pool2d": max_pool2d,
    "flatten": flatten,
    "slice": strided_slice,
    "pad": pad,
    "clamp": clamp,
}


def _centred(codes: Tensor, qparams: QParams) -> Tensor:
    return codes - int(qparams.zero_point)


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
