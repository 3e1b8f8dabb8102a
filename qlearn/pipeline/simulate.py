"""The quantized network, simulated with torch: exactly what the integer model will compute (paper §3.4, 8).

Codes are carried as integer-valued floats. A sum of products of small integers is exact in float32 while it stays
below 2**24, and in float64 below 2**53; each layer takes the narrowest that is safe for all inputs.
So the accumulators are those of the integer kernels, bit for bit, at the speed of float convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from qlearn.errors import GraphError
from qlearn.graph.ops import FLOAT_OPS, along_channels
from qlearn.integer.layers import SHARING_OPS, IntegerLayer
from qlearn.integer.model import IntegerModel
from qlearn.numbers.affine import dequantize, quantize
from qlearn.pipeline.exact import EXACT_OPS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from qlearn.graph.model import FloatModel, Node
    from qlearn.graph.preprocess import Preprocess
    from qlearn.integer.layers import Limit
    from qlearn.numbers.qparams import QParams

FLOAT_ATTRS = frozenset({"clamp", "bn", "weight_qparams"})
"""Attributes of a float node that no integer layer needs: it has codes instead."""


@dataclass(frozen=True, eq=False)
class QuantizedLayer:
    """One node and its integers.

    Parameters
    ----------
    node : Node
        The float layer.
    output : QParams or None
        None where its output stays in float.
    weight, weight_qparams, bias : integer array, QParams and int32 array, or None
        None where its weights stay in float.
    clamp : (int, int), two int arrays of shape (C,), or None
        Codes of a fused ReLU or ReLU6; one pair per channel where equalization has moved the 6 of a ReLU6.
    """

    node: Node
    output: QParams | None
    weight: NDArray[Any] | None = None
    weight_qparams: QParams | None = None
    bias: NDArray[np.int32] | None = None
    clamp: tuple[Limit, Limit] | None = None


@dataclass(frozen=True, eq=False)
class QuantizedModel:
    """A quantized network that runs in torch. ``quantize_model`` makes it.

    Under policy ``float32`` the integer model gives equal codes at every site.

    Parameters
    ----------
    model : FloatModel
        The float network, activations fused.
    layers : tuple of QuantizedLayer
        One per node.
    """

    model: FloatModel
    layers: tuple[QuantizedLayer, ...]

    def __call__(self, x: Tensor, watch: Callable[[Node, Tensor], None] | None = None) -> Tensor:
        """Run the network.

        Parameters
        ----------
        x : Tensor, shape (N, *input_shape), float32
        watch : callable, optional
            Called with every node and its real value (dequantized), as soon as it is computed.

        Returns
        -------
        Tensor
            The dequantized value of the output, float32.
        """
        return self._real(self._run(x, lambda layer, value: watch and watch(layer.node, to_real(layer, value))))

    def codes(self, x: Tensor) -> dict[str, Tensor]:
        """Return the codes at every quantized site, by name, as integer tensors."""
        seen: dict[str, Tensor] = {}

        def watch(layer: QuantizedLayer, value: Tensor) -> None:
            if layer.output is not None:
                seen[layer.node.name] = value.to(torch.int32)

        self._run(x, watch)
        return seen

    def to_integer(self, policy: str = "fixed") -> IntegerModel:
        """Return the integer model.

        Parameters
        ----------
        policy : str
            ``"fixed"`` (integer arithmetic only) or ``"float32"`` (equal codes to this simulation, at every site).

        Raises
        ------
        GraphError
            If the recipe left weights or activations in float.
        AccumulatorOverflowError
            If the sum of a layer could leave int32.
        """
        layers = tuple(_integer_layer(layer, self.model.name) for layer in self.layers)
        m = self.model
        return IntegerModel(layers, m.output, m.input_shape, policy, m.name, m.preprocess)

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.model.name

    @property
    def preprocess(self) -> Preprocess | None:
        """What turns uint8 pictures into the input."""
        return self.model.preprocess

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights and biases, as integers where they are quantized."""
        total = 0
        for layer in self.layers:
            stored = {"weight": layer.weight, "bias": layer.bias}
            for key, value in layer.node.params.items():
                integers = stored.get(key)
                total += 4 * value.numel() if integers is None else integers.nbytes
        return total

    def _run(self, x: Tensor, watch: Callable[[QuantizedLayer, Tensor], Any]) -> Tensor:
        self.model.check_input(x)
        if not torch.isfinite(x).all():
            raise GraphError(f"{self.name}: the input holds NaN or Inf")
        by_name = {layer.node.name: layer for layer in self.layers}
        readers = self.model.reader_counts()
        values: dict[str, Tensor] = {}
        with torch.no_grad():
            for layer in self.layers:
                inputs = [(by_name[name], values[name]) for name in layer.node.inputs]
                value = run_layer(layer, inputs) if inputs else to_codes(x.to(torch.float32), layer.output)
                values[layer.node.name] = value
                watch(layer, value)
                for name in layer.node.inputs:
                    readers[name] -= 1
                    if readers[name] == 0 and name != self.model.output:
                        values.pop(name, None)
        return values[self.model.output]

    def _real(self, value: Tensor) -> Tensor:
        return to_real(next(layer for layer in self.layers if layer.node.name == self.model.output), value)

    def __repr__(self) -> str:
        return f"QuantizedModel {self.name}: {len(self.layers)} layers, {self.weight_bytes} bytes of weights"


def run_layer(layer: QuantizedLayer, inputs: list[tuple[QuantizedLayer, Tensor]]) -> Tensor:
    """Return the value of a layer from those of its inputs: codes where its output is quantized, else real numbers.

    On integers where everything is quantized; on real numbers elsewhere.
    """
    node = layer.node
    sources = [(value, source.output) for source, value in inputs if source.output is not None]
    on_integers = len(sources) == len(inputs) and _has_integer_weights(layer)
    if layer.output is not None and node.op in EXACT_OPS and on_integers:
        codes = EXACT_OPS[node.op](layer, sources)
        if node.op in SHARING_OPS and layer.clamp is None:
            return codes
        return clamped(codes, layer.clamp or (layer.output.qmin, layer.output.qmax))
    params = dict(node.params)
    if layer.weight is not None and layer.weight_qparams is not None:
        params["weight"] = dequantize(layer.weight, layer.weight_qparams)
    real = FLOAT_OPS[node.op](replace(node, params=params), [to_real(source, value) for source, value in inputs])
    return to_codes(real, layer.output)


def clamped(codes: Tensor, limits: tuple[Limit, Limit]) -> Tensor:
    """Return codes within limits: one pair of codes for all, or one per channel."""
    if isinstance(limits[0], int) and isinstance(limits[1], int):
        return codes.clamp(limits[0], limits[1])
    low, high = (torch.as_tensor(limit, dtype=codes.dtype).reshape(-1) for limit in limits)
    return codes.clamp(along_channels(low, codes.ndim), along_channels(high, codes.ndim))


def _has_integer_weights(layer: QuantizedLayer) -> bool:
    """Whether every parameter of the layer, if it has any, is an integer."""
    return "weight" not in layer.node.params or layer.weight is not None


def to_codes(real: Tensor, qparams: QParams | None) -> Tensor:
    """Return codes as floats, or the real values where they stay in float."""
    if qparams is None:
        return real
    return quantize(real, qparams).to(torch.float32)


def to_real(layer: QuantizedLayer, value: Tensor) -> Tensor:
    """Return real values of a layer's output, whether it is codes or real already."""
    return value if layer.output is None else (value - int(layer.output.zero_point)).float() * float(layer.output.scale)


def _integer_layer(layer: QuantizedLayer, network: str) -> IntegerLayer:
    node = layer.node
    if layer.output is None:
        raise GraphError(
            f"{network}: the recipe leaves the output of {node.name!r} in float, so there is no integer model"
        )
    if "weight" in node.params and node.op in EXACT_OPS and layer.weight is None:
        raise GraphError(
            f"{network}: the recipe leaves the weights of {node.name!r} in float, so there is no integer model"
        )
    attrs = {key: value for key, value in node.attrs.items() if key not in FLOAT_ATTRS}
    op = node.op
    if op in ("float", "batch_norm"):
        op, attrs = (
            "float",
            {"function": _numpy_function(node), "reason": attrs.get("reason", "an unfolded batch norm")},
        )
    return IntegerLayer(
        node.name, op, node.inputs, layer.output, attrs, layer.weight, layer.weight_qparams, layer.bias, layer.clamp
    )


def _numpy_function(node: Node) -> Callable[..., NDArray[np.float32]]:
    """A float layer for the integer model: NumPy in, NumPy out."""

    def run(*arrays: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            result = FLOAT_OPS[node.op](node, [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays])
        return np.asarray(result.numpy(), np.float32)

    return run
