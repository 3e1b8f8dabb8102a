"""From the bytes of a .tflite file to plain values. Nothing is executed, nothing is believed before it is checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import ModelFileError
from qlearn.export.flatbuffer import Flatbuffer
from qlearn.export.litert_graph import OPERATIONS, TENSOR_TYPES, LiteGraph, LiteOperator, LiteTensor
from qlearn.integer.checks import MAX_ELEMENTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NAMES = {operation.code: name for name, operation in OPERATIONS.items()}


def lite_graph(content: bytes) -> LiteGraph:
    """Return what a .tflite file says.

    Parameters
    ----------
    content : bytes

    Returns
    -------
    LiteGraph
        Its one network. Constants are views of `content`.

    Raises
    ------
    ModelFileError
        If the file is damaged, or has something that qlearn does not read; the operator is named.

    References
    ----------
    The public schema of LiteRT, ``schema.fbs``.
    """
    if not is_litert(content):
        raise ModelFileError(f"not a .tflite file (its identifier is {content[4:8]!r}, not b'TFL3')")
    flat = Flatbuffer(content)
    model = flat.root()
    graphs = flat.tables(model, 2)
    if len(graphs) != 1:
        raise ModelFileError(f"it holds {len(graphs)} networks, and qlearn reads files with one")
    codes = [_operation(flat, table) for table in flat.tables(model, 1)]
    buffers = flat.tables(model, 4)
    tensors = tuple(_tensor(flat, table, buffers) for table in flat.tables(graphs[0], 0))
    operators = tuple(_operator(flat, table, codes) for table in flat.tables(graphs[0], 3))
    for operator in operators:
        _check_indices(operator.op, (*operator.inputs, *operator.outputs), len(tensors))
    inputs, outputs = (_indices(flat, graphs[0], slot) for slot in (1, 2))
    _check_indices("the network", (*inputs, *outputs), len(tensors))
    return LiteGraph(tensors, operators, inputs, outputs, flat.text(graphs[0], 4) or "main")


def is_litert(head: bytes) -> bool:
    """Return whether a file that begins with these bytes says that it is a .tflite file.

    Examples
    --------
    >>> is_litert(bytes(4) + b"TFL3"), is_litert(b"hello")
    (True, False)
    """
    return head[4:8] == b"TFL3"


def _operation(flat: Flatbuffer, table: int) -> str:
    """Name of an operator; one that is not supported gets its number, and is refused where it is used."""
    code = max(int(flat.scalar(table, 0, "int8", 0)), int(flat.scalar(table, 3, "int32", 0)))
    return _NAMES.get(code, flat.text(table, 1) if code == 32 else f"number {code}")


def _tensor(flat: Flatbuffer, table: int, buffers: list[int]) -> LiteTensor:
    name, number = flat.text(table, 3), int(flat.scalar(table, 1, "int8", 0))
    if number not in TENSOR_TYPES:
        raise ModelFileError(f"tensor {name!r} has the element type {number}, which qlearn does not read")
    if flat.scalar(table, 5, "bool", 0) or flat.field(table, 6) is not None or flat.scalar(table, 10, "uint32", 0):
        raise ModelFileError(f"tensor {name!r} is a variable, sparse, or stored elsewhere: qlearn does not read that")
    sizes = flat.vector(table, 0, "int32")
    shape = () if sizes is None else tuple(int(size) for size in sizes)
    elements = _elements(name, shape)
    dtype = TENSOR_TYPES[number]
    scale, zero_point, axis = _quantization(flat, table, name)
    index = int(flat.scalar(table, 2, "uint32", 0))
    if index >= len(buffers):
        raise ModelFileError(f"tensor {name!r} has its data in buffer {index}, and there are {len(buffers)}")
    data = _data(flat, buffers[index], name)
    if data is not None:
        item = np.dtype(dtype).newbyteorder("<")
        if data.nbytes != elements * item.itemsize:
            raise ModelFileError(f"tensor {name!r} of shape {shape} has {data.nbytes} bytes of {dtype}")
        data = data.view(item).reshape(shape).astype(dtype, copy=False)
    return LiteTensor(name, shape, dtype, scale, zero_point, axis, data)


def _elements(name: str, shape: tuple[int, ...]) -> int:
    elements = 1
    for size in shape:
        elements *= size
        if size < 1 or elements > MAX_ELEMENTS:
            raise ModelFileError(f"tensor {name!r} has the shape {shape}: qlearn takes 1 to {MAX_ELEMENTS} elements")
    return elements


def _data(flat: Flatbuffer, buffer: int, name: str) -> NDArray[Any] | None:
    if flat.scalar(buffer, 1, "uint64", 0) or flat.scalar(buffer, 2, "uint64", 0):
        raise ModelFileError(f"tensor {name!r} has its data behind the flatbuffer, as files over 2 GB do")
    data = flat.vector(buffer, 0, "uint8")
    return None if data is None or data.size == 0 else data


def _quantization(
    flat: Flatbuffer, table: int, name: str
) -> tuple[NDArray[np.float32] | None, NDArray[np.int64] | None, int]:
    quantization = flat.table(table, 4)
    if quantization is None:
        return None, None, 0
    if flat.scalar(quantization, 4, "uint8", 0):
        raise ModelFileError(f"tensor {name!r} has a custom quantization, which qlearn does not read")
    scale, zero_point = flat.vector(quantization, 2, "float32"), flat.vector(quantization, 3, "int64")
    if scale is None or scale.size == 0:
        return None, None, 0
    if zero_point is None:
        zero_point = np.zeros(scale.size, np.int64)
    if zero_point.size != scale.size:
        raise ModelFileError(f"tensor {name!r} has {scale.size} scales and {zero_point.size} zero points")
    return scale.astype(np.float32), zero_point.astype(np.int64), int(flat.scalar(quantization, 6, "int32", 0))


def _operator(flat: Flatbuffer, table: int, codes: list[str]) -> LiteOperator:
    index = int(flat.scalar(table, 0, "uint32", 0))
    if index >= len(codes):
        raise ModelFileError(f"an operator has the code {index}, and there are {len(codes)}")
    name = codes[index]
    if name not in OPERATIONS:
        raise ModelFileError(f"operator {name}: qlearn reads {', '.join(sorted(OPERATIONS))}")
    inputs, outputs = _indices(flat, table, 1), _indices(flat, table, 2)
    expected, options = OPERATIONS[name].options, flat.table(table, 4)
    if expected is None or options is None:
        return LiteOperator(name, inputs, outputs)
    if flat.scalar(table, 3, "uint8", 0) != expected.number:
        raise ModelFileError(f"operator {name} has the options of another operator")
    values = {key: flat.scalar(options, slot, kind, default) for key, slot, kind, default in expected.fields}
    return LiteOperator(name, inputs, outputs, values)


def _indices(flat: Flatbuffer, table: int, slot: int) -> tuple[int, ...]:
    found = flat.vector(table, slot, "int32")
    return () if found is None else tuple(int(index) for index in found)


def _check_indices(where: str, indices: tuple[int, ...], tensors: int) -> None:
    if any(not -1 <= index < tensors for index in indices):
        raise ModelFileError(f"{where} refers to the tensors {list(indices)}, and there are {tensors}")
