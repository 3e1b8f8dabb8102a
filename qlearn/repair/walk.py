"""The float and the quantized network side by side, all pictures at once, one layer after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qlearn.errors import CalibrationError
from qlearn.graph.ops import FLOAT_OPS
from qlearn.pipeline.simulate import run_layer, to_codes, to_real

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from qlearn.graph.model import FloatModel
    from qlearn.pipeline.simulate import QuantizedLayer


class Walk:
    """Where a layer may be changed before the next one reads it.

    Values that nobody reads again are let go; codes are kept in as few bytes as hold them.

    Parameters
    ----------
    model : FloatModel
        The network, activations fused.
    pictures : list of Tensor, shape (N, C, H, W), float32
        At least one batch.
    """

    def __init__(self, model: FloatModel, pictures: list[Tensor]) -> None:
        self.pictures = pictures
        self._readers = model.reader_counts()
        self._layers: dict[str, QuantizedLayer] = {}
        self._exact: dict[str, list[Tensor]] = {}
        self._rounded: dict[str, list[Tensor]] = {}

    @property
    def count(self) -> int:
        """Number of pictures."""
        return sum(len(batch) for batch in self.pictures)

    def unclamped(self, layer: QuantizedLayer) -> list[Tensor]:
        """Return what a layer of the float network makes before its clamp, batch by batch."""
        node = layer.node.with_attrs(clamp=None)
        inputs = zip(*(self._exact[name] for name in node.inputs), strict=True)
        values = [FLOAT_OPS[node.op](node, list(batch)) for batch in inputs]
        if not all(torch.isfinite(value).all() for value in values):
            raise CalibrationError(f"layer {node.name!r} makes NaN or Inf in the float network: check its weights")
        return values

    def read(self, layer: QuantizedLayer) -> Iterator[Tensor]:
        """Yield what a layer reads in the quantized network, as real numbers, batch by batch."""
        name = layer.node.inputs[0]
        for value in self._rounded[name]:
            yield to_real(self._layers[name], value.float())

    def source(self, layer: QuantizedLayer) -> QuantizedLayer:
        """Return the layer whose value a layer reads first."""
        return self._layers[layer.node.inputs[0]]

    def advance(self, layer: QuantizedLayer, unclamped: list[Tensor] | None = None) -> None:
        """Compute a layer in both networks, the quantized one as given.

        `unclamped`, if it is there, spares the float network the work.
        """
        node = layer.node
        self._layers[node.name] = layer
        if not node.inputs:
            self._exact[node.name] = self.pictures
            rounded = [to_codes(batch, layer.output) for batch in self.pictures]
        else:
            exact = zip(*(self._exact[name] for name in node.inputs), strict=True)
            if unclamped is None:
                self._exact[node.name] = [FLOAT_OPS[node.op](node, list(batch)) for batch in exact]
            elif node.attrs.get("clamp") is not None:
                self._exact[node.name] = [FLOAT_OPS["clamp"](node, [value]) for value in unclamped]
            else:
                self._exact[node.name] = unclamped
            sources = zip(*([(name, value) for value in self._rounded[name]] for name in node.inputs), strict=True)
            rounded = [run_layer(layer, [(self._layers[n], v.float()) for n, v in batch]) for batch in sources]
        self._rounded[node.name] = [_small(value, layer) for value in rounded]
        for name in node.inputs:
            self._readers[name] -= 1
            if self._readers[name] == 0:
                self._exact.pop(name, None)
                self._rounded.pop(name, None)


def _small(value: Tensor, layer: QuantizedLayer) -> Tensor:
    """Store codes as integers."""
    return value if layer.output is None else value.to(getattr(torch, layer.output.dtype.name))
