"""An ONNX network under construction, as plain values: nodes and constants are added one by one.

Codes are uint8 in the file; signed codes of the model are 128 lower. Every operation reads real numbers,
from DequantizeLinear, and gives real numbers, to QuantizeLinear. The runtime fuses the three into integer kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import ExportError
from qlearn.integer.elementwise import unsigned_offset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from qlearn.integer.layers import IntegerLayer
    from qlearn.numbers.qparams import QParams


@dataclass(frozen=True)
class OnnxNode:
    """One node: its operator, the names that it reads, the name that it writes, its attributes."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OnnxEnd:
    """An input or an output of a network: name, ``"float32"`` or ``"uint8"``, shape without the batch."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """A network as the file holds it."""

    nodes: tuple[OnnxNode, ...]
    constants: Mapping[str, NDArray[Any]]
    inputs: tuple[OnnxEnd, ...]
    outputs: tuple[OnnxEnd, ...]


@dataclass(frozen=True)
class Site:
    """One value of the network: the name of its uint8 codes, its shape, its scale and zero point."""

    codes: str
    shape: tuple[int, ...]
    qparams: QParams


class OnnxBuilder:
    """Collects the nodes and constants of one network.

    The codes of layer ``conv1`` are called ``conv1:codes``, its weights ``conv1:weight``, and so on.
    """

    def __init__(self) -> None:
        self.nodes: list[OnnxNode] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self._taken: set[str] = set()
        self._parameters: dict[tuple[float, int], list[str]] = {}
        self._read: dict[tuple[str, float, int], str] = {}
        self._codes_of: dict[str, tuple[str, float, int]] = {}

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Add a constant and return its name."""
        name = self.unique(name)
        self.constants[name] = array
        return name

    def node(self, op: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node and return the name of what it computes."""
        output = self.unique(name)
        self.nodes.append(OnnxNode(op, tuple(inputs), output, attributes))
        return output

    def real(self, site: Site) -> str:
        """Return the real numbers at a site: one DequantizeLinear, shared by all who read it."""
        return self.dequantized(site.codes, site.qparams)

    def dequantized(self, codes: str, qparams: QParams, scale: Any = None) -> str:
        """Return the real numbers that codes stand for, on a scale of their own if one is given."""
        step = float(qparams.scale if scale is None else scale)
        key = (codes, step, stored_zero(qparams))
        if key not in self._read:
            name = f"{codes.removesuffix(':codes')}:dequantized"
            self._read[key] = self.node("DequantizeLinear", [codes, *self.parameters(codes, *key[1:])], name)
            self._codes_of[self._read[key]] = key
        return self._read[key]

    def quantized(self, real: str, qparams: QParams, name: str) -> str:
        """Return the codes of real numbers; those that were just dequantized with the same scale are there already.

        A change of scale gets a Max between its two ends, which changes nothing:
        ONNX Runtime merges bare pairs of QuantizeLinear and DequantizeLinear, and with that computes other codes.
        """
        step, zero = float(qparams.scale), stored_zero(qparams)
        source = self._codes_of.get(real)
        if source is not None and source[1:] == (step, zero):
            return source[0]
        if source is not None:
            smallest = np.asarray(np.float32(-source[2]) * np.float32(source[1]))
            real = self.node("Max", [real, self.constant(f"{name}:smallest", smallest)], f"{name}:kept")
        return self.node("QuantizeLinear", [real, *self.parameters(name, step, zero)], f"{name}:codes")

    def requantized(self, real: str, qparams: QParams, name: str) -> str:
        """Return real numbers after a way through codes: what stands between two operations of one layer."""
        return self.dequantized(self.quantized(real, qparams, name), qparams)

    def parameters(self, name: str, scale: float, zero: int) -> list[str]:
        """Return the names of a scale and a zero point of activations."""
        if (scale, zero) not in self._parameters:
            label = name.removesuffix(":codes")
            self._parameters[scale, zero] = [
                self.constant(f"{label}:scale", np.asarray(scale, np.float32)),
                self.constant(f"{label}:zero_point", np.asarray(zero, np.uint8)),
            ]
        return self._parameters[scale, zero]

    def integers(self, name: str, values: Sequence[int]) -> str:
        """Add a list of whole numbers: a shape, axes, amounts."""
        return self.constant(name, np.array(values, np.int64))

    def graph(self, inputs: Sequence[OnnxEnd], outputs: Sequence[OnnxEnd]) -> OnnxGraph:
        """Return what was collected, without what nobody reads."""
        wanted, kept = {end.name for end in outputs}, []
        for node in reversed(self.nodes):
            if node.output in wanted:
                kept.append(node)
                wanted.update(node.inputs)
        constants = {name: array for name, array in self.constants.items() if name in wanted}
        return OnnxGraph(tuple(reversed(kept)), constants, tuple(inputs), tuple(outputs))

    def unique(self, name: str) -> str:
        """Return the name, with a number behind it if it is taken, and take it."""
        candidate, count = name, 1
        while candidate in self._taken:
            count += 1
            candidate = f"{name}_{count}"
        self._taken.add(candidate)
        return candidate


def stored_zero(qparams: QParams) -> int:
    """Return the zero point as the file has it, from 0 to 255.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> stored_zero(QParams(0.1, -28, -128, 127)), stored_zero(QParams(0.1, 100, 0, 255))
    (100, 100)
    """
    return int(qparams.zero_point) + unsigned_offset(qparams)


def check_stored(layer: IntegerLayer) -> None:
    """Raise ExportError unless the codes of a layer fit into uint8."""
    q = layer.output
    offset = unsigned_offset(q)
    if q.axis is not None or q.qmin + offset < 0 or q.qmax + offset > 255 or not 0 <= stored_zero(q) <= 255:
        raise ExportError(
            f"layer {layer.name!r} has codes from {q.qmin} to {q.qmax}: ONNX Runtime's integer kernels have 8 bits. "
            "Quantize activations with bits=8"
        )


def refuse(layer: IntegerLayer, reason: str) -> ExportError:
    """Return the error that names the layer."""
    return ExportError(f"layer {layer.name!r} ({layer.op}) cannot be written as ONNX: {reason}")
