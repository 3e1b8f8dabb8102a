"""Small .tflite networks as other converters write them, as plain values: what the importer must understand."""

import numpy as np

from qlearn.export.litert_graph import LiteGraph, LiteOperator, LiteTensor

Q = (0.05, -4)
PICTURE = (1, 4, 6, 8)


def tensor(name, shape, dtype="int8", q=Q, data=None):
    scale, zero = (None, None) if q is None else (np.float32([q[0]]), np.int64([q[1]]))
    return LiteTensor(name, tuple(shape), dtype, scale, zero, data=data)


def constant(name, values):
    data = np.array(values, np.int32)
    return tensor(name, data.shape, "int32", None, data)


def one(op, output, *constants, source=None, **options):
    """One operator with one input."""
    tensors = (source or tensor("x", PICTURE), *constants, output)
    operator = LiteOperator(op, tuple(range(len(tensors) - 1)), (len(tensors) - 1,), options)
    return LiteGraph(tensors, (operator,), (0,), (len(tensors) - 1,))


def chain(*steps):
    """Operators one after the other: (op, output tensor, constants, options)."""
    tensors, operators, last = [tensor("x", PICTURE)], [], 0
    for op, output, constants, options in steps:
        first = len(tensors)
        tensors += [*constants, output]
        operators.append(LiteOperator(op, (last, *range(first, len(tensors) - 1)), (len(tensors) - 1,), options))
        last = len(tensors) - 1
    return LiteGraph(tuple(tensors), tuple(operators), (0,), (last,))


def linear_constants(inputs, outputs, seed=0):
    rng = np.random.default_rng(seed)
    weight = rng.integers(-127, 128, (outputs, inputs)).astype(np.int8)
    bias = rng.integers(-999, 999, outputs).astype(np.int32)
    return tensor("w", weight.shape, "int8", (0.01, 0), weight), tensor(
        "b", (outputs,), "int32", (0.05 * 0.01, 0), bias
    )


GRAPHS = {
    "float in": one("QUANTIZE", tensor("y", PICTURE), source=tensor("x", PICTURE, "float32", None)),
    "float out": chain(
        ("RELU6", tensor("r", PICTURE), (), {}), ("DEQUANTIZE", tensor("y", PICTURE, "float32", None), (), {})
    ),
    "uint8 in": one("QUANTIZE", tensor("y", PICTURE), source=tensor("x", PICTURE, "uint8", (0.05, 124))),
    "another scale": one("QUANTIZE", tensor("y", PICTURE, q=(0.11, 7))),
    "relu": one("RELU", tensor("y", PICTURE)),
    "relu6": one("RELU6", tensor("y", PICTURE)),
    "mean of the rows": one("MEAN", tensor("y", (1, 1, 6, 8)), constant("a", [1]), keepDims=True),
    "mean of the channels": one("MEAN", tensor("y", (1, 4, 6)), constant("a", [-1]), keepDims=False),
    "mean of the columns": one("MEAN", tensor("y", (1, 4, 8)), constant("a", [2]), keepDims=False),
    "linear from four axes": one("FULLY_CONNECTED", tensor("y", (1, 5), q=(1.0, 3)), *linear_constants(192, 5)),
    "linear of three axes": chain(
        ("RESHAPE", tensor("r", (1, 24, 8)), (constant("s", [1, 24, 8]),), {}),
        ("FULLY_CONNECTED", tensor("y", (1, 24, 5), q=(0.5, 3)), linear_constants(8, 5), {"keepNumDims": True}),
    ),
    "rows to channels": one("TRANSPOSE", tensor("y", (1, 8, 6, 4)), constant("p", [0, 3, 2, 1])),
    "reshape to four axes": one("RESHAPE", tensor("y", (1, 8, 12, 2)), constant("s", [1, 8, 12, 2])),
    "pad of channels": one("PAD", tensor("y", (1, 5, 6, 11)), constant("p", [[0, 0], [1, 0], [0, 0], [1, 2]])),
    "slice": one(
        "STRIDED_SLICE", tensor("y", (1, 2, 5, 4)),
        constant("b", [0, 1, 0, -4]), constant("e", [1, 4, 5, 0]), constant("s", [1, 2, 1, 1]), endMask=8,
    ),
    "softmax of three axes": chain(
        ("RESHAPE", tensor("r", (1, 24, 8)), (constant("s", [1, 24, 8]),), {}),
        ("SOFTMAX", tensor("y", (1, 24, 8), q=(1 / 256, -128)), (), {"beta": 1.0}),
    ),
}  # fmt: skip


def input_for(graph, seed=0):
    """Random input of the graph, in the layout of the file."""
    first, rng = graph.tensors[graph.inputs[0]], np.random.default_rng(seed)
    if first.dtype == "float32":
        return rng.normal(0, 3, first.shape).astype(np.float32)
    limits = np.iinfo(first.dtype)
    return rng.integers(limits.min, limits.max + 1, first.shape).astype(first.dtype)
