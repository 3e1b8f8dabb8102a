"""An integer model under construction from a `LiteGraph`: which layer holds which tensor, and in which layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import ModelFileError
from qlearn.export.litert_build import FROM_FILE, TO_FILE, same_padding
from qlearn.export.litert_graph import ACTIVATIONS, SAME, VALID
from qlearn.integer.layers import IntegerLayer, code_limits
from qlearn.integer.shapes import output_shape
from qlearn.numbers.qparams import QParams

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qlearn.export.litert_graph import LiteGraph, LiteOperator, LiteTensor
    from qlearn.integer.layers import Limit

RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}


class Importer:
    """Layers made so far. Shapes are in our layout, with a batch of one."""

    def __init__(self, graph: LiteGraph) -> None:
        self.graph = graph
        self.layers: list[IntegerLayer] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.holds: dict[int, IntegerLayer] = {}
        self._copies: dict[str, int] = {}
        first = graph.tensors[graph.inputs[0]]
        if first.dtype in RANGES:
            self.start(graph.inputs[0], graph.inputs[0])

    def start(self, index: int, qparams_of: int) -> None:
        """Make the input layer for a tensor, with the scale of another where it is fed real numbers."""
        shape = self.our_shape(index)
        layer = IntegerLayer(self.free_name(index), "input", (), self.qparams(qparams_of))
        self.layers.append(layer)
        self.holds[index], self.shapes[layer.name] = layer, shape

    def tensor(self, index: int) -> LiteTensor:
        """Return a tensor; -1 is one that is left out."""
        if index < 0:
            raise ModelFileError("an input that it needs is left out")
        return self.graph.tensors[index]

    def source(self, index: int) -> IntegerLayer:
        """Return the layer that computes a tensor."""
        tensor = self.tensor(index)
        if index not in self.holds:
            what = "a constant, which this operator cannot read here" if tensor.data is not None else "never computed"
            raise ModelFileError(f"tensor {tensor.name!r} is {what}")
        return self.holds[index]

    def constant(self, index: int, dtypes: tuple[str, ...] = ("int32",)) -> NDArray[Any]:
        """Return the data of a constant."""
        tensor = self.tensor(index)
        if tensor.data is None or tensor.dtype not in dtypes:
            raise ModelFileError(f"tensor {tensor.name!r} is no constant of {' or '.join(dtypes)}")
        return tensor.data

    def qparams(self, index: int) -> QParams:
        """Return scale and zero point of an activation."""
        tensor = self.tensor(index)
        if tensor.dtype not in RANGES or tensor.scale is None or tensor.zero_point is None or tensor.scale.size != 1:
            raise ModelFileError(
                f"tensor {tensor.name!r} ({tensor.dtype}) is not quantized to 8 or 16 bits with one scale: "
                "qlearn reads fully quantized models"
            )
        return QParams(tensor.scale[0], tensor.zero_point[0], *RANGES[tensor.dtype])

    def weights(self, index: int, axis: int) -> tuple[NDArray[Any], QParams]:
        """Return weights in the layout of the file, and their qparams for channels along axis 0."""
        tensor, data = self.tensor(index), self.constant(index, ("int8", "uint8"))
        if tensor.scale is None or tensor.zero_point is None:
            raise ModelFileError(f"the weights {tensor.name!r} have no scale")
        qmin, qmax = RANGES[tensor.dtype]
        if tensor.scale.size == 1:
            return data, QParams(tensor.scale[0], tensor.zero_point[0], qmin, qmax)
        if tensor.axis != axis or tensor.scale.size != data.shape[axis]:
            raise ModelFileError(f"the weights {tensor.name!r} have scales along another axis than their channels")
        return data, QParams(tensor.scale, tensor.zero_point, qmin, qmax, axis=0)

    def bias(self, operator: LiteOperator, outputs: int) -> NDArray[Any] | None:
        """Return the bias of a convolution or a fully connected layer."""
        if len(operator.inputs) < 3 or operator.inputs[2] < 0:
            return None
        bias = self.constant(operator.inputs[2], ("int32", "int64"))
        if bias.shape != (outputs,):
            raise ModelFileError(f"a bias of shape {bias.shape} for {outputs} outputs")
        return bias

    def add(self, operator: LiteOperator, op: str, inputs: list[IntegerLayer], **parts: Any) -> None:
        """Add the layer of an operator; the shape that its output has must be the one that the file says."""
        if len(operator.outputs) != 1:
            raise ModelFileError(f"{len(operator.outputs)} outputs")
        index = operator.outputs[0]
        output = self.qparams(index)
        clamp = parts.pop("clamp", None) or self.clamp(operator, output)
        names = tuple(layer.name for layer in inputs)
        layer = IntegerLayer(self.free_name(index), op, names, output, clamp=clamp, **parts)
        shape = output_shape(layer, [self.shape(x) for x in inputs])
        if self.our_shape(index) != shape:
            raise ModelFileError(f"its output would have the shape {shape}, the file says {self.our_shape(index)}")
        self.put(index, layer, shape)

    def helper(self, name: str, op: str, source: IntegerLayer, attrs: dict[str, Any]) -> IntegerLayer:
        """Add a layer that only moves codes and is no tensor of the file."""
        layer = IntegerLayer(self._unused(name), op, (source.name,), source.output, attrs=attrs)
        shape = output_shape(layer, [self.shape(source)])
        assert shape is not None  # nothing that is imported runs in float
        self.layers.append(layer)
        self.shapes[layer.name] = shape
        return layer

    def put(self, index: int, layer: IntegerLayer, shape: tuple[int, ...]) -> None:
        """Remember which layer holds a tensor."""
        if index in self.holds:
            raise ModelFileError(f"tensor {self.graph.tensors[index].name!r} is computed twice")
        if not self.layers:
            raise ModelFileError("the network computes before it reads its input")
        self.layers.append(layer)
        self.holds[index], self.shapes[layer.name] = layer, shape

    def clamp(self, operator: LiteOperator, output: QParams) -> tuple[Limit, Limit] | None:
        """Return the codes of a fused activation."""
        number = int(operator.options.get("fusedActivationFunction", 0))
        if number not in ACTIVATIONS:
            raise ModelFileError(f"the fused activation {number} is not ReLU, ReLU6 or ReLU1")
        real = ACTIVATIONS[number]
        return None if real is None else code_limits(real, output)

    def our_shape(self, index: int) -> tuple[int, ...]:
        """Return the shape of an activation in our layout."""
        shape = self.tensor(index).shape
        if not 1 <= len(shape) <= 6 or shape[0] != 1:
            raise ModelFileError(f"tensor {self.tensor(index).name!r} of shape {shape}: qlearn takes a batch of one")
        return our_shape(shape)

    def shape(self, layer: IntegerLayer) -> tuple[int, ...]:
        """Return the shape of a layer's output in our layout."""
        return self.shapes[layer.name]

    def in_file_layout(self, layer: IntegerLayer) -> IntegerLayer:
        """Return the layer, or a transposed copy with the axes of the file."""
        shape = self.shape(layer)
        if len(shape) != 4 or shape[2:] == (1, 1):
            return layer
        return self.helper(f"{layer.name}/channels_last", "transpose", layer, {"axes": TO_FILE})

    def check_same_scale(self, operator: LiteOperator, x: IntegerLayer) -> None:
        """Refuse an operator that moves codes to another scale."""
        if len(operator.outputs) == 1 and self.qparams(operator.outputs[0]) != x.output:
            raise ModelFileError("its output has another scale or zero point than its input")

    def free_name(self, index: int) -> str:
        """Return the name of a tensor, made unique."""
        return self._unused(self.tensor(index).name or f"tensor {index}")

    def _unused(self, name: str) -> str:
        candidate = name
        while candidate in self.shapes:  # counting goes on where it stopped: thousands of tensors may share a name
            self._copies[name] = self._copies.get(name, 1) + 1
            candidate = f"{name}_{self._copies[name]}"
        return candidate


def source_and_rest(
    importer: Importer, operator: LiteOperator, least: int, most: int | None = None
) -> tuple[IntegerLayer, tuple[int, ...]]:
    """Return the layer of the first input, and the indices of the other inputs."""
    if not least <= len(operator.inputs) <= (most or least):
        raise ModelFileError(f"{len(operator.inputs)} inputs")
    return importer.source(operator.inputs[0]), operator.inputs[1:]


def our_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape of the file in our layout."""
    return tuple(shape[axis] for axis in FROM_FILE) if len(shape) == 4 else shape


def padding_sides(
    kind: int, size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return what a kind of padding adds: (top, bottom, left, right).

    Examples
    --------
    >>> padding_sides(SAME, (224, 224), (3, 3), (2, 2), (1, 1))
    (0, 1, 0, 1)
    """
    if kind not in (SAME, VALID) or min(*stride, *dilation, *kernel) < 1:
        raise ModelFileError(f"padding {kind}, strides {stride}, dilation {dilation}, window {kernel}")
    if kind == VALID:
        return (0, 0, 0, 0)
    rows, columns = (same_padding(n, k, s, d) for n, k, s, d in zip(size, kernel, stride, dilation, strict=True))
    return (*rows, *columns)


def as_int(values: Any) -> tuple[int, ...]:
    """Return Python integers."""
    return tuple(int(value) for value in np.ravel(values))
