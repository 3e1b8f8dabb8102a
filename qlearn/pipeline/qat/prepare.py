"""Quantization-aware training: the network feels in training what its integers will do to it (paper §3.4, 8)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from qlearn.errors import CalibrationError, GraphError, RecipeError
from qlearn.graph.fold import fold_batch_norm, norms_behind
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.model import FloatModel
from qlearn.graph.ops import WEIGHTED_OPS
from qlearn.integer.layers import SHARING_OPS
from qlearn.pipeline.calibrate import calibration_plan
from qlearn.pipeline.known import known_output
from qlearn.pipeline.observe import input_of
from qlearn.pipeline.qat.grids import CalibratedGrid, FixedGrid, LearnedGrid, MovingGrid
from qlearn.pipeline.qat.layers import FoldedLayer
from qlearn.pipeline.qat.model import QATModel, convert
from qlearn.pipeline.quantize import site_qparams
from qlearn.pipeline.weights import weight_grid
from qlearn.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

    from qlearn.numbers.qparams import ClipRange, QParams
    from qlearn.pipeline.recipe import Recipe

__all__ = ["QATModel", "convert", "prepare_qat", "reestimate_batch_norm"]

RANGES = ("learned", "moving_average")


def prepare_qat(
    model: FloatModel,
    recipe: Recipe,
    table: Mapping[str, ClipRange] | None = None,
    *,
    ranges: str = "learned",
    learn_zero_points: bool = False,
    momentum: float = 0.01,
) -> QATModel:
    """Return a trainable copy of a network, with fake quantization at every site of the quantized network.

    Parameters
    ----------
    model : FloatModel
        Not changed. Batch norms may be separate: those behind a convolution or linear layer are folded anew in every
        step; all others are folded for good, as `fold_batch_norm` does.
    recipe : Recipe
    table : mapping of site to ClipRange, optional
        From ``calibrate(fold_batch_norm(model), ...)``: training starts where post-training quantization ends.
        Without a table every site starts at the range of the first batch.
    ranges : str
        ``"learned"``: step sizes are parameters, with LSQ's gradient.
        ``"moving_average"``: activations follow the extremes of the batches, weights are calibrated in every step.
    learn_zero_points : bool
        Learn the zero points of activations, too.
    momentum : float, 0 to 1
        Weight of a new batch in the statistics of batch norms and in moving ranges.

    Returns
    -------
    QATModel
        In training mode.

    Raises
    ------
    GraphError
        If model is not a traced network.
    RecipeError
        If ``ranges`` is unknown, or the recipe names a layer that the network does not have.
    CalibrationError
        If the table lacks a site.

    References
    ----------
    Paper §3.4, §8. Jacob et al. (2018), Krishnamoorthi (2018), Esser et al. (2020).

    Examples
    --------
    >>> from qlearn.graph.trace import trace
    >>> from qlearn.pipeline.recipe import Recipe
    >>> from torch import nn
    >>> net = trace(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()), torch.zeros(1, 1, 8, 8))
    >>> qat = prepare_qat(net, Recipe())
    >>> optimizer = torch.optim.SGD(qat.parameters(), lr=0.01)
    >>> qat(torch.randn(4, 1, 8, 8)).square().mean().backward()
    >>> optimizer.step()
    >>> qat.quantized()
    QuantizedModel Sequential: 2 layers, 26 bytes of weights
    """
    if not isinstance(model, FloatModel):
        raise GraphError(f"prepare_qat() takes a traced network, got {type(model).__name__}: use qlearn.trace()")
    if ranges not in RANGES:
        raise RecipeError(f"ranges is one of {', '.join(RANGES)}: got {ranges!r}")
    if not 0 < momentum <= 1:
        raise RecipeError(f"momentum lies between 0 and 1: got {momentum}")
    graph = fuse_activations(fold_batch_norm(model))
    calibration_plan(graph, recipe)  # refuses unknown layers
    starts = dict.fromkeys(node.name for node in graph.nodes) if table is None else site_qparams(graph, recipe, table)
    learned = ranges == "learned"
    sites: dict[str, nn.Module] = {}
    for node in graph.nodes:
        choice = recipe.for_layer(node.name).activations
        if choice is None or node.op in SHARING_OPS:
            continue
        known = known_output(node, choice.bits, signed=choice.signed)
        if known is not None:
            sites[node.name] = FixedGrid(known)
        elif learned:
            start = starts[node.name]
            sites[node.name] = LearnedGrid(start, choice, per_picture=True, learn_zero_point=learn_zero_points)
        else:
            sites[node.name] = MovingGrid(None if table is None else table[node.name], choice, momentum)
    return QATModel(graph, recipe, sites, _layers(model, graph, recipe, starts, learned=learned, momentum=momentum))


def _layers(
    model: FloatModel,
    graph: FloatModel,
    recipe: Recipe,
    outputs: Mapping[str, QParams | None],
    *,
    learned: bool,
    momentum: float,
) -> dict[str, FoldedLayer]:
    norms = norms_behind(model)
    layers: dict[str, FoldedLayer] = {}
    for node in graph.nodes:
        if node.op not in WEIGHTED_OPS:
            continue
        choice = recipe.for_layer(node.name).weights
        norm = norms.get(node.name)
        grid: LearnedGrid | CalibratedGrid | None = None
        if choice is not None and learned:
            x = outputs[node.inputs[0]]
            start = weight_grid(node, choice, None if x is None else x.scale)
            grid = LearnedGrid(start, choice, per_picture=False)
        elif choice is not None:
            grid = CalibratedGrid(choice)
        own = node if norm is None else replace(node, params=model.node(node.name).params)
        layers[node.name] = FoldedLayer(own, norm, grid, momentum)
    return layers


def reestimate_batch_norm(qat: QATModel, batches: Iterable[Any]) -> QATModel:
    """Return a copy whose batch norms hold the mean statistics of these batches, with everything quantized.

    In training the running statistics lag behind the weights; at few bits that costs accuracy.
    A learned step size per channel moves with the factor γ / σ that is folded into its weights,
    so that the codes of the weights stay as they were learned; one per tensor does not.

    Parameters
    ----------
    qat : QATModel
        Not changed.
    batches : iterable
        Of input tensors, or of tuples that start with one. About a hundred are enough.

    Returns
    -------
    QATModel
        Frozen, in the mode that ``qat`` was in.

    Raises
    ------
    CalibrationError
        If there are no batches.

    References
    ----------
    Paper §8. Nagel et al.: Overcoming Oscillations in Quantization-Aware Training (2022), §3.2.
    """
    fresh = copy.deepcopy(qat)
    normed = [layer for layer in fresh.layers.values() if isinstance(layer, FoldedLayer) and layer.norm is not None]
    fresh.frozen.fill_(False)
    fresh.train()
    seen = 0
    with torch.no_grad():
        for batch in progress(batches, "re-estimate batch norm", unit="batch"):
            seen += 1
            for layer in normed:
                layer.estimate_with(1.0 / seen)
            fresh(input_of(batch))
        if seen == 0:
            raise CalibrationError(f"{qat.name}: no batches to re-estimate on (an iterator that was already used up?)")
        for layer in normed:
            layer.take_estimate()
    fresh.images.copy_(qat.images)
    fresh.freeze_batch_norm()
    return fresh.train(qat.training)
