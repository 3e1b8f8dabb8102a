"""Learned rounding: each weight goes to the level, up or down, that keeps the layer's output (AdaRound)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qlearn.errors import GraphError, RecipeError
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.model import FloatModel
from qlearn.numbers.affine import dequantize
from qlearn.pipeline.quantize import quantize_model
from qlearn.progress import progress
from qlearn.repair.patches import sample
from qlearn.repair.pictures import checked_pictures
from qlearn.repair.rounding import RoundingProblem, few_enough, flip, learn, least, try_all
from qlearn.repair.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from qlearn.graph.model import Node
    from qlearn.numbers.qparams import ClipRange, QParams
    from qlearn.pipeline.recipe import Recipe
    from qlearn.pipeline.simulate import QuantizedLayer

_LARGEST = 2**25  # numbers in the matrix of a layer's inputs: 128 MiB
_SHRINKAGE = 0.5  # between 0.3 and 1 errors on other pictures were least; it matters where positions are few


def adaround(
    model: FloatModel,
    recipe: Recipe,
    table: Mapping[str, ClipRange],
    batches: Iterable[Any],
    *,
    iterations: int = 1000,
    samples: int = 32768,
    regularization: float = 0.3,
    learning_rate: float = 0.1,
    seed: int = 0,
) -> FloatModel:
    r"""Return the network with weights on the recipe's grid, rounded so that every layer's output changes least.

    Layer by layer, in the order in which they run, the rounding is learned that minimizes
    ‖f(W x) - f(W̃ x̃)‖²: x is what the layer reads in the float network, x̃ what it reads in the quantized one, whose
    layers before it are rounded already, and f is its fused ReLU or ReLU6. No labels, no training: the grid stays
    that of `quantize_model`, and each weight moves to the level below or above it.

    Each layer is learned on the outputs at random positions of all pictures. From the learned rounding, and from that
    to the nearest level, single weights are then turned round while the error falls; where a channel has at most 12
    weights (depthwise), all its roundings are tried. Each output channel takes the best result, so none is worse
    than rounded to nearest.

    All pictures pass through both networks side by side. Memory is that of the activations that are alive at one time
    for all pictures (5 bytes per value: float32 and 8-bit codes, and 4 more for what the layer at work makes), and up
    to about 0.5 GiB for its samples.

    Parameters
    ----------
    model : FloatModel
        The network that was calibrated. Not changed.
    recipe : Recipe
        Says which grid the weights of each layer get. Layers whose weights it leaves in float stay as they are.
    table : mapping of site to ClipRange
        From `calibrate`.
    batches : iterable
        Of input tensors, or of tuples that start with one: the pictures to learn on, some hundreds. No labels needed.
    iterations : int
        Steps of Adam for each layer. 0 only turns single weights round, which is quicker and brings most of the gain.
    samples : int
        Positions to learn on, of all pictures together. Layers with many inputs take fewer, to stay within memory.
    regularization : float
        λ: how hard weights are pushed to one of their two levels. Errors are measured in those of one step of one
        weight, so that λ means the same in every layer.
    learning_rate : float
        Of Adam.
    seed : int
        Chooses the positions. The same seed gives the same weights, on one machine with as many threads.

    Returns
    -------
    FloatModel
        Its weights lie on their grids, which are pinned (``attrs["weight_qparams"]``):
        ``quantize_model(result, recipe, table)`` takes exactly the learned codes.

    Raises
    ------
    RecipeError
        If the recipe leaves all weights in float, or a setting is out of range.
    CalibrationError
        If there are no batches, a value is NaN or Inf, or the table lacks a site.
    GraphError
        If a batch has the wrong shape.

    References
    ----------
    M. Nagel, R. A. Amjad, M. van Baalen, C. Louizos, T. Blankevoort, "Up or Down? Adaptive Rounding for Post-Training
    Quantization", ICML 2020. The paper does not treat it.

    Examples
    --------
    >>> import qlearn as ql
    >>> net, data = ql.load("tiny_resnet")
    >>> net = ql.fold_batch_norm(net)
    >>> recipe = ql.Recipe(weights=ql.TensorRecipe(scheme="symmetric_restricted", granularity="per_channel", bits=3))
    >>> table = ql.calibrate(net, data.calibration, recipe)
    >>> rounded = ql.adaround(net, recipe, table, data.calibration.subset(50), iterations=50, samples=2000)
    >>> x, _ = next(iter(data.evaluation))
    >>> for network in net, rounded:
    ...     print(f"{ql.sqnr_db(net(x), ql.quantize_model(network, recipe, table)(x)):.0f} dB")
    7 dB
    16 dB
    """
    settings = _Settings(iterations, samples, regularization, learning_rate, torch.Generator().manual_seed(seed))
    if not isinstance(model, FloatModel):
        raise GraphError(f"adaround() takes a traced network, got {type(model).__name__}: use qlearn.trace()")
    fused = fuse_activations(model)
    layers = quantize_model(fused, recipe, table).layers
    if all(layer.weight is None for layer in layers):
        raise RecipeError(
            f"{model.name}: the recipe leaves all weights in float, so there is nothing to round: give it weights="
        )
    walk = Walk(fused, checked_pictures(fused, batches, "to learn on"))
    rounded: dict[str, QuantizedLayer] = {}
    with torch.no_grad():
        for layer in progress(layers, "adaround", unit="layer"):
            unclamped = None
            if layer.weight is not None:
                unclamped = walk.unclamped(layer)
                layer = rounded[layer.node.name] = _rounded(layer, walk, unclamped, settings)  # noqa: PLW2901
            walk.advance(layer, unclamped)
    return model.with_nodes(_pinned(node, rounded.get(node.name)) for node in model.nodes)


@dataclass(frozen=True)
class _Settings:
    iterations: int
    samples: int
    regularization: float
    learning_rate: float
    generator: torch.Generator

    def __post_init__(self) -> None:
        whole = isinstance(self.iterations, int) and isinstance(self.samples, int)
        if not whole or self.iterations < 0 or self.samples < 1:
            raise RecipeError(
                f"adaround() takes iterations of 0 or more and samples of 1 or more, whole numbers: "
                f"got {self.iterations!r} and {self.samples!r}"
            )
        if not (0 <= self.regularization < np.inf and 0 < self.learning_rate < np.inf):
            raise RecipeError(
                "adaround() takes a regularization of 0 or more and a learning rate above 0: "
                f"got {self.regularization!r} and {self.learning_rate!r}"
            )


def _rounded(layer: QuantizedLayer, walk: Walk, unclamped: list[Tensor], settings: _Settings) -> QuantizedLayer:
    """Return the layer with other codes: the best rounding that was found."""
    problem = _problem(layer, walk, unclamped, settings)
    if problem.unit == 0:  # nothing is read but zeros, or no weight may move
        return layer
    up = _solution(problem, settings)
    assert layer.weight is not None
    zero = _per_output(layer, "zero_point")
    steps = (problem.floor + problem.freedom * up).reshape(len(zero), -1)
    codes = (steps + zero[:, None]).reshape(layer.weight.shape)
    return replace(layer, weight=codes.numpy().astype(layer.weight.dtype))


def _solution(problem: RoundingProblem, settings: _Settings) -> Tensor:
    """Try all ways there are, and take the best for each output channel."""
    candidates = [problem.nearest]
    if settings.iterations:
        candidates.append(learn(problem, settings.iterations, settings.regularization, settings.learning_rate))
    found = [flip(problem, candidate) for candidate in candidates]
    if few_enough(problem):
        found.append(try_all(problem))
    return least(problem, [*candidates, *found])


def _problem(layer: QuantizedLayer, walk: Walk, unclamped: list[Tensor], settings: _Settings) -> RoundingProblem:
    """Sample the layer's inputs and outputs, and write its weights as a floor and a freedom to go up."""
    node, qparams = layer.node, layer.weight_qparams
    assert layer.weight is not None
    assert qparams is not None
    groups = int(node.attrs.get("groups", 1))
    weight = node.params["weight"]
    grouped = (groups, len(weight) // groups, -1)
    most = min(settings.samples, _LARGEST // (groups * weight[0].numel()))
    each = max(1, -(-most // walk.count))
    parts = [sample(node, x, y, each, settings.generator) for x, y in zip(walk.read(layer), unclamped, strict=True)]
    inputs, targets = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    order = torch.randperm(inputs.shape[1], generator=settings.generator)
    scale, zero = (_per_output(layer, key)[:, None] for key in ("scale", "zero_point"))
    steps = weight.flatten(1) / scale
    low = (torch.floor(steps) + zero).clamp(qparams.qmin, qparams.qmax)
    freedom = (torch.floor(steps) + zero + 1).clamp(qparams.qmin, qparams.qmax) - low
    nearest = (torch.from_numpy(layer.weight).float().flatten(1) - low) * freedom
    bias = _real_bias(layer, walk.source(layer).output)
    return RoundingProblem(
        inputs=inputs[:, order],
        targets=targets[:, order],
        bias=bias.reshape(groups, 1, -1),
        limits=_limits(node.attrs.get("clamp"), bias, groups),
        scale=scale.reshape(groups, -1, 1),
        floor=(low - zero).reshape(grouped),
        freedom=freedom.reshape(grouped),
        fraction=(steps - low + zero).clamp(0, 1).reshape(grouped),
        nearest=nearest.reshape(grouped),
        shrinkage=_SHRINKAGE,
    )


def _per_output(layer: QuantizedLayer, key: str) -> Tensor:
    """Scale or zero point of every output channel, float32."""
    assert layer.weight is not None
    values = getattr(layer.weight_qparams, key)
    return torch.from_numpy(np.broadcast_to(values, len(layer.weight)).astype(np.float32))


def _real_bias(layer: QuantizedLayer, x: QParams | None) -> Tensor:
    """The bias that the quantized network adds: what is left of it in steps of S_x S_w."""
    scale = _per_output(layer, "scale")
    if layer.bias is None or x is None:
        return layer.node.params.get("bias", torch.zeros_like(scale))
    return torch.from_numpy(layer.bias).float() * (scale * float(x.scale))


def _limits(clamp: Any, like: Tensor, groups: int) -> tuple[Tensor, Tensor] | None:
    """The limits of a clamp for every output channel, shape (G, 1, M)."""
    if clamp is None:
        return None
    low, high = (torch.as_tensor(limit, dtype=torch.float32).expand_as(like).reshape(groups, 1, -1) for limit in clamp)
    return low, high


def _pinned(node: Node, layer: QuantizedLayer | None) -> Node:
    """Return the node with the learned weights, its grid pinned."""
    if layer is None:
        return node
    assert layer.weight is not None
    assert layer.weight_qparams is not None
    weight = dequantize(layer.weight, layer.weight_qparams)
    return node.with_params(weight=weight).with_attrs(weight_qparams=layer.weight_qparams)
