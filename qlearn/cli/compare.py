"""``qlearn compare``: several calibrators on one network, and which of them can be told apart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qlearn.analysis.compare import compare_calibrators
from qlearn.cli.document import print_json
from qlearn.cli.sources import open_data, open_model, parse_preprocess, parse_setting
from qlearn.errors import RecipeError
from qlearn.graph.fold import fold_batch_norm
from qlearn.integer.model import IntegerModel
from qlearn.pipeline.recipe import Recipe, TensorRecipe
from qlearn.registry import calibrator

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    """Calibrate once, quantize with each calibrator, evaluate, print."""
    choices = {text: parse_choice(text) for text in arguments.calibrators}
    if len(choices) < len(arguments.calibrators):
        raise RecipeError("--calibrators names one twice: each is a row, so each needs its own settings")
    for name, params in choices.values():
        calibrator(name, **params)  # a wrong name or parameter fails here, before the long work
    preprocess = parse_preprocess(arguments.preprocess)
    model = open_model(arguments.model, arguments.checkpoint, preprocess)
    if isinstance(model, IntegerModel):
        raise RecipeError(f"{arguments.model} is quantized already: compare needs the float network")
    data = open_data(arguments, preprocess or model.preprocess)
    if arguments.images is not None:
        selection = (
            None if data.selection is None else data.selection.subset(min(arguments.images, len(data.selection)))
        )
        data = replace(data, evaluation=data.evaluation.subset(arguments.images), selection=selection)
    activations = TensorRecipe(scheme=arguments.activation_scheme, bits=arguments.activation_bits)
    weights = None
    if arguments.weights != "float":
        weights = TensorRecipe(
            scheme=arguments.weight_scheme, bits=arguments.weight_bits, granularity=arguments.weights
        )
    recipe = Recipe(activations=activations, weights=weights)
    comparison = compare_calibrators(
        fold_batch_norm(model),
        recipe,
        choices,
        calibration=data.calibration,
        evaluation=data.evaluation,
        selection=data.selection,
    )
    if arguments.json:
        print_json(comparison.to_dict())
    else:
        print(comparison)
    return 0


def parse_choice(text: str) -> tuple[str, dict[str, Any]]:
    """Read ``percentile:percent=99.9,of=tails``, a calibrator with settings. A plugin's ``dist:name`` works too.

    Examples
    --------
    >>> parse_choice("percentile:percent=99.9,of=tails")
    ('percentile', {'percent': 99.9, 'of': 'tails'})
    >>> parse_choice("qlearn-aciq:aciq")
    ('qlearn-aciq:aciq', {})
    """
    name, separator, settings = text.rpartition(":")
    if not separator or "=" not in settings:
        return text, {}
    pairs = [parse_setting(part) for part in settings.split(",")]
    if len(dict(pairs)) < len(pairs):
        raise RecipeError(f"{text!r} sets one parameter twice")
    return name, dict(pairs)
