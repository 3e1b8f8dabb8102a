"""Operators of a .tflite file that move codes or change their scale, as layers of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qlearn.errors import ModelFileError
from qlearn.export.litert_build import FROM_FILE, TO_FILE
from qlearn.export.litert_nodes import Importer, as_int, source_and_rest

if TYPE_CHECKING:
    from qlearn.export.litert_graph import LiteOperator


def quantize(importer: Importer, operator: LiteOperator) -> None:
    """QUANTIZE: the input, where it reads real numbers; elsewhere a change of scale."""
    index = operator.inputs[0] if len(operator.inputs) == 1 else -1
    if importer.tensor(index).dtype == "float32" and index == importer.graph.inputs[0] and not importer.layers:
        if importer.our_shape(operator.outputs[0]) != importer.our_shape(index):
            raise ModelFileError("its output has another shape than its input")
        importer.start(operator.outputs[0], operator.outputs[0])
        return
    x, _ = source_and_rest(importer, operator, 1)
    importer.add(operator, "convert", [x])


def dequantize(importer: Importer, operator: LiteOperator) -> None:
    """DEQUANTIZE at the end: the model returns the codes before it."""
    x, _ = source_and_rest(importer, operator, 1)
    if operator.outputs != importer.graph.outputs:
        raise ModelFileError("real numbers in the middle of the network: qlearn reads fully quantized models")
    importer.holds[operator.outputs[0]] = x


def reshape(importer: Importer, operator: LiteOperator) -> None:
    """RESHAPE and SQUEEZE, in the order of the file: transposed before and after where the order matters."""
    x = importer.source(operator.inputs[0]) if operator.inputs else None
    if x is None or len(operator.outputs) != 1:
        raise ModelFileError("it has no input, or not one output")
    target = importer.our_shape(operator.outputs[0])
    x = importer.in_file_layout(x)
    importer.check_same_scale(operator, x)
    if len(target) != 4 or target[2:] == (1, 1):
        importer.add(operator, "reshape", [x], attrs={"shape": target[1:]})
        return
    last = tuple(target[axis] for axis in TO_FILE)
    x = importer.helper(f"{x.name}/reshaped", "reshape", x, {"shape": last[1:]})
    importer.add(operator, "transpose", [x], attrs={"axes": FROM_FILE})


def transpose(importer: Importer, operator: LiteOperator) -> None:
    """TRANSPOSE, its axes in our order."""
    x, index = source_and_rest(importer, operator, 2)
    axes, shape = as_int(importer.constant(index[0])), importer.shape(x)
    if len(shape) == 4 and sorted(axes) == [0, 1, 2, 3]:
        axes = tuple(TO_FILE[axes[axis]] for axis in FROM_FILE)
    importer.check_same_scale(operator, x)
    importer.add(operator, "transpose", [x], attrs={"axes": axes})


def pad(importer: Importer, operator: LiteOperator) -> None:
    """PAD with zero points."""
    x, index = source_and_rest(importer, operator, 2)
    shape, amounts = importer.shape(x), importer.constant(index[0], ("int32", "int64"))
    if amounts.shape != (len(shape), 2):
        raise ModelFileError(f"amounts {amounts.tolist()} for an input of shape {shape}")
    order = FROM_FILE if len(shape) == 4 else range(len(shape))
    ours = tuple((int(amounts[axis][0]), int(amounts[axis][1])) for axis in order)
    importer.check_same_scale(operator, x)
    importer.add(operator, "pad", [x], attrs={"amounts": ours})


def strided_slice(importer: Importer, operator: LiteOperator) -> None:
    """STRIDED_SLICE forwards, without masks that add or remove axes."""
    x, index = source_and_rest(importer, operator, 4)
    options, shape = operator.options, importer.shape(x)
    begin, end, step = (as_int(importer.constant(i)) for i in index)
    if any(options[key] for key in ("ellipsisMask", "newAxisMask", "shrinkAxisMask")) or min(step, default=1) < 1:
        raise ModelFileError("it adds or removes axes, or runs backwards")
    if not len(begin) == len(end) == len(step) == len(shape):
        raise ModelFileError(f"{len(begin)} bounds for an input of shape {shape}")
    masks = [options[key] for key in ("beginMask", "endMask")]
    bounds = [
        (
            *(None if mask >> axis & 1 else bound[axis] for mask, bound in zip(masks, (begin, end), strict=True)),
            step[axis],
        )
        for axis in range(len(shape))
    ]
    order = FROM_FILE if len(shape) == 4 else range(len(shape))
    slices = tuple(bounds[axis] for axis in order)
    if slices[0] not in ((None, None, 1), (0, None, 1), (None, 1, 1), (0, 1, 1)):
        raise ModelFileError("it cuts the batch")
    importer.check_same_scale(operator, x)
    importer.add(operator, "slice", [x], attrs={"slices": ((None, None, None), *slices[1:])})


def concat(importer: Importer, operator: LiteOperator) -> None:
    """CONCATENATION of tensors of one scale."""
    inputs = [importer.source(index) for index in operator.inputs]
    if not inputs:
        raise ModelFileError("no inputs")
    ndim, axis = len(importer.shape(inputs[0])), int(operator.options["axis"])
    if ndim == 4 and -4 <= axis < 4:
        axis = FROM_FILE.index(axis % 4)
    for layer in inputs:
        importer.check_same_scale(operator, layer)
    importer.add(operator, "concat", inputs, attrs={"axis": axis})
