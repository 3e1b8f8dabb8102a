"""Two networks side by side: float and quantized, layer by layer, on the same pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qlearn.errors import DataError, GraphError
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.ops import FLOAT_OPS
from qlearn.pipeline.calibrate import input_of
from qlearn.pipeline.simulate import QuantizedModel, run_layer, to_codes, to_real
from qlearn.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from qlearn.graph.model import FloatModel, Node
    from qlearn.pipeline.simulate import QuantizedLayer

EXACT_MOVES = frozenset({"max_pool2d", "flatten", "slice", "pad", "reshape", "transpose", "clamp"})
"""Operations that only choose or move codes: they round nothing, but for the limits of a clamp."""


@dataclass(frozen=True, eq=False)
class Step:
    """One layer of both networks, on one batch.

    Parameters
    ----------
    node : Node
        The layer of the float network.
    layer : QuantizedLayer
        The same layer, quantized.
    float_inputs : list of Tensor
        What the float layer read. Empty for the input of the network.
    float_output : Tensor
    sources : list of (QuantizedLayer, Tensor)
        What the quantized layer read: who made it, and its value (codes, or real numbers where it stays in float).
    value : Tensor
        What the quantized layer made of it: codes as floats, or real numbers.
    """

    node: Node
    layer: QuantizedLayer
    float_inputs: list[Tensor]
    float_output: Tensor
    sources: list[tuple[QuantizedLayer, Tensor]]
    value: Tensor

    @property
    def quantized_output(self) -> Tensor:
        """The real value of the quantized layer's output, float32."""
        return to_real(self.layer, self.value)

    @property
    def quantized_inputs(self) -> list[Tensor]:
        """The real values that the quantized layer read, float32."""
        return [to_real(source, value) for source, value in self.sources]

    def float_on_quantized(self) -> Tensor:
        """Return what the float layer makes of the quantized layer's inputs, float32."""
        return run_float(self.node, self.quantized_inputs) if self.sources else self.float_output


def run_float(node: Node, inputs: list[Tensor]) -> Tensor:
    """Compute one float layer."""
    with torch.no_grad():
        return FLOAT_OPS[node.op](node, inputs)


def reference_of(quantized: QuantizedModel, reference: FloatModel | None) -> FloatModel:
    """Return the float network to compare with, activations fused: by default the one that was quantized.

    Raises
    ------
    GraphError
        If `quantized` is no QuantizedModel, or the two do not have the same layers.
    """
    if not isinstance(quantized, QuantizedModel):
        raise GraphError(
            f"a network from quantize_model() is analysed, got {type(quantized).__name__}: "
            "an integer model no longer has the float weights to compare with"
        )
    if reference is None:
        return quantized.model
    fused = fuse_activations(reference)
    theirs, ours = ([(node.name, node.inputs) for node in model.nodes] for model in (fused, quantized.model))
    if theirs != ours:
        first = next((a for a, b in zip(theirs, ours, strict=False) if a != b), (theirs + ours)[-1])
        raise GraphError(
            f"{quantized.name}: the reference has other layers than the quantized network (first at {first[0]!r}): "
            "compare with the float network that was quantized, or one with the same layers (batch norms folded)"
        )
    return fused


def walk_all(
    quantized: QuantizedModel, reference: FloatModel, batches: Iterable[Any], what: str
) -> Iterator[tuple[Tensor, Iterator[Step]]]:
    """Yield for every batch its pictures and the `walk` over them; `what` is for the progress bar.

    Raises
    ------
    DataError
        At the end, if there were no pictures.
    """
    images = 0
    for batch in progress(batches, what, unit="batch"):
        x = input_of(batch)
        images += len(x)
        yield x, walk(quantized, reference, x)
    if images == 0:
        raise DataError(f"{quantized.name}: no pictures to analyse with (an iterator that was already used up?)")


def walk(quantized: QuantizedModel, reference: FloatModel, x: Tensor) -> Iterator[Step]:
    """Run both networks on one batch and yield layer after layer.

    A value that nobody reads again is let go, so memory is that of the widest place, not of all layers.

    Parameters
    ----------
    quantized : QuantizedModel
    reference : FloatModel
        From `reference_of`.
    x : Tensor, shape (N, *input_shape), float32

    Raises
    ------
    GraphError
        If x does not fit, or holds NaN or Inf.
    """
    reference.check_input(x)
    if not torch.isfinite(x).all():
        raise GraphError(f"{quantized.name}: the input holds NaN or Inf")
    layers = {layer.node.name: layer for layer in quantized.layers}
    readers = reference.reader_counts()
    real: dict[str, Tensor] = {}
    coded: dict[str, Tensor] = {}
    for node, layer in zip(reference.nodes, quantized.layers, strict=True):
        inputs = [real[name] for name in node.inputs]
        sources = [(layers[name], coded[name]) for name in node.inputs]
        real[node.name] = run_float(node, inputs) if inputs else x.float()
        coded[node.name] = run_layer(layer, sources) if sources else to_codes(x.float(), layer.output)
        yield Step(node, layer, inputs, real[node.name], sources, coded[node.name])
        for name in node.inputs:
            readers[name] -= 1
            if readers[name] == 0:
                del real[name], coded[name]
