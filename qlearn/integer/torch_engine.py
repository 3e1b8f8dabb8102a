"""The torch engine: the integers of the reference, at the speed of int8 convolutions.

Convolutions and linear layers are `Products` and a requantization; functions of one or two bytes are tables;
what only moves codes is left to torch, and everything else to the reference kernel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from qlearn.integer.kernels import weight_scales
from qlearn.integer.layers import run_layer
from qlearn.integer.profiles import profile_named
from qlearn.integer.requantize import requantize_float32
from qlearn.integer.run import in_order, naming
from qlearn.integer.torch_products import Products, Window
from qlearn.integer.torch_steps import requantizer
from qlearn.integer.torch_values import is_byte, look_up, offset, pack, settled, table_of_one, table_of_two, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from qlearn.engines.spec import Runner, Watch
    from qlearn.integer.layers import IntegerLayer
    from qlearn.integer.model import IntegerModel
    from qlearn.integer.profiles import Profile
    from qlearn.numbers.qparams import QParams

    Compute = Callable[[Sequence[Tensor]], Tensor]
    Builder = Callable[[IntegerLayer, Sequence[QParams], Profile], Compute]


class TorchEngine:
    """Exact integers with torch's operators; up to three times as fast as float32 where the processor has VNNI.

    Nothing is taken on trust: see `qlearn.integer.torch_products`.

    Examples
    --------
    >>> TorchEngine()
    TorchEngine()
    """

    def prepare(self, model: IntegerModel) -> Runner:
        """Pack the weights, fill the tables, and try every layer on its own shape, by running a picture of zeros."""
        profile = profile_named(model.policy)
        qparams = {layer.name: layer.output for layer in model.layers}
        computes: dict[str, Compute] = {}
        for layer in model.layers[1:]:
            with naming(layer, model):
                computes[layer.name] = build(layer, [qparams[name] for name in layer.inputs], profile)
        first = model.layers[0].output
        output = qparams[model.output]

        def compute(layer: IntegerLayer, values: list[Tensor]) -> Tensor:
            return computes[layer.name](values)

        def run(codes: NDArray[Any], watch: Watch | None = None) -> NDArray[Any]:
            def unpacked(layer: IntegerLayer, value: Tensor) -> None:
                if watch is not None:
                    watch(layer, unpack(value, layer.output))

            with torch.inference_mode():
                return unpack(in_order(model, pack(codes, first), compute, watch and unpacked), output)

        run(np.full((1, *model.input_shape), first.zero_point, first.dtype))
        return run

    def __repr__(self) -> str:
        return "TorchEngine()"


def build(layer: IntegerLayer, inputs: Sequence[QParams], profile: Profile) -> Compute:
    """Return what computes a layer from the kept codes of its inputs."""
    every = [*inputs, layer.output]
    per_channel = layer.clamp is not None and any(np.ndim(limit) for limit in layer.clamp)
    if layer.op in ("conv2d", "linear") or (layer.op in BYTES and all(map(is_byte, every)) and not per_channel):
        return BUILDERS[layer.op](layer, inputs, profile)
    return _reference(layer, inputs, profile)


def _conv2d(layer: IntegerLayer, inputs: Sequence[QParams], profile: Profile) -> Compute:
    attrs = layer.attrs
    window = Window(attrs["stride"], attrs["padding"], attrs["dilation"], attrs["groups"])
    products, steps = _products(layer, inputs[0], window, profile.requantize, profile.wide)
    return lambda values: steps(products(values[0]))


def _linear(layer: IntegerLayer, inputs: Sequence[QParams], profile: Profile) -> Compute:
    """A convolution over one column whose pixels are the rows."""
    products, steps = _products(layer, inputs[0], Window(), profile.linear, profile.wide_linear)

    def compute(values: Sequence[Tensor]) -> Tensor:
        x = values[0]
        rows = x.contiguous().view(1, -1, 1, x.shape[-1]).permute(0, 3, 1, 2)
        return steps(products(rows)).permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)

    return compute


def _products(
    layer: IntegerLayer, x: QParams, window: Window, narrow: Callable[..., Any], wide: Callable[..., Any]
) -> tuple[Products, Callable[[Tensor], Tensor]]:
    """The sums of a layer, and what brings them back to codes."""
    assert layer.weight is not None  # guaranteed by quantize_model, load and import_litert
    assert layer.weight_qparams is not None
    outputs = layer.weight.shape[0]
    zero = np.reshape(layer.weight_qparams.zero_point, (-1,) + (1,) * (layer.weight.ndim - 1))
    weight = layer.weight.astype(np.int64) - zero
    weight = weight if weight.ndim == 4 else weight[:, :, None, None]
    bias = np.zeros(outputs, np.int64) if layer.bias is None else layer.bias.astype(np.int64)
    scales = (*weight_scales(x, layer.weight_qparams), layer.output.scale)
    s_in, s_weight, s_out = (np.asarray(scale, np.float64) for scale in scales)
    steps = np.broadcast_to(s_in * s_weight / s_out, outputs) if is_byte(layer.output) else np.zeros(outputs)
    function = wide if layer.bias is not None and layer.bias.dtype == np.int64 else narrow
    products = Products(weight, bias, x, window, rounded=function is requantize_float32, steps=steps)
    return products, requantizer(function, scales, layer)


def _one(layer: IntegerLayer, inputs: Sequence[QParams], profile: Profile) -> Compute:
    table = table_of_one(layer, inputs[0], profile)
    return lambda values: look_up(table, values[0].to(torch.int32))


def _two(layer: IntegerLayer, inputs: Sequence[QParams], profile: Profile) -> Compute:
    """A pair of bytes is an index; a (N, C, 1, 1) operand is repeated along the picture."""
    table = table_of_two(layer, inputs[0], inputs[1], profile)

    def compute(values: Sequence[Tensor]) -> Tensor:
        index = values[0].to(torch.int32).mul_(256)
        same = index.shape == values[1].shape
        return look_up(table, index.add_(values[1]) if same else settled(index + values[1]))

    return compute


def _concat(layer: IntegerLayer, inputs: Sequence[QParams], profile: Profile) -> Compute:
    """Tensors one behind the other; one on another scale, or a clamped one, goes through a table first."""
    axis, alone = layer.attrs["axis"], replace(layer, attrs={"axis": 0})
    tables = [None if q == layer.output and layer.clamp is None else table_of_one(alone, q, profile) for q in inputs]

    def compute(values: Sequence[Tensor]) -> Tensor:
        parts = [v if table is None else look_up(table, v.to(torch.int32))
                 for v, table in zip(values, tables, strict=True)]  # fmt: skip
        return settled(torch.cat(parts, dim=axis))

    return compute


def _max_pool2d(layer: IntegerLayer, inputs: Sequence[QParams], profile: Profile) -> Compute:
    """Largest byte of the columns of a window, then of its rows; padded places hold the smallest byte."""
    attrs = layer.attrs
    padding = tuple(attrs["padding"])
    top, bottom, left, right = padding if len(padding) == 4 else (padding[0], padding[0], padding[1], padding[1])

    def compute(values: Sequence[Tensor]) -> Tensor:
        x = F.pad(values[0], (left, right, top, bottom), value=0)
        for axis, kernel, stride in zip((3, 2), reversed(attrs["kernel"]), reversed(attrs["stride"]), strict=True):
            count = (x.shape[axis] - kernel) // stride + 1
            index = [slice(None)] * 4
            seen = []
            for place in range(kernel):
                index[axis] = slice(place, place + stride * (count - 1) + 1, stride)
                seen.append(x[tuple(index)])
            x = seen[0]
            for other in seen[1:]:
                x = torch.maximum(x, other)
        return settled(x)

    return compute


def _pad(layer: IntegerLayer, inputs: Sequence[QParams], profile: Profile) -> Compute:
    flat = [amount for before_after in reversed(layer.attrs["amounts"]) for amount in before_after]
    zero = int(inputs[0].zero_point) + offset(inputs[0])
    return lambda values: settled(F.pad(values[0], flat, value=zero))


def _slice(layer: IntegerLayer, inputs: Sequence[QParams], profile: Profile) -> Compute:
    slices = tuple(slice(*bounds) for bounds in layer.attrs["slices"])
    return lambda values: settled(values[0][slices])


def _reference(layer: IntegerLayer, inputs: Sequence[QParams], profile: Profile) -> Compute:
    """Whatever it is, the reference kernel computes it."""

    def compute(values: Sequence[Tensor]) -> Tensor:
        codes = [(unpack(value, q), q) for value, q in zip(values, inputs, strict=True)]
        return pack(run_layer(layer, codes, profile), layer.output)

    return compute


BUILDERS: dict[str, Builder] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "add": _two,
    "subtract": _two,
    "multiply": _two,
    "convert": _one,
    "unary": _one,
    "clamp": _one,
    "concat": _concat,
    "max_pool2d": _max_pool2d,
    "pad": _pad,
    "slice": _slice,
}
BYTES = frozenset(BUILDERS) - {"conv2d", "linear"}
"""Operations that the engine computes on bytes only."""
