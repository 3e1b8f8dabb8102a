"""How much each choice of bits hurts: one tensor quantized at a time, all others in float (paper §7.1, 7.3)."""

from __future__ import annotations

import difflib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qlearn.analysis.mixed_precision.choices import Choice, with_choices
from qlearn.analysis.mixed_precision.logits import ChoiceLogits
from qlearn.analysis.mixed_precision.resources import scale_owner
from qlearn.errors import DataError, FallbackWarning, RecipeError
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.ops import WEIGHTED_OPS
from qlearn.numbers.qparams import QParams
from qlearn.pipeline.calibrate import calibrate_many, calibration_sites
from qlearn.pipeline.known import reason_for_float
from qlearn.pipeline.quantize import quantize_model
from qlearn.pipeline.recipe import Recipe
from qlearn.pipeline.simulate import run_layer, to_codes, to_real
from qlearn.progress import progress
from qlearn.schemes.base import integer_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from qlearn.analysis.mixed_precision.logits import Logits
    from qlearn.graph.model import FloatModel, Node
    from qlearn.numbers.qparams import ClipRange
    from qlearn.pipeline.simulate import QuantizedModel

WEIGHT_BITS = (2, 3, 4, 5, 6, 7, 8)
FLOAT = Recipe(activations=None, weights=None)


def measure_choices(
    model: FloatModel,
    recipe: Recipe,
    pictures: Iterable[Any],
    *,
    weight_bits: Sequence[int] = WEIGHT_BITS,
    activation_bits: Sequence[int] = (),
    layers: Sequence[str] | None = None,
) -> ChoiceLogits:
    """Quantize one tensor at a time, leave all others in float, and keep the logits.

    Up to the tensor in question the network computes what the float network computes.
    So every batch runs in float once, and each choice repeats only what depends on its tensor.

    Parameters
    ----------
    model : FloatModel
        Batch norms folded.
    recipe : Recipe
        Schemes, granularity and calibrators; only the bits are changed.
    pictures : iterable
        As for `calibrate`, but iterated over twice if activations are chosen: to calibrate, and to measure.
        A few hundred training pictures. Labels, if there are any, are kept.
    weight_bits : sequence of int, 2 to 16
        The bits to try for the weights of every convolution and linear layer.
    activation_bits : sequence of int, 2 to 16
        The bits to try for the output of every site. A width that would push a layer into float is left out
        (tables and softmax take 8 bits).
    layers : sequence of str, optional
        Only these layers.

    Returns
    -------
    ChoiceLogits

    Raises
    ------
    RecipeError
        If there is nothing to choose, a layer is unknown, or the recipe leaves a tensor in float.
    DataError
        If there are no pictures, or the logits are not finite, or not of shape (N, classes).

    References
    ----------
    Paper §7.1, §7.3.
    """
    fused = fuse_activations(model)
    choices = offered_choices(fused, recipe, weight_bits=weight_bits, activation_bits=activation_bits, layers=layers)
    weights = [choice for choice in choices if choice.tensor == "weights"]
    outputs = [choice for choice in choices if choice.tensor == "activations"]
    batches = list(pictures) if outputs and iter(pictures) is pictures else pictures
    return _run_all(
        fused, {**alone(fused, recipe, weights), **_alone_outputs(fused, recipe, outputs, batches)}, batches
    )


def offered_choices(
    model: FloatModel,
    recipe: Recipe,
    *,
    weight_bits: Sequence[int] = WEIGHT_BITS,
    activation_bits: Sequence[int] = (),
    layers: Sequence[str] | None = None,
) -> list[Choice]:
    """Return the choices that `measure_choices` measures for these arguments; quick, as no picture is run.

    Raises
    ------
    RecipeError
        If there is nothing to choose, or a layer is unknown.

    Examples
    --------
    >>> from torch import nn
    >>> from qlearn.graph.trace import trace
    >>> network = trace(nn.Sequential(nn.Conv2d(3, 5, 1)), torch.zeros(1, 3, 8, 8))
    >>> [choice.bits for choice in offered_choices(network, Recipe(), weight_bits=(8, 4))]
    [4, 8]
    """
    fused = fuse_activations(model)
    check_names(fused, layers)
    weights = [
        Choice(name, "weights", bits) for name in weighted_layers(fused, layers) for bits in sorted(set(weight_bits))
    ]
    outputs = _output_choices(fused, recipe, layers, activation_bits)
    if not weights and not outputs:
        raise RecipeError(f"{model.name}: no tensor whose bits could be chosen")
    return weights + outputs


def check_names(fused: FloatModel, layers: Sequence[str] | None) -> None:
    """Raise RecipeError if a network with fused activations lacks one of the layers."""
    names = [node.name for node in fused.nodes]
    for name in layers or ():
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise RecipeError(f"{fused.name} has no layer {name!r} (a ReLU belongs to the layer before it){hint}")


def weighted_layers(fused: FloatModel, layers: Sequence[str] | None) -> list[str]:
    """Return the names of the layers with weights, or of those among the given ones."""
    return [n.name for n in fused.nodes if n.op in WEIGHTED_OPS and (layers is None or n.name in layers)]


def _output_choices(
    fused: FloatModel, recipe: Recipe, layers: Sequence[str] | None, activation_bits: Sequence[int]
) -> list[Choice]:
    sites = [site for site in calibration_sites(fused) if layers is None or site in layers]
    return [
        Choice(site, "activations", bits)
        for site in sites
        for bits in sorted(set(activation_bits))
        if not _pushes_into_float(fused, recipe, site, bits)
    ]


def _pushes_into_float(fused: FloatModel, recipe: Recipe, site: str, bits: int) -> bool:
    """Whether a layer that reads the site has no integer kernel for so many bits (its other input as wide)."""
    mine = recipe.for_layer(site).activations
    if mine is None:
        return False
    qmin, qmax = integer_limits(bits, signed=True)
    zero = 0 if bits > 8 else qmin
    nodes = {node.name: node for node in fused.nodes}
    readers = [node for node in fused.nodes if site in [scale_owner(nodes, name) for name in node.inputs]]
    return any(reason_for_float(node, [QParams(1.0, zero, qmin, qmax)] * len(node.inputs)) for node in readers)


def alone(
    fused: FloatModel,
    recipe: Recipe,
    choices: Sequence[Choice],
    tables: Mapping[int, Mapping[str, ClipRange]] | None = None,
) -> dict[Choice, QuantizedModel]:
    """Return, for every choice, the network with that tensor quantized and all others in float.

    `tables` has the clip ranges by bits, where outputs are chosen.
    """
    networks: dict[Choice, QuantizedModel] = {}
    for choice in choices:
        mine = with_choices(recipe, [choice]).for_layer(choice.layer)
        only = FLOAT.with_layer(choice.layer, **{choice.tensor: getattr(mine, choice.tensor)})
        table = {} if tables is None else {choice.layer: tables[choice.bits][choice.layer]}
        with warnings.catch_warnings():  # whoever quantizes the network will see them
            warnings.simplefilter("ignore", FallbackWarning)
            networks[choice] = quantize_model(fused, only, table)
    return networks


def _alone_outputs(
    fused: FloatModel, recipe: Recipe, choices: Sequence[Choice], batches: Iterable[Any]
) -> dict[Choice, QuantizedModel]:
    """The same for outputs, all calibrated in one pass."""
    if not choices:
        return {}
    recipes: dict[int, Recipe] = {}
    for choice in choices:
        mine = with_choices(recipe, [choice]).for_layer(choice.layer).activations
        recipes[choice.bits] = recipes.get(choice.bits, FLOAT).with_layer(choice.layer, activations=mine)
    tables = calibrate_many(fused, batches, list(recipes.values()))
    return alone(fused, recipe, choices, dict(zip(recipes, tables, strict=True)))


def _run_all(fused: FloatModel, networks: Mapping[Choice, QuantizedModel], batches: Iterable[Any]) -> ChoiceLogits:
    reference: list[Logits] = []
    logits: dict[Choice, list[Logits]] = {choice: [] for choice in networks}
    labels: list[NDArray[np.int64]] = []
    later = {name: dependents(fused, name) for name in {choice.layer for choice in networks}}
    for batch in progress(batches, "one tensor at a time", unit="batch"):
        images = batch[0] if isinstance(batch, tuple | list) else batch
        if isinstance(batch, tuple | list) and len(batch) > 1 and batch[1] is not None:
            labels.append(np.asarray(batch[1], np.int64))
        values: dict[str, Tensor] = {}
        reference.append(_rows(fused(images, watch=_keeping(values))))
        for choice, network in progress(networks.items(), "choices", unit="choice", total=len(networks)):
            logits[choice].append(_rows(_run_later(network, values, later[choice.layer])))
    if not reference:
        raise DataError("no pictures to measure on (an iterator that was already used up?)")
    known = np.concatenate(labels) if labels else None
    total = np.concatenate(reference)
    if known is not None and known.shape != (len(total),):
        raise DataError(f"{len(total)} pictures, but labels of shape {known.shape}")
    return ChoiceLogits(total, {choice: np.concatenate(rows) for choice, rows in logits.items()}, known)


def _keeping(values: dict[str, Tensor]) -> Callable[[Node, Tensor], None]:
    return lambda node, value: values.update({node.name: value})


def dependents(model: FloatModel, name: str) -> tuple[str, ...]:
    """Return the names of a node, of those that read its value, of those that read theirs and so on, in their order."""
    touched = {name: None}
    for node in model.nodes:
        if not touched.keys().isdisjoint(node.inputs):
            touched[node.name] = None
    return tuple(touched)


def _run_later(network: QuantizedModel, values: Mapping[str, Tensor], later: Sequence[str]) -> Tensor:
    """The output, computed from the layers `later` on; before them, `values` are those of the float network."""
    layers = {layer.node.name: layer for layer in network.layers}
    changed = dict(values)
    with torch.no_grad():
        for name in later:
            layer = layers[name]
            inputs = [(layers[source], changed[source]) for source in layer.node.inputs]
            changed[name] = run_layer(layer, inputs) if inputs else to_codes(values[name], layer.output)
    output = network.model.output
    return to_real(layers[output], changed[output])


def _rows(value: Tensor) -> Logits:
    if value.ndim != 2:
        raise DataError(f"logits of shape (N, classes) expected, got {tuple(value.shape)}: flatten the output")
    if not torch.isfinite(value).all():  # a NaN would pass for a cost of 0
        raise DataError("logits are NaN or Inf: look for NaN in the pictures, or for the layer with qlearn analyze")
    return value.double().numpy()
