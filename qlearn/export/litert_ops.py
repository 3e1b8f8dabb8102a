"""Each operator of a .tflite file as a layer of ours: one short function per operator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import ModelFileError
from qlearn.export import litert_moves as moves
from qlearn.export.litert_build import FROM_FILE
from qlearn.export.litert_nodes import Importer, as_int, padding_sides, source_and_rest
from qlearn.integer.layers import code_limits
from qlearn.integer.tables import FIXED_OUTPUTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from qlearn.export.litert_graph import LiteOperator
    from qlearn.numbers.qparams import QParams

    Import = Callable[[Importer, LiteOperator], None]


def conv2d(importer: Importer, operator: LiteOperator) -> None:
    """CONV_2D: weights (O, KH, KW, I)."""
    x, index = source_and_rest(importer, operator, 2, 3)
    data, qparams = importer.weights(index[0], axis=0)
    shape = importer.shape(x)
    if len(shape) != 4 or data.ndim != 4 or shape[1] % data.shape[3] or data.shape[0] % (shape[1] // data.shape[3]):
        raise ModelFileError(f"weights of shape {data.shape} for an input of shape {shape}")
    _convolution(importer, operator, data.transpose(0, 3, 1, 2), qparams, shape[1] // data.shape[3])


def depthwise(importer: Importer, operator: LiteOperator) -> None:
    """DEPTHWISE_CONV_2D: weights (1, KH, KW, O)."""
    x, index = source_and_rest(importer, operator, 2, 3)
    data, qparams = importer.weights(index[0], axis=3)
    shape = importer.shape(x)
    if len(shape) != 4 or data.ndim != 4 or data.shape[0] != 1 or data.shape[3] % shape[1]:
        raise ModelFileError(f"weights of shape {data.shape} for an input of shape {shape}")
    _convolution(importer, operator, data.transpose(3, 0, 1, 2), qparams, shape[1])


def linear(importer: Importer, operator: LiteOperator) -> None:
    """FULLY_CONNECTED: weights (O, I) over the last axis of the file, or over all but the batch."""
    x, index = source_and_rest(importer, operator, 2, 3)
    data, qparams = importer.weights(index[0], axis=0)
    if data.ndim != 2 or operator.options["weightsFormat"]:
        raise ModelFileError(f"weights of shape {data.shape} in format {operator.options['weightsFormat']}")
    x = importer.in_file_layout(x)
    shape = importer.shape(x)
    rows = math.prod(shape) // data.shape[1]
    if not operator.options["keepNumDims"] and (len(shape) != 2 or shape[1] != data.shape[1]):
        if rows != 1 or math.prod(shape) != data.shape[1]:
            raise ModelFileError(f"weights of shape {data.shape} for an input of shape {shape}")
        shape = (1, data.shape[1])
        x = importer.helper(f"{x.name}/row", "reshape", x, {"shape": shape[1:]})
    if len(shape) == 4:
        raise ModelFileError(f"weights of shape {data.shape} for an input of shape {shape}")
    bias = importer.bias(operator, data.shape[0])
    importer.add(operator, "linear", [x], weight=data, weight_qparams=qparams, bias=bias)


def two_inputs(op: str) -> Import:
    """ADD, SUB, MUL: shapes that are equal or broadcast."""

    def run(importer: Importer, operator: LiteOperator) -> None:
        if len(operator.inputs) != 2:
            raise ModelFileError(f"{len(operator.inputs)} inputs")
        importer.add(operator, op, [importer.source(index) for index in operator.inputs])

    return run


def pool(op: str) -> Import:
    """AVERAGE_POOL_2D, MAX_POOL_2D: the output has the scale of the input."""

    def run(importer: Importer, operator: LiteOperator) -> None:
        x, _ = source_and_rest(importer, operator, 1)
        shape, options = importer.shape(x), operator.options
        kernel = (int(options["filterHeight"]), int(options["filterWidth"]))
        stride = (int(options["strideH"]), int(options["strideW"]))
        if len(shape) != 4:
            raise ModelFileError(f"a window of {kernel} for an input of shape {shape}")
        importer.check_same_scale(operator, x)
        padding = padding_sides(int(options["padding"]), shape[2:], kernel, stride, (1, 1))
        attrs: dict[str, Any] = {"kernel": kernel, "stride": stride, "padding": padding}
        if op == "avg_pool2d":
            attrs["count_include_pad"] = False
        importer.add(operator, op, [x], attrs=attrs)

    return run


def mean(importer: Importer, operator: LiteOperator) -> None:
    """MEAN over some axes."""
    x, index = source_and_rest(importer, operator, 2)
    keepdim = bool(operator.options["keepDims"])
    ndim = len(importer.shape(x))
    axes = sorted({axis % ndim for axis in as_int(importer.constant(index[0])) if -ndim <= axis < ndim})
    if not axes or 0 in axes:
        raise ModelFileError(f"a mean over the axes {axes}: the batch must stay")
    if ndim == 4 and (keepdim or axes == [1, 2]):
        axes = sorted(FROM_FILE.index(axis) for axis in axes)
    else:
        x = importer.in_file_layout(x)
        if ndim == 4 and importer.shape(x)[2:] == (1, 1):
            raise ModelFileError(f"a mean over the axes {axes} of {importer.shape(x)}")
    importer.add(operator, "mean", [x], attrs={"axes": tuple(axes), "keepdim": keepdim})


def softmax(importer: Importer, operator: LiteOperator) -> None:
    """SOFTMAX over the last axis."""
    x, _ = source_and_rest(importer, operator, 1)
    beta = float(operator.options["beta"])
    if len(importer.shape(x)) == 4 or not 0 < beta < 2**20 or x.output.bits > 8:
        raise ModelFileError(f"beta {beta} over {importer.shape(x)}")
    _check_fixed(importer, operator, "softmax")
    importer.add(operator, "softmax", [x], attrs={"beta": beta})


def unary(function: str) -> Import:
    """LOGISTIC, TANH, HARD_SWISH: a table of 256 codes."""

    def run(importer: Importer, operator: LiteOperator) -> None:
        x, _ = source_and_rest(importer, operator, 1)
        if x.output.bits > 8:
            raise ModelFileError("its input has 16 bits, and qlearn has tables for 8")
        _check_fixed(importer, operator, function)
        importer.add(operator, "unary", [x], attrs={"function": function})

    return run


def relu(limits: tuple[float, float]) -> Import:
    """RELU, RELU6 on their own: the output has the scale of the input."""

    def run(importer: Importer, operator: LiteOperator) -> None:
        x, _ = source_and_rest(importer, operator, 1)
        importer.check_same_scale(operator, x)
        importer.add(operator, "clamp", [x], clamp=code_limits(limits, x.output))

    return run


def extremum(which: int) -> Import:
    """MAXIMUM (0) or MINIMUM (1) with a constant of the same scale: a limit for all channels, or one for each."""

    def run(importer: Importer, operator: LiteOperator) -> None:
        x, index = source_and_rest(importer, operator, 2)
        constant = importer.constant(index[0], (x.output.dtype.name,))
        channels = importer.shape(x)[1 if len(importer.shape(x)) == 4 else -1]  # the last axis of the file
        last = constant.shape[-1] if constant.ndim else 1
        if importer.qparams(index[0]) != x.output or constant.size != last or last not in (1, channels):
            raise ModelFileError("its constant has another scale, or another shape than one number per channel")
        importer.check_same_scale(operator, x)
        limit = int(constant.ravel()[0]) if last == 1 else constant.ravel().astype(np.int32)
        clamp = (limit, x.output.qmax) if which == 0 else (x.output.qmin, limit)
        importer.add(operator, "clamp", [x], clamp=clamp)

    return run


def _convolution(
    importer: Importer, operator: LiteOperator, weight: NDArray[Any], qparams: QParams, groups: int
) -> None:
    x, options = importer.source(operator.inputs[0]), operator.options
    shape, kernel = importer.shape(x), weight.shape[2:]
    stride = (int(options["strideH"]), int(options["strideW"]))
    dilation = (int(options["dilationHFactor"]), int(options["dilationWFactor"]))
    padding = padding_sides(int(options["padding"]), shape[2:], kernel, stride, dilation)
    importer.add(
        operator,
        "conv2d",
        [x],
        attrs={"stride": stride, "padding": padding, "dilation": dilation, "groups": groups},
        weight=np.ascontiguousarray(weight),
        weight_qparams=qparams,
        bias=importer.bias(operator, weight.shape[0]),
    )


def _check_fixed(importer: Importer, operator: LiteOperator, function: str) -> None:
    """The output scales that LiteRT prescribes for sigmoid, tanh and softmax."""
    if function not in FIXED_OUTPUTS or not operator.outputs:
        return
    scale, zero = FIXED_OUTPUTS[function]
    output = importer.qparams(operator.outputs[0])
    if float(output.scale) != scale or int(output.zero_point) != zero + (output.qmin + 128):
        raise ModelFileError(f"its output {output} is not in steps of 1/{1 / scale:.0f} with zero point {zero}")


IMPORTERS: dict[str, Import] = {
    "ADD": two_inputs("add"),
    "AVERAGE_POOL_2D": pool("avg_pool2d"),
    "CONCATENATION": moves.concat,
    "CONV_2D": conv2d,
    "DEPTHWISE_CONV_2D": depthwise,
    "DEQUANTIZE": moves.dequantize,
    "FULLY_CONNECTED": linear,
    "HARD_SWISH": unary("hard_swish"),
    "LOGISTIC": unary("sigmoid"),
    "MAXIMUM": extremum(0),
    "MAX_POOL_2D": pool("max_pool2d"),
    "MEAN": mean,
    "MINIMUM": extremum(1),
    "MUL": two_inputs("multiply"),
    "PAD": moves.pad,
    "QUANTIZE": moves.quantize,
    "RELU": relu((0.0, np.inf)),
    "RELU6": relu((0.0, 6.0)),
    "RESHAPE": moves.reshape,
    "SOFTMAX": softmax,
    "SQUEEZE": moves.reshape,
    "STRIDED_SLICE": moves.strided_slice,
    "SUB": two_inputs("subtract"),
    "TANH": unary("tanh"),
    "TRANSPOSE": moves.transpose,
}
"""How each operator is read."""
