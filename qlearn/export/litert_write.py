"""From plain values to the bytes of a .tflite file, with the public flatbuffer schema and no TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import MissingDependencyError
from qlearn.export.litert_graph import OPERATIONS, TENSOR_TYPES

if TYPE_CHECKING:
    from qlearn.export.litert_graph import LiteGraph, LiteOperator, LiteTensor

_TYPE_NUMBERS = {name: number for number, name in TENSOR_TYPES.items()}


def lite_bytes(graph: LiteGraph) -> bytes:
    """Return the file that holds the network.

    Parameters
    ----------
    graph : LiteGraph

    Returns
    -------
    bytes

    Raises
    ------
    MissingDependencyError
        If ai-edge-litert, which brings the schema, is not installed.
    """
    try:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise MissingDependencyError(
            "writing a .tflite file needs the schema of ai-edge-litert: pip install 'qlearn[litert]'"
        ) from error
    model, main = schema.ModelT(), schema.SubGraphT()
    model.version, model.description = 3, "qlearn"
    model.buffers = [schema.BufferT()]  # buffer 0 is empty, by custom: what is computed has no data
    names = sorted({operator.op for operator in graph.operators})
    model.operatorCodes = [_operator_code(schema, name) for name in names]
    main.tensors = [_tensor(schema, tensor, model.buffers) for tensor in graph.tensors]
    main.operators = [_operator(schema, operator, names) for operator in graph.operators]
    main.inputs, main.outputs, main.name = list(graph.inputs), list(graph.outputs), graph.name
    model.subgraphs = [main]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _operator_code(schema: Any, name: str) -> Any:
    code, operation = schema.OperatorCodeT(), OPERATIONS[name]
    code.builtinCode, code.version = operation.code, operation.version
    code.deprecatedBuiltinCode = min(operation.code, 127)  # files before 2020 had one byte
    return code


def _tensor(schema: Any, tensor: LiteTensor, buffers: list[Any]) -> Any:
    result = schema.TensorT()
    result.name, result.shape, result.type = tensor.name, list(tensor.shape), _TYPE_NUMBERS[tensor.dtype]
    result.hasRank = True
    if tensor.scale is not None and tensor.zero_point is not None:
        result.quantization = schema.QuantizationParametersT()
        result.quantization.scale = tensor.scale.astype(np.float32).tolist()
        result.quantization.zeroPoint = tensor.zero_point.astype(np.int64).tolist()
        result.quantization.quantizedDimension = tensor.axis
    if tensor.data is not None:
        little = tensor.data.astype(tensor.data.dtype.newbyteorder("<"), copy=False)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(little.tobytes(), np.uint8)
        result.buffer = len(buffers)
        buffers.append(buffer)
    return result


def _operator(schema: Any, operator: LiteOperator, names: list[str]) -> Any:
    result, options = schema.OperatorT(), OPERATIONS[operator.op].options
    result.opcodeIndex = names.index(operator.op)
    result.inputs, result.outputs = list(operator.inputs), list(operator.outputs)
    if options is not None:
        result.builtinOptionsType = options.number
        result.builtinOptions = getattr(schema, f"{options.table}T")()
        for name, _, kind, default in options.fields:
            value = operator.options.get(name, default)
            setattr(result.builtinOptions, name, bool(value) if kind == "bool" else value)
    return result
