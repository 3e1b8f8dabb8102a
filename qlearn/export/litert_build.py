"""A `LiteGraph` under construction: tensors and operators are added one by one, layouts are changed on the way.

Our arrays are (N, C, H, W), those of the file (N, H, W, C): whatever has four axes is transposed, all else stays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import ExportError
from qlearn.export.litert_graph import LiteGraph, LiteOperator, LiteTensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qlearn.integer.layers import IntegerLayer
    from qlearn.numbers.qparams import QParams

TO_FILE, FROM_FILE = (0, 2, 3, 1), (0, 3, 1, 2)
"""Axes of (N, C, H, W) in the order of the file, and back."""


@dataclass(frozen=True)
class Site:
    """One value of the network: index of its tensor, shape in our layout, and its scale and zero point."""

    index: int
    shape: tuple[int, ...]
    qparams: QParams


@dataclass
class LiteBuilder:
    """Collects the tensors and operators of one network."""

    tensors: list[LiteTensor] = field(default_factory=list)
    operators: list[LiteOperator] = field(default_factory=list)

    def site(self, name: str, shape: tuple[int, ...], qparams: QParams, where: str) -> Site:
        """Add a tensor that is computed (or fed): `shape` is in our layout."""
        return Site(self.codes(name, file_shape(shape), qparams, where), shape, qparams)

    def codes(
        self, name: str, shape: tuple[int, ...], qparams: QParams, where: str, data: NDArray[Any] | None = None
    ) -> int:
        """Add a tensor of codes, `shape` and `data` in the layout of the file."""
        dtype, zero = stored_as(qparams, where)
        scale = np.atleast_1d(qparams.scale)
        zero_point = np.atleast_1d(qparams.zero_point).astype(np.int64) + zero
        self.tensors.append(LiteTensor(name, shape, dtype, scale, zero_point, qparams.axis or 0, data))
        return len(self.tensors) - 1

    def constant(self, name: str, data: NDArray[Any]) -> int:
        """Add constant integers without a scale: a shape, axes, amounts."""
        self.tensors.append(LiteTensor(name, data.shape, data.dtype.name, data=data))
        return len(self.tensors) - 1

    def add(self, op: str, inputs: list[int], output: int, **options: Any) -> int:
        """Add an operator and return the index of its output."""
        self.operators.append(LiteOperator(op, tuple(inputs), (output,), options))
        return output

    def graph(self, inputs: list[Site], outputs: list[Site], name: str = "main") -> LiteGraph:
        """Return what was collected."""
        return LiteGraph(
            tuple(self.tensors),
            tuple(self.operators),
            tuple(site.index for site in inputs),
            tuple(site.index for site in outputs),
            name,
        )


def file_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape of ours in the layout of the file.

    Examples
    --------
    >>> file_shape((1, 3, 32, 48))
    (1, 32, 48, 3)
    """
    return tuple(shape[axis] for axis in TO_FILE) if len(shape) == 4 else shape


def file_axis(axis: int, ndim: int) -> int:
    """Return the number in the file of an axis of ours.

    Examples
    --------
    >>> file_axis(1, ndim=4)                    # channels are last in the file
    3
    """
    axis %= ndim
    return FROM_FILE[axis] if ndim == 4 else axis


def stored_as(qparams: QParams, where: str) -> tuple[str, int]:
    """Return the dtype in the file, and what is added to codes: uint8 codes become int8, 128 lower.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> stored_as(QParams(0.1, 128, 0, 255), "relu")
    ('int8', -128)
    """
    ranges = {
        (-128, 127): ("int8", 0),
        (-127, 127): ("int8", 0),
        (0, 255): ("int8", -128),
        (-32768, 32767): ("int16", 0),
    }
    found = ranges.get((qparams.qmin, qparams.qmax))
    if found is None:
        raise ExportError(
            f"layer {where!r} has codes from {qparams.qmin} to {qparams.qmax}: LiteRT has 8 bits (or 16, signed). "
            "Quantize with bits=8"
        )
    return found


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Return the rows before and after that TensorFlow's "SAME" adds: the odd one comes after.

    Examples
    --------
    >>> same_padding(224, kernel=3, stride=2)
    (0, 1)
    """
    total = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def refuse(layer: IntegerLayer, reason: str) -> ExportError:
    """Return the error that names the layer."""
    return ExportError(f"layer {layer.name!r} ({layer.op}) cannot be written as .tflite: {reason}")
