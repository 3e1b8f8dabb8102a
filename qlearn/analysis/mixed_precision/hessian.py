"""Sensitivity from curvature: how steeply the loss rises around the weights of each layer (HAWQ-V2; paper §7.3).

Near a minimum a small change d of the weights raises the loss by d' H d / 2, H being the Hessian, the matrix of second
derivatives. On average over directions, d' H d is Tr H / n times the squared length of d,
for n weights. That number is the sensitivity.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from qlearn.analysis.mixed_precision.choices import Choice
from qlearn.analysis.mixed_precision.measure import WEIGHT_BITS, alone, check_names, weighted_layers
from qlearn.errors import DataError, GraphError, RecipeError
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.ops import FLOAT_OPS
from qlearn.numbers.affine import dequantize
from qlearn.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from qlearn.graph.model import FloatModel
    from qlearn.pipeline.recipe import Recipe


@dataclass(frozen=True, eq=False)
class TraceEstimate:
    """The trace of the Hessian of the loss with respect to the weights of one layer, estimated from random vectors.

    Parameters
    ----------
    samples : ndarray, shape (vectors,), float64
        v' H v for each random vector v: each is an unbiased estimate.
    weights : int
        How many weights the layer has: n.
    """

    samples: NDArray[np.float64]
    weights: int

    @property
    def trace(self) -> float:
        """The mean of the samples."""
        return float(self.samples.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean, from the scatter of the samples; infinite for a single one."""
        count = len(self.samples)
        return float(self.samples.std(ddof=1) / np.sqrt(count)) if count > 1 else float("inf")

    @property
    def average(self) -> float:
        """Tr(H) / n."""
        return self.trace / self.weights

    def __str__(self) -> str:
        return f"trace {self.trace:.4g} ± {self.standard_error:.2g}, {self.average:.3g} per weight"


def hessian_traces(
    model: FloatModel,
    pictures: Iterable[Any],
    *,
    layers: Sequence[str] | None = None,
    vectors: int = 32,
    seed: int = 0,
) -> dict[str, TraceEstimate]:
    """Estimate, layer by layer, the trace of the Hessian of the cross-entropy loss (Hutchinson's method).

    For a random vector v of +1 and -1 (Rademacher), the mean of v' H v is Tr H. H v comes from differentiating twice,
    H itself is never formed. All layers get their part of one vector at once: what couples two layers has mean zero
    and only adds to the scatter, which the standard error reports.

    Parameters
    ----------
    model : FloatModel
        Batch norms folded. It runs in float and is not changed.
    pictures : iterable of (images, labels)
        A few hundred labelled training pictures. The loss is its mean over all of them.
    layers : sequence of str, optional
        Only these convolutions and linear layers.
    vectors : int
        Random vectors. Each costs about as much as four float passes over the pictures.
    seed : int

    Returns
    -------
    dict of str to TraceEstimate

    Raises
    ------
    DataError
        If there are no pictures, no labels, or the labels do not fit the logits.
    RecipeError
        If a layer is unknown or has no weights, or ``vectors`` is below 1.
    GraphError
        If the loss or a derivative is not finite.

    References
    ----------
    Z. Dong et al., "HAWQ-V2: Hessian aware trace-weighted quantization of neural networks", NeurIPS 2020.
    M. Hutchinson, "A stochastic estimator of the trace of the influence matrix", Communications in Statistics 18, 1989.

    Examples
    --------
    >>> from qlearn.graph.trace import trace
    >>> network = trace(torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False)), torch.zeros(1, 2))
    >>> found = hessian_traces(network, [(torch.ones(4, 2), torch.tensor([0, 1, 0, 1]))], vectors=64)
    >>> found["0"].samples.shape
    (64,)
    """
    fused = fuse_activations(model)
    check_names(fused, layers)
    names = weighted_layers(fused, layers)
    if vectors < 1 or not names or len(names) < len(set(layers or ())):
        raise RecipeError(
            f"hessian_traces needs at least one vector and layers with weights; got vectors={vectors}, "
            f"layers {', '.join(layers or names) or 'none'}; with weights are {', '.join(weighted_layers(fused, None))}"
        )
    weights = {name: fused.node(name).params["weight"] for name in names}
    draws = [rademacher(weights, seed=[seed, number]) for number in range(vectors)]
    total, images = np.zeros((vectors, len(names))), 0
    for batch in progress(pictures, "hessian", unit="batch"):
        inputs, labels = _with_labels(batch)
        total += len(inputs) * _curvatures(fused, weights, draws, inputs, labels)
        images += len(inputs)
    if images == 0:
        raise DataError("no pictures to measure on (an iterator that was already used up?)")
    if not np.isfinite(total).all():
        raise GraphError(f"{model.name}: a second derivative of the loss is not finite: are its weights and inputs?")
    return {name: TraceEstimate(total[:, place] / images, weights[name].numel()) for place, name in enumerate(names)}


def hessian_costs(
    model: FloatModel,
    recipe: Recipe,
    traces: Mapping[str, TraceEstimate],
    *,
    weight_bits: Sequence[int] = WEIGHT_BITS,
) -> dict[Choice, float]:
    """Return HAWQ-V2's sensitivity for every layer and width: Tr(H) / n times the sum of squares of Q(W) - W.

    The sum, not the mean: dividing by n twice would make large layers look harmless.
    A trace that came out negative (far from a minimum, or from few vectors) counts as zero.

    Parameters
    ----------
    model : FloatModel
        The network of `hessian_traces`.
    recipe : Recipe
        How weights are quantized; only the bits are changed.
    traces : mapping of layer to TraceEstimate
    weight_bits : sequence of int, 2 to 16

    References
    ----------
    HAWQ-V2, eq. 10.
    """
    fused = fuse_activations(model)
    check_names(fused, tuple(traces))
    choices = [Choice(name, "weights", bits) for name in traces for bits in sorted(set(weight_bits))]
    costs = {}
    for choice, network in alone(fused, recipe, choices).items():
        layer = next(one for one in network.layers if one.node.name == choice.layer)
        assert layer.weight is not None
        assert layer.weight_qparams is not None
        change = dequantize(layer.weight, layer.weight_qparams).double() - layer.node.params["weight"].double()
        costs[choice] = max(traces[choice.layer].average, 0.0) * float(change.square().sum())
    return costs


def rademacher(like: Mapping[str, Tensor], seed: Sequence[int]) -> dict[str, Tensor]:
    """Return random +1 and -1 in the shapes of some tensors, from NumPy's generator.

    Examples
    --------
    >>> rademacher({"a": torch.zeros(3)}, seed=[0, 0])["a"].abs().tolist()
    [1.0, 1.0, 1.0]
    """
    generator = np.random.default_rng(list(seed))
    signs = {name: generator.integers(0, 2, tuple(value.shape)) for name, value in like.items()}
    return {name: torch.from_numpy(2.0 * bits - 1.0).float() for name, bits in signs.items()}


def _curvatures(
    model: FloatModel, weights: Mapping[str, Tensor], draws: Sequence[Mapping[str, Tensor]], x: Tensor, labels: Tensor
) -> NDArray[np.float64]:
    """Return v' H v of every layer for every draw, shape (draws, layers), for the mean loss of one batch."""
    variables = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    found = np.zeros((len(draws), len(weights)))
    with torch.enable_grad():
        loss = F.cross_entropy(_run(model, variables, x), labels)
        slopes = torch.autograd.grad(loss, list(variables.values()), create_graph=True)
        for place, draw in enumerate(progress(draws, "vectors", unit="vector", total=len(draws))):
            parts = [(slope * draw[name]).sum() for name, slope in zip(variables, slopes, strict=True)]
            products = torch.autograd.grad(torch.stack(parts).sum(), list(variables.values()), retain_graph=True)
            found[place] = [
                float((product.double() * draw[name]).sum()) for name, product in zip(variables, products, strict=True)
            ]
    return found


def _run(model: FloatModel, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The float network once more, so that it can be differentiated: `FloatModel` runs without gradients."""
    model.check_input(x)
    values: dict[str, Tensor] = {}
    for node in model.nodes:
        if node.op == "input":
            values[node.name] = x.float()
            continue
        own = {**node.params, "weight": weights[node.name]} if node.name in weights else node.params
        values[node.name] = FLOAT_OPS[node.op](replace(node, params=own), [values[name] for name in node.inputs])
    return values[model.output]


def _with_labels(batch: Any) -> tuple[Tensor, Tensor]:
    if not (isinstance(batch, tuple | list) and len(batch) > 1 and batch[1] is not None):
        raise DataError("the Hessian is that of a loss, which needs labels: batches of (images, labels)")
    inputs, labels = batch[0], torch.as_tensor(np.asarray(batch[1]), dtype=torch.int64)
    if labels.shape != (len(inputs),):
        raise DataError(f"{len(inputs)} pictures, but labels of shape {tuple(labels.shape)}")
    return inputs, labels
