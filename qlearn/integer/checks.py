"""What must hold of a model before it runs: names, shapes, weights, limits, and a bound for every sum.

`check_model` runs when a model is made, whoever makes it: the pipeline, a file, an importer, a user.
`check_size` is for models from files, which may ask for more memory or time than any network needs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import AccumulatorOverflowError, KernelError
from qlearn.integer.kernels import KERNELS
from qlearn.integer.layers import SHARING_OPS
from qlearn.integer.reference import INT32_MAX
from qlearn.integer.shapes import mean_axes, output_shape, padding_sides

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qlearn.integer.layers import IntegerLayer
    from qlearn.numbers.qparams import QParams

    Shape = tuple[int, ...]

WEIGHTED_OPS = frozenset({"conv2d", "linear"})
TABLE_OPS = frozenset({"unary", "softmax"})
WINDOWED_OPS = frozenset({"conv2d", "avg_pool2d", "max_pool2d"})

WIDE_LIMIT = 2**47
"""64-bit accumulators have 48 bits: the rest is for the mantissa of 15 bits (`requantize_wide`), as in LiteRT."""

LARGEST_MULTIPLIER, LARGEST_WIDE_MULTIPLIER = 2.0**30, 2.0**8
"""Output steps of one step of an accumulator. Beyond, products leave int64; LiteRT sets the limit of 64-bit sums."""

MAX_ELEMENTS = 2**24
"""Elements of the largest tensor of a file: five times the largest of MobileNet at 224 x 224."""

MAX_ELEMENTS_IN_ALL = 2**28
"""Elements of all tensors of a file together, which bounds what is held at one time."""

MAX_WORK = 2**37
"""Multiplications of a file for one picture: nine times those of VGG-16."""

SLOW, PER_PLACE = 2**5, 2**15
"""What one operation outside of a matrix product, and one place of a window, cost in multiplications."""


def check_model(layers: Sequence[IntegerLayer], input_shape: Shape, output: str) -> dict[str, Shape | None]:
    """Return the shape of every layer's output, for a batch of one; None where only running the network tells.

    Parameters
    ----------
    layers : sequence of IntegerLayer
    input_shape : tuple of int
    output : str
        The layer whose value the network returns.

    Raises
    ------
    KernelError
        Naming the first layer that cannot run.
    AccumulatorOverflowError
        If the sum of a layer could leave its accumulator for some input; the layer is named.
    """
    shapes: dict[str, Shape | None] = {}
    qparams: dict[str, QParams] = {}
    for index, layer in enumerate(layers):
        _check_place(layer, index, shapes)
        _check_parts(layer)
        inputs = [qparams[name] for name in layer.inputs]
        _check_scales(layer, inputs)
        sources = [shapes[name] for name in layer.inputs]
        shape = output_shape(layer, sources) if index else (1, *_input_shape(layer, input_shape))
        _check_limits(layer, shape)
        check_sums(layer, inputs, sources)
        shapes[layer.name], qparams[layer.name] = shape, layer.output
    if output not in shapes:
        raise KernelError(f"the output {output!r} is no layer")
    return shapes


def multiplier(layer: IntegerLayer, inputs: Sequence[QParams]) -> float:
    """Return how many output steps one step of what a layer sums up is: the largest, where there are several.

    Examples
    --------
    >>> from qlearn.integer.layers import IntegerLayer
    >>> from qlearn.numbers.qparams import QParams
    >>> fine, coarse = QParams(0.25, 0, -128, 127), QParams(0.5, 0, -128, 127)
    >>> multiplier(IntegerLayer("sum", "add", ("a", "b"), fine), [fine, coarse])
    2.0
    """
    if layer.op in TABLE_OPS or layer.op in SHARING_OPS or layer.op == "float" or not inputs:
        return 1.0
    scales = [float(q.scale) for q in inputs]
    factor = 1.0 if layer.weight_qparams is None else float(layer.weight_qparams.scale.max())
    return (math.prod(scales) if layer.op == "multiply" else max(scales) * factor) / float(layer.output.scale)


def largest_sum(layer: IntegerLayer, inputs: Sequence[QParams], shapes: Sequence[Shape | None]) -> int:
    """Return the largest absolute value that a sum, or a product of codes, of a layer can have for any input.

    Examples
    --------
    >>> from qlearn.integer.layers import IntegerLayer
    >>> from qlearn.numbers.qparams import QParams
    >>> q = QParams(0.1, -128, -128, 127)                # codes are at most 255 away from the zero point
    >>> largest_sum(IntegerLayer("m", "mean", ("x",), q), [q], [(1, 8, 10, 10)])
    25500
    """
    farthest = [max(q.qmax - int(q.zero_point), int(q.zero_point) - q.qmin) for q in inputs]
    if layer.op in WEIGHTED_OPS:
        return _largest_weighted_sum(layer, farthest[0])
    if layer.op == "multiply":
        return farthest[0] * farthest[1]
    if layer.op in ("mean", "global_avg_pool") and shapes[0] is not None:
        return farthest[0] * math.prod(shapes[0][axis] for axis in mean_axes(layer))
    if layer.op == "avg_pool2d":
        return farthest[0] * int(math.prod(layer.attrs["kernel"]))
    return 0


def check_sums(layer: IntegerLayer, inputs: Sequence[QParams], shapes: Sequence[Shape | None]) -> None:
    """Raise AccumulatorOverflowError if some input could drive a sum of the layer out of its accumulator."""
    bound, wide = largest_sum(layer, inputs, shapes), _is_wide(layer)
    limit = WIDE_LIMIT if wide else INT32_MAX
    if bound > limit:
        raise AccumulatorOverflowError(
            f"layer {layer.name!r}: the accumulator can reach {bound:.3g}, more than "
            f"{'a 64-bit accumulator of 48 bits' if wide else 'int32'} holds ({limit:.3g}). "
            "Use fewer bits for its weights or its input, or keep it in float"
        )


def check_size(layers: Sequence[IntegerLayer], shapes: dict[str, Shape | None]) -> None:
    """Raise KernelError if a model would take hours or all memory, as a damaged or hostile file may ask for."""
    elements, work = 0, 0
    for layer in layers:
        shape = shapes[layer.name] or ()
        padded = _padded(layer, shapes)
        if max(math.prod(shape), padded) > MAX_ELEMENTS:
            raise KernelError(f"layer {layer.name!r}: {max(math.prod(shape), padded)} elements, more than qlearn takes")
        elements += math.prod(shape)
        work += _work(layer, shape)
        if elements > MAX_ELEMENTS_IN_ALL or work > MAX_WORK:
            raise KernelError(
                f"layer {layer.name!r}: up to here the network has {elements:.3g} values for one picture and needs "
                f"{work:.3g} multiplications, more than qlearn takes from a file"
            )


def _check_place(layer: IntegerLayer, index: int, known: dict[str, Any]) -> None:
    """Names, operations, and the order in which layers run."""
    if layer.op not in KERNELS and layer.op != "input":
        raise KernelError(f"layer {layer.name!r} has the unknown operation {layer.op!r}")
    if not isinstance(layer.name, str) or layer.name in known:
        raise KernelError(f"layer {layer.name!r}: its name is no text, or taken by another layer")
    if (layer.op == "input") != (index == 0) or not all(name in known for name in layer.inputs):
        raise KernelError(f"layer {layer.name!r} reads what does not exist yet: the input comes first, once")


def _check_parts(layer: IntegerLayer) -> None:
    """Weights, bias and scales: dtypes, and one number for each output channel."""
    weight, bias, q = layer.weight, layer.bias, layer.weight_qparams
    if layer.output.axis is not None or layer.output.bits > 16:
        raise KernelError(f"layer {layer.name!r}: its output {layer.output} has more than one scale, or over 16 bits")
    if layer.op not in WEIGHTED_OPS:
        return
    if weight is None or q is None or weight.ndim < 2:
        raise KernelError(f"layer {layer.name!r} has no weights")
    outputs = weight.shape[0]
    if weight.dtype.kind not in "iu" or weight.dtype.itemsize > 4 or q.axis not in (None, 0):
        raise KernelError(f"layer {layer.name!r}: its weights are {weight.dtype} with scales along axis {q.axis}")
    if q.channels not in (None, outputs) or (bias is not None and bias.shape != (outputs,)):
        raise KernelError(f"layer {layer.name!r}: not one scale, or one bias, for each of its {outputs} outputs")
    if bias is not None and bias.dtype not in (np.int32, np.int64):
        raise KernelError(f"layer {layer.name!r}: its bias is {bias.dtype}, not int32 or int64")


def _check_scales(layer: IntegerLayer, inputs: Sequence[QParams]) -> None:
    """The scale of the output, against those of the inputs."""
    if layer.op in SHARING_OPS and any(q != layer.output for q in inputs):
        raise KernelError(f"layer {layer.name!r} ({layer.op}) moves codes: its output must have the scale of its input")
    if layer.op in TABLE_OPS and any(q.bits > 8 for q in inputs):
        raise KernelError(
            f"layer {layer.name!r}: a table of {layer.attrs.get('function', 'softmax')} needs 8-bit codes"
        )
    ratio = multiplier(layer, inputs)
    largest = LARGEST_WIDE_MULTIPLIER if _is_wide(layer) else LARGEST_MULTIPLIER
    if ratio >= largest:
        raise KernelError(
            f"layer {layer.name!r}: its output has steps of {float(layer.output.scale):.3g}, {ratio:.3g} times "
            f"finer than what it is computed from (at most {largest:.0f} times): out of all proportion. "
            "Was it almost 0 on all pictures at calibration? Calibrate on others, or keep it in float"
        )


def _check_limits(layer: IntegerLayer, shape: Shape | None) -> None:
    """Clamps: whole numbers that the output holds, one for all or one per channel."""
    if layer.clamp is None:
        return
    held = np.iinfo(layer.output.dtype)
    limits = [np.asarray(limit) for limit in layer.clamp]
    if any(n.dtype.kind not in "iu" or not n.size or n.min() < held.min or n.max() > held.max for n in limits):
        raise KernelError(f"layer {layer.name!r}: its limits {layer.clamp} are no codes of {held.dtype}")
    if shape is None:
        return
    channels = shape[1 if len(shape) == 4 else -1]
    if any(limit.shape not in ((), (channels,)) for limit in limits) or np.any(limits[0] > limits[1]):
        raise KernelError(
            f"layer {layer.name!r}: its limits are not a low and a high one for each of {channels} channels"
        )


def _input_shape(layer: IntegerLayer, input_shape: Shape) -> Shape:
    if not input_shape or any(size < 1 for size in input_shape):
        raise KernelError(f"layer {layer.name!r}: the input has the shape {input_shape}")
    return tuple(input_shape)


def _largest_weighted_sum(layer: IntegerLayer, farthest: int) -> int:
    assert layer.weight is not None  # `_check_parts` has looked
    assert layer.weight_qparams is not None
    outputs = layer.weight.shape[0]
    zero = np.broadcast_to(layer.weight_qparams.zero_point, outputs).astype(np.int64)
    weight = layer.weight.reshape(outputs, -1).astype(np.int64) - zero[:, None]
    bias = np.zeros(outputs, np.int64) if layer.bias is None else layer.bias.astype(np.int64)
    totals = np.abs(weight).sum(axis=1)
    return max((int(w) * farthest + abs(int(b)) for w, b in zip(totals, bias, strict=True)), default=0)


def _is_wide(layer: IntegerLayer) -> bool:
    return layer.bias is not None and layer.bias.dtype == np.int64


def _padded(layer: IntegerLayer, shapes: dict[str, Shape | None]) -> int:
    """Elements of a layer's input with the zeros around it."""
    x = shapes[layer.inputs[0]] if layer.inputs else None
    if x is None or layer.op not in WINDOWED_OPS:
        return 0
    top, bottom, left, right = padding_sides(layer)
    return x[0] * x[1] * (x[2] + top + bottom) * (x[3] + left + right)


def _work(layer: IntegerLayer, shape: Shape) -> int:
    """Multiplications for one picture, or what takes as long."""
    values = math.prod(shape)
    if layer.op == "conv2d" and layer.weight is not None:
        places = math.prod(layer.weight.shape[2:])
        return int(places * (values * max(layer.weight.shape[1], SLOW) + PER_PLACE))
    if layer.op == "linear" and layer.weight is not None:
        return values * int(layer.weight.shape[1])
    if layer.op in ("avg_pool2d", "max_pool2d"):
        return int(math.prod(layer.attrs["kernel"])) * (values * SLOW + PER_PLACE)
    return values * SLOW
