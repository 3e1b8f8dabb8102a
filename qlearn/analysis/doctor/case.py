"""A case: the networks and pictures that the doctor looks at, gathered from whatever the caller has."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qlearn.analysis.doctor.facts import Facts, look_at, look_at_outputs
from qlearn.analysis.doctor.sample import Sample, sample
from qlearn.errors import DataError, FallbackWarning, GraphError
from qlearn.graph.fold import fold_batch_norm
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.model import FloatModel
from qlearn.integer.layers import SHARING_OPS
from qlearn.integer.model import IntegerModel
from qlearn.numbers.affine import dequantize
from qlearn.pipeline.calibrate import calibrate
from qlearn.pipeline.quantize import quantize_model
from qlearn.pipeline.recipe import Recipe, TensorRecipe
from qlearn.pipeline.simulate import QuantizedLayer, QuantizedModel
from qlearn.pipeline.weights import PINNED, unpinned_if_unfit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from qlearn.graph.preprocess import Preprocess
    from qlearn.integer.layers import IntegerLayer
    from qlearn.numbers.qparams import ClipRange

SAME_WEIGHTS = 0.5
"""Share of a layer's weights that must be within a step of the float network's, or it is not the same network."""


@dataclass(frozen=True, eq=False)
class Case:
    """What the checks read.

    Parameters
    ----------
    name : str
    pictures : Sample
    facts : Facts
        What was seen when the pictures ran.
    quantized : QuantizedModel or None
        None for an integer model without its float network.
    folded : FloatModel or None
        The float network with batch norms folded and activations fused; its layers know what the batch norms knew.
    recipe : Recipe or None
        How it was quantized; guessed from the integers where nobody said.
    calibration : iterable or None
        Can be read again and again.
    calibrated_on : Sample or None
    images_calibrated : int or None
        Size of the calibration set.
    preprocess : Preprocess or None
        Stored with the network.
    outputs : ndarray or None
        What the caller's runtime returned for the pictures.
    biases_may_move : bool
        An integer model may have been repaired: its biases need not be those of the float network.
    learned : tuple of str
        Layers whose weights are on their grid already, and what they were in float is not known (AdaRound, QAT).
    """

    name: str
    pictures: Sample
    facts: Facts
    quantized: QuantizedModel | None = None
    folded: FloatModel | None = None
    recipe: Recipe | None = None
    calibration: Any = None
    calibrated_on: Sample | None = None
    images_calibrated: int | None = None
    preprocess: Preprocess | None = None
    outputs: NDArray[Any] | None = None
    biases_may_move: bool = False
    learned: tuple[str, ...] = ()

    def remade(self, model: FloatModel, recipe: Recipe) -> QuantizedModel:
        """Quantize another float network, or by another recipe, on the calibration pictures at hand.

        Grids that were pinned for the recipe so far (AdaRound, QAT) do not hold a remedy up.
        """
        free = model.with_nodes(unpinned_if_unfit(node, recipe.for_layer(node.name).weights) for node in model.nodes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FallbackWarning)
            return quantize_model(free, recipe, calibrate(free, self.calibration, recipe))


def open_case(
    model: Any,
    data: Any,
    *,
    recipe: Recipe | None,
    table: Mapping[str, ClipRange] | None,
    calibration: Any,
    reference: FloatModel | None,
    outputs: Any,
    images: int,
) -> Case:
    """Gather what the checks need: quantize where that is still to be done, and run the pictures once."""
    evaluation = getattr(data, "evaluation", data)
    calibration = getattr(data, "calibration", None) if calibration is None else calibration
    if evaluation is None:
        raise DataError("diagnose() needs pictures: Splits, a Dataset, or batches of inputs or (inputs, labels)")
    pictures = sample(evaluation, images, "the evaluation pictures")
    calibrated_on = None if calibration is None else sample(calibration, images, "the calibration pictures")
    counted = getattr(table, "images", None) or (None if calibrated_on is None else calibrated_on.count)
    quantized = _quantized(model, recipe, table, calibration, reference)
    common: dict[str, Any] = {
        "name": model.name, "pictures": pictures, "calibration": calibration, "calibrated_on": calibrated_on,
        "images_calibrated": counted, "preprocess": model.preprocess,
        "biases_may_move": isinstance(model, IntegerModel) or quantized is not model,
        "learned": pinned_layers(model) if quantized is model else (),
        "outputs": None if outputs is None else _checked_outputs(outputs, pictures),
    }  # fmt: skip
    if quantized is None:
        return Case(facts=look_at_outputs(model, pictures.batches()), **common)
    base = quantized.model if isinstance(model, QuantizedModel) and reference is None else reference or model
    folded = fuse_activations(fold_batch_norm(base if isinstance(base, FloatModel) else quantized.model))
    facts = look_at(quantized, pictures.batches())
    return Case(facts=facts, quantized=quantized, folded=folded, recipe=recipe or recipe_of(quantized), **common)


def _quantized(
    model: Any, recipe: Recipe | None, table: Any, calibration: Any, reference: FloatModel | None
) -> QuantizedModel | None:
    if isinstance(model, QuantizedModel):
        return rounded_from(model, reference) if reference is not None and pinned_layers(model) else model
    if isinstance(model, IntegerModel):
        return None if reference is None else beside(model, reference)
    if not isinstance(model, FloatModel):
        raise GraphError(
            "diagnose() takes a network of qlearn (FloatModel, QuantizedModel, IntegerModel), "
            f"got {type(model).__name__}: ql.trace() makes one from an nn.Module"
        )
    recipe, folded = recipe or Recipe(), fold_batch_norm(model)
    if table is None and calibration is None:
        raise DataError(
            f"{model.name}: a float network must be quantized to be examined: give data with a calibration part, "
            "calibration=, or table="
        )
    with warnings.catch_warnings():  # what stays in float becomes a finding
        warnings.simplefilter("ignore", FallbackWarning)
        return quantize_model(folded, recipe, calibrate(folded, calibration, recipe) if table is None else table)


def _checked_outputs(outputs: Any, pictures: Sample) -> NDArray[Any]:
    values = np.asarray(outputs)
    if values.ndim != 2 or len(values) != pictures.count:
        raise DataError(f"outputs= takes one row for each of the {pictures.count} pictures, got shape {values.shape}")
    return values[pictures.indices]


def beside(integer: IntegerModel, reference: FloatModel) -> QuantizedModel:
    """Return an integer model as a simulation beside its float network, to see the layers of both.

    Raises
    ------
    GraphError
        If the float network, folded and fused, has other layers.
    """
    fused = fuse_activations(fold_batch_norm(reference))
    _check_layers(integer.name, fused, [(one.name, one.inputs) for one in integer.layers], "integer")
    layers = [
        QuantizedLayer(node, mine.output, mine.weight, mine.weight_qparams, _int32(mine), mine.clamp)
        for node, mine in zip(fused.nodes, integer.layers, strict=True)
    ]
    for layer in layers:
        _check_weights(integer.name, layer)
    return QuantizedModel(fused, tuple(layers))


def rounded_from(quantized: QuantizedModel, reference: FloatModel) -> QuantizedModel:
    """Return a simulation with learned weights beside the float network from which they were learned.

    Raises
    ------
    GraphError
        If the float network, folded and fused, has other layers, or weights that are not within a step.
    """
    fused = fuse_activations(fold_batch_norm(reference))
    _check_layers(quantized.name, fused, [(one.node.name, one.node.inputs) for one in quantized.layers], "quantized")
    layers = [
        layer if layer.weight is None else replace(layer, node=node)
        for node, layer in zip(fused.nodes, quantized.layers, strict=True)
    ]
    for layer in layers:
        _check_weights(quantized.name, layer)
    return QuantizedModel(fused, tuple(layers))


def pinned_layers(model: Any) -> tuple[str, ...]:
    """Return the layers of a quantized network whose grid was pinned before `quantize_model` saw them."""
    if not isinstance(model, QuantizedModel):
        return ()
    return tuple(layer.node.name for layer in model.layers if layer.weight is not None and PINNED in layer.node.attrs)


def _check_layers(network: str, fused: FloatModel, ours: list[tuple[str, tuple[str, ...]]], kind: str) -> None:
    theirs = [(one.name, one.inputs) for one in fused.nodes]
    if theirs != ours:
        first = next((a for a, b in zip(theirs, ours, strict=False) if a != b), (theirs + ours)[-1])
        raise GraphError(
            f"{network}: the float network has other layers than the {kind} model (first at {first[0]!r}): "
            "give the one that was quantized, or leave reference= out"
        )


def _check_weights(network: str, layer: QuantizedLayer) -> None:
    """Rounding moves a weight by a step at most: equalized or retrained weights are those of another network."""
    if layer.weight is None or layer.weight_qparams is None:
        return
    kept, scale = dequantize(layer.weight, layer.weight_qparams), torch.from_numpy(layer.weight_qparams.scale.copy())
    steps = (kept - layer.node.params["weight"]).abs().flatten(1) / scale.reshape(-1, 1)
    if float((steps <= 1.01).double().mean()) < SAME_WEIGHTS:
        raise GraphError(
            f"{network}: the weights of {layer.node.name!r} are not those of the float network, rounded. "
            "Was it equalized or trained further? Give the float network that was quantized, or leave reference= out"
        )


def _int32(layer: IntegerLayer) -> NDArray[np.int32] | None:
    """The bias, also of 64-bit accumulators: its codes fit, or quantize_model() would have refused them."""
    return None if layer.bias is None else layer.bias.astype(np.int32)


def recipe_of(quantized: QuantizedModel) -> Recipe:
    """Guess the recipe from the integers: bits and granularity as most layers have them, the rest by default.

    Examples
    --------
    >>> import qlearn as ql
    >>> net = ql.trace(torch.nn.Conv2d(1, 2, 3), torch.zeros(1, 1, 8, 8))
    >>> recipe = ql.Recipe(weights=ql.TensorRecipe(scheme="symmetric", bits=6))
    >>> guessed = recipe_of(ql.quantize_model(net, recipe, ql.calibrate(net, [torch.ones(1, 1, 8, 8)], recipe)))
    >>> guessed.weights.bits, guessed.weights.granularity, guessed.activations.bits
    (6, 'per_tensor', 8)
    """
    weights = [layer.weight_qparams for layer in quantized.layers if layer.weight_qparams is not None]
    outputs = [
        layer.output for layer in quantized.layers if layer.output is not None and layer.node.op not in SHARING_OPS
    ]
    per_channel = any(one.axis is not None for one in weights)
    own = TensorRecipe(
        scheme="symmetric_restricted",
        bits=most_common([one.bits for one in weights]),
        granularity="per_channel" if per_channel else "per_tensor",
    )
    activations = TensorRecipe(scheme="affine", bits=most_common([one.bits for one in outputs]), calibrator="mse")
    return Recipe(activations=activations if outputs else None, weights=own if weights else None)


def most_common(bits: list[int]) -> int:
    """Return the number that occurs most often, the larger of equals; 8 if there are none.

    Examples
    --------
    >>> most_common([8, 4, 8]), most_common([])
    (8, 8)
    """
    return max(set(bits), key=lambda value: (bits.count(value), value), default=8)
