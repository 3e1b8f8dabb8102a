"""The loss around a network: along random directions as large as its filters, and to its quantized self (Fig. 9)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from qlearn.analysis.directions import Weights, difference, directions, moved, projection
from qlearn.analysis.metrics import finite
from qlearn.errors import DataError, GraphError
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.ops import WEIGHTED_OPS
from qlearn.numbers.affine import fake_quantize
from qlearn.pipeline.calibrate import input_of
from qlearn.pipeline.weights import weight_qparams
from qlearn.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from qlearn.graph.model import FloatModel
    from qlearn.pipeline.recipe import TensorRecipe
    from qlearn.pipeline.simulate import QuantizedModel

First = Literal["random", "quantization"]


@dataclass(frozen=True, eq=False)
class Landscape:
    """The loss on a line or a plane through the float weights.

    Parameters
    ----------
    model : str
    images : int
    steps : ndarray, float64, shape (K,)
        How far along each direction; 0 is the float network.
        In a random direction, 1 replaces every filter by noise of its own size.
        In the direction of quantization, 1 is the network with quantized weights.
    loss : ndarray, float64, shape (K,) or (K, K)
        Mean cross-entropy in nats; ``loss[i, j]`` is at ``steps[i]`` of the first and ``steps[j]`` of the second
        direction.
    first : str
        ``"random"`` or ``"quantization"``.
    float_loss : float
    quantized_loss : float or None
        Of the quantized network, activations and all; None without one.
    quantized_at : tuple of float or None
        Where its weights lie in the plane: their projection on the directions.
    quantized_in_plane : float or None
        Share of the squared distance from float to quantized weights that lies in the plane.
        Random directions see almost nothing of it.
    """

    model: str
    images: int
    steps: NDArray[np.float64]
    loss: NDArray[np.float64]
    first: str
    float_loss: float
    quantized_loss: float | None = None
    quantized_at: tuple[float, ...] | None = None
    quantized_in_plane: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON; an infinite loss becomes None."""
        flat = [finite(float(value)) for value in self.loss.ravel()]
        side = len(self.steps)
        rows: Any = flat if self.loss.ndim == 1 else [flat[i * side : (i + 1) * side] for i in range(side)]
        return {
            "model": self.model,
            "images": self.images,
            "first": self.first,
            "steps": self.steps.tolist(),
            "loss": rows,
            "float_loss": finite(self.float_loss),
            "quantized_loss": finite(self.quantized_loss),
            "quantized_at": None if self.quantized_at is None else list(self.quantized_at),
            "quantized_in_plane": finite(self.quantized_in_plane),
        }

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.loss.shape))
        return f"Landscape of {self.model}: {shape} points, loss {self.loss.min():.3f} to {self.loss.max():.3f}"


def loss_landscape(
    model: FloatModel,
    batches: Iterable[Any],
    *,
    quantized: QuantizedModel | None = None,
    first: First = "random",
    dimensions: int = 2,
    points: int = 21,
    span: float = 1.0,
    weights: TensorRecipe | None = None,
    seed: int = 0,
) -> Landscape:
    """Measure the loss on a line or a plane through the weights of a network.

    A random direction is drawn from a normal distribution and every filter of it is given the norm of the filter
    that it moves (Li et al.): otherwise a network whose weights are merely larger would look flatter.
    Biases do not move.

    Parameters
    ----------
    model : FloatModel
        Fold batch norms first: a batch norm would undo what is done to the filter before it.
    batches : iterable of (images, labels)
        Kept in memory: a few hundred pictures are enough.
    quantized : QuantizedModel, optional
        Of the same network; its loss and its place are measured too.
    first : str
        ``"random"``, or ``"quantization"``: the first direction leads from the float to the quantized weights.
    dimensions : int, 1 or 2
    points : int
        Along each direction, at least 2; an odd number has the float network in the middle.
    span : float
        The directions are followed from -span to +span. Greater than 0.
    weights : TensorRecipe, optional
        Quantize the weights at every point of the map: the loss that a quantized network at that place has.
    seed : int

    Returns
    -------
    Landscape

    Raises
    ------
    DataError
        If there are no pictures or no labels, or a parameter is out of its range.
    GraphError
        If the network has batch norms or no weights, or the quantized network is another one.

    References
    ----------
    Paper §7, Fig. 9. Li, Xu, Taylor, Studer, Goldstein: Visualizing the Loss Landscape of Neural Nets, 2018.

    Examples
    --------
    >>> import qlearn as ql
    >>> net, data = ql.load("tiny_resnet")
    >>> net = ql.fold_batch_norm(net)
    >>> line = loss_landscape(net, data.evaluation.subset(20), dimensions=1, points=3)
    >>> bool(line.loss[1] == line.float_loss), bool(line.loss.min() == line.loss[1])
    (True, True)
    """
    _check(dimensions, points, span, first, quantized)
    fused = _checked_network(model)
    pictures = _in_memory(batches)
    centre = {node.name: node.params["weight"] for node in fused.nodes if node.op in WEIGHTED_OPS}
    towards = None if quantized is None else difference(fused.name, centre, quantized)
    along = directions(centre, towards if first == "quantization" else None, dimensions, seed)
    quantizer = None if weights is None else _quantizer(weights)
    steps = np.linspace(-span, span, points)
    shape = (points,) * dimensions
    loss = np.empty(shape)
    for place in progress(list(np.ndindex(shape)), "landscape", unit="point"):
        weights_there = moved(centre, along, [float(steps[index]) for index in place])
        loss[place] = mean_loss(_with_weights(fused, weights_there, quantizer), pictures)
    at, in_plane = (None, None) if towards is None else projection(towards, along)
    return Landscape(
        fused.name,
        sum(len(labels) for _, labels in pictures),
        steps,
        loss,
        first,
        mean_loss(fused, pictures),
        None if quantized is None else mean_loss(quantized, pictures),
        at,
        in_plane,
    )


def mean_loss(network: Callable[[Tensor], Tensor], pictures: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return the mean cross-entropy of the logits in nats, summed in float64; inf where they overflow."""
    total, count = 0.0, 0
    for x, labels in pictures:
        logits = network(x).double()
        if logits.ndim != 2 or int(labels.max()) >= logits.shape[1] or int(labels.min()) < 0:
            raise DataError(
                f"logits of shape (N, classes) and labels below the number of classes are expected: got logits of "
                f"shape {tuple(logits.shape)} and labels {int(labels.min())} to {int(labels.max())}"
            )
        total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        count += len(labels)
    return math.inf if math.isnan(total) else total / count


def _check(dimensions: int, points: int, span: float, first: str, quantized: QuantizedModel | None) -> None:
    if dimensions not in (1, 2):
        raise DataError(f"dimensions is 1 (a line) or 2 (a plane): got {dimensions!r}")
    if points < 2:
        raise DataError(f"points must be at least 2: got {points}")
    if not (math.isfinite(span) and span > 0):
        raise DataError(f"span must be finite and greater than 0: got {span}")
    if first not in ("random", "quantization"):
        raise DataError(f"first is 'random' or 'quantization': got {first!r}")
    if first == "quantization" and quantized is None:
        raise DataError("first='quantization' needs quantized=: the network at the end of that direction")


def _checked_network(model: FloatModel) -> FloatModel:
    fused = fuse_activations(model)
    ops = {node.op for node in fused.nodes}
    if "batch_norm" in ops:
        raise GraphError(f"{model.name}: fold its batch norms first (fold_batch_norm): they undo a change of filters")
    if not ops.intersection(WEIGHTED_OPS):
        raise GraphError(f"{model.name} has no weights to move")
    return fused


def _in_memory(batches: Iterable[Any]) -> list[tuple[Tensor, Tensor]]:
    pictures = []
    for batch in batches:
        if not (isinstance(batch, tuple | list) and len(batch) > 1 and batch[1] is not None):
            raise DataError("a loss needs labels: batches of (images, labels)")
        x, labels = input_of(batch), torch.as_tensor(batch[1]).long()
        if labels.shape != (len(x),):
            raise DataError(f"{len(x)} pictures, but labels of shape {tuple(labels.shape)}")
        pictures.append((x, labels))
    if not pictures:
        raise DataError("no pictures to measure the loss on (an iterator that was already used up?)")
    return pictures


def _quantizer(recipe: TensorRecipe) -> Callable[[Tensor], Tensor]:
    def quantized(weight: Tensor) -> Tensor:
        return fake_quantize(weight, weight_qparams(weight.numpy(), recipe, None, None))

    return quantized


def _with_weights(model: FloatModel, weights: Weights, quantizer: Callable[[Tensor], Tensor] | None) -> FloatModel:
    """Return a network with other weights; the given one is not changed."""
    nodes = []
    for node in model.nodes:
        if node.name in weights:
            weight = weights[node.name] if quantizer is None else quantizer(weights[node.name])
            nodes.append(replace(node, params={**node.params, "weight": weight}))
        else:
            nodes.append(node)
    return replace(model, nodes=tuple(nodes))
