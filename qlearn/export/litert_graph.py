"""What a .tflite file says, as plain values: tensors, operators, and the tables of the public schema that we use.

The reader makes a `LiteGraph` from bytes and the writer makes bytes from it, so that import and export never see
a flatbuffer. Layout is that of the file: (N, H, W, C).

References
----------
The numbers are those of ``schema.fbs`` of LiteRT (google-ai-edge/LiteRT, Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

TENSOR_TYPES = {0: "float32", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8"}
"""Element types by their number in the schema; others are refused."""

ACTIVATIONS = {0: None, 1: (0.0, np.inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
"""Fused activations by their number: the real clamp, or None."""

SAME, VALID = 0, 1
"""The two kinds of padding. SAME puts the odd row or column at the bottom or right."""


@dataclass(frozen=True)
class Options:
    """The options table of an operator: its number in the union, and (name, slot, kind, default) of each field."""

    table: str
    number: int
    fields: tuple[tuple[str, int, str, float], ...] = ()


@dataclass(frozen=True)
class Operation:
    """One builtin operator: its code, the version that takes int8, and its options."""

    code: int
    version: int
    options: Options | None = None


def _windowed(table: str, number: int, *rest: tuple[str, int, str, float]) -> Options:
    """Options that begin with padding and stride, as all sliding windows do."""
    return Options(
        table, number, (("padding", 0, "int8", 0), ("strideW", 1, "int32", 0), ("strideH", 2, "int32", 0), *rest)
    )


_CONV = _windowed(
    "Conv2DOptions", 1,
    ("fusedActivationFunction", 3, "int8", 0), ("dilationWFactor", 4, "int32", 1), ("dilationHFactor", 5, "int32", 1),
)  # fmt: skip
_DEPTHWISE = _windowed(
    "DepthwiseConv2DOptions", 2,
    ("depthMultiplier", 3, "int32", 0), ("fusedActivationFunction", 4, "int8", 0),
    ("dilationWFactor", 5, "int32", 1), ("dilationHFactor", 6, "int32", 1),
)  # fmt: skip
_POOL = _windowed(
    "Pool2DOptions", 5,
    ("filterWidth", 3, "int32", 0), ("filterHeight", 4, "int32", 0), ("fusedActivationFunction", 5, "int8", 0),
)  # fmt: skip
_LINEAR = Options(
    "FullyConnectedOptions", 8,
    (("fusedActivationFunction", 0, "int8", 0), ("weightsFormat", 1, "int8", 0), ("keepNumDims", 2, "bool", 0)),
)  # fmt: skip
_ACTIVATION = (("fusedActivationFunction", 0, "int8", 0),)
_STRIDED = Options(
    "StridedSliceOptions", 32,
    tuple((name, slot, "int32", 0) for slot, name in
          enumerate(("beginMask", "endMask", "ellipsisMask", "newAxisMask", "shrinkAxisMask"))),
)  # fmt: skip

OPERATIONS: dict[str, Operation] = {
    "ADD": Operation(0, 2, Options("AddOptions", 11, _ACTIVATION)),
    "AVERAGE_POOL_2D": Operation(1, 2, _POOL),
    "CONCATENATION": Operation(
        2, 2, Options("ConcatenationOptions", 10, (("axis", 0, "int32", 0), ("fusedActivationFunction", 1, "int8", 0)))
    ),
    "CONV_2D": Operation(3, 3, _CONV),
    "DEPTHWISE_CONV_2D": Operation(4, 3, _DEPTHWISE),
    "DEQUANTIZE": Operation(6, 2),
    "FULLY_CONNECTED": Operation(9, 4, _LINEAR),
    "LOGISTIC": Operation(14, 2),
    "MAX_POOL_2D": Operation(17, 2, _POOL),
    "MUL": Operation(18, 2, Options("MulOptions", 21, _ACTIVATION)),
    "RELU": Operation(19, 2),
    "RELU6": Operation(21, 2),
    "RESHAPE": Operation(22, 1, Options("ReshapeOptions", 17)),
    "SOFTMAX": Operation(25, 2, Options("SoftmaxOptions", 9, (("beta", 0, "float32", 0),))),
    "TANH": Operation(28, 2),
    "MAXIMUM": Operation(55, 2, Options("MaximumMinimumOptions", 39)),
    "MINIMUM": Operation(57, 2, Options("MaximumMinimumOptions", 39)),
    "PAD": Operation(34, 2, Options("PadOptions", 22)),
    "TRANSPOSE": Operation(39, 2, Options("TransposeOptions", 26)),
    "MEAN": Operation(40, 2, Options("ReducerOptions", 27, (("keepDims", 0, "bool", 0),))),
    "SUB": Operation(41, 2, Options("SubOptions", 28, _ACTIVATION)),
    "SQUEEZE": Operation(43, 1, Options("SqueezeOptions", 30)),
    "STRIDED_SLICE": Operation(45, 2, _STRIDED),
    "QUANTIZE": Operation(114, 2),
    "HARD_SWISH": Operation(117, 1),
}
"""The operators that can be read or written, by their name in the schema."""


@dataclass(frozen=True, eq=False)
class LiteTensor:
    """One tensor of the file.

    Parameters
    ----------
    name : str
    shape : tuple of int
        With the batch, (N, H, W, C) for pictures.
    dtype : str
        ``"int8"``, ``"uint8"``, ``"int16"``, ``"int32"``, ``"int64"``, ``"float32"`` or ``"bool"``.
    scale : float32 array, shape (1,) or (C,), or None
    zero_point : int64 array, shape of scale, or None
    axis : int
        The channel axis, where scale has more than one element.
    data : array of shape and dtype, or None
        Constants only.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: NDArray[np.float32] | None = None
    zero_point: NDArray[np.int64] | None = None
    axis: int = 0
    data: NDArray[Any] | None = None


@dataclass(frozen=True, eq=False)
class LiteOperator:
    """One operator of the file.

    Parameters
    ----------
    op : str
        Its name in the schema.
    inputs, outputs : tuple of int
        Indices of tensors, -1 where one is left out.
    options : mapping
        By the names of the schema; those that are left out get their default.
    """

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        operation = OPERATIONS.get(self.op)
        fields = () if operation is None or operation.options is None else operation.options.fields
        object.__setattr__(self, "options", {name: default for name, _, _, default in fields} | dict(self.options))


@dataclass(frozen=True, eq=False)
class LiteGraph:
    """One network of the file."""

    tensors: tuple[LiteTensor, ...]
    operators: tuple[LiteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    name: str = "main"
