"""``qlearn quantize``: the whole path on one network, and a table of what it costs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qlearn.analysis.evaluate import Evaluation, evaluate, logits_of
from qlearn.cli.document import print_json
from qlearn.cli.sources import open_data, open_model, parse_preprocess, parse_setting
from qlearn.errors import MissingDataError, RecipeError
from qlearn.graph.fold import fold_batch_norm
from qlearn.integer.model import IntegerModel
from qlearn.pipeline.calibrate import calibrate
from qlearn.pipeline.quantize import quantize_model
from qlearn.pipeline.recipe import Recipe, TensorRecipe
from qlearn.zoo.data import Splits

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from qlearn.graph.model import FloatModel


def run(arguments: argparse.Namespace) -> int:
    """Quantize, evaluate, print, save."""
    preprocess = parse_preprocess(arguments.preprocess)
    _check_output(arguments)
    model = open_model(arguments.model, arguments.checkpoint, preprocess)
    data = open_data(arguments, preprocess or model.preprocess)
    if arguments.images is not None:
        data = Splits(calibration=data.calibration, evaluation=data.evaluation.subset(arguments.images))
    if isinstance(model, IntegerModel):
        rows = [evaluate(model, data.evaluation, name=f"{model.name} as saved")]
    else:
        rows = list(_rows(model, data, arguments))
    if arguments.json:
        images = {"calibration": len(data.calibration), "evaluation": len(data.evaluation)}
        print_json({"model": model.name, "images": images, "rows": [row.to_dict() for row in rows]})
    else:
        print(table(rows))
        if arguments.data is not None and not isinstance(model, IntegerModel):
            print(f"calibrated on {len(data.calibration)} pictures, evaluated on {len(data.evaluation)} others")
    return 0


def _rows(model: FloatModel, data: Splits, arguments: argparse.Namespace) -> Iterator[Evaluation]:
    folded = fold_batch_norm(model)
    logits = logits_of(folded, data.evaluation, "float")
    float_row = evaluate(lambda batch: batch, _pairs(logits, data), name="float")
    yield Evaluation(**{**vars(float_row), "weight_bytes": folded.weight_bytes})
    recipes = [recipe_of(granularity, arguments) for granularity in arguments.weights]
    calibrated = calibrate(folded, data.calibration, recipes[0])
    for granularity, recipe in zip(arguments.weights, recipes, strict=True):
        quantized = quantize_model(folded, recipe, calibrated, strict=arguments.strict)
        label = f"W{arguments.weight_bits}A{arguments.activation_bits} {granularity}"
        if recipe.weights is None:
            label = f"A{arguments.activation_bits}, weights float"
            runnable: Any = quantized
        else:
            runnable = quantized.to_integer(arguments.policy)
        yield evaluate(runnable, data.evaluation, reference=logits, name=label)
        if arguments.output is not None and granularity == arguments.weights[-1]:
            runnable.save(arguments.output)


def _pairs(logits: Any, data: Splits) -> list[tuple[Any, Any]]:
    """The float logits as a data set of their own, so that float is measured without running it twice."""
    return [(logits, data.evaluation.labels)]


def _check_output(arguments: argparse.Namespace) -> None:
    """Refuse before the long work what could only fail after it."""
    if arguments.output is None:
        return
    if arguments.weights[-1] == "float" or arguments.model.endswith(".qlearn"):
        raise RecipeError("--output saves an integer model made now: not --weights float, and not a saved .qlearn file")
    if not Path(arguments.output).absolute().parent.is_dir():
        raise MissingDataError(f"--output {arguments.output}: its folder does not exist")


def recipe_of(granularity: str, arguments: argparse.Namespace) -> Recipe:
    """Return the recipe that the options of a command line ask for."""
    activations = TensorRecipe(
        scheme=arguments.activation_scheme,
        bits=arguments.activation_bits,
        calibrator=arguments.calibrator,
        calibrator_params=dict(parse_setting(text) for text in arguments.settings),
    )
    if granularity == "float":
        return Recipe(activations=activations, weights=None)
    weights = TensorRecipe(scheme=arguments.weight_scheme, bits=arguments.weight_bits, granularity=granularity)
    return Recipe(activations=activations, weights=weights)


def table(rows: list[Evaluation]) -> str:
    """Return the rows as text, one line each.

    Examples
    --------
    >>> print(table([Evaluation("float", 650, 0.632, weight_bytes=1900000)]))
                           pictures  accuracy  agreement  SQNR (dB)  weights (KiB)
    float                       650     63.2%          -          -           1855
    """
    lines = [f"{'':<22} {'pictures':>8}  {'accuracy':>8}  {'agreement':>9}  {'SQNR (dB)':>9}  {'weights (KiB)':>13}"]
    for row in rows:
        agreement = "-" if row.agreement is None else f"{row.agreement:.1%}"
        accuracy = "-" if row.accuracy is None else f"{row.accuracy:.1%}"
        noise = "-" if row.sqnr_db is None else ("exact" if row.sqnr_db == math.inf else f"{row.sqnr_db:.1f}")
        size = "-" if row.weight_bytes is None else f"{row.weight_bytes / 1024:.0f}"
        lines.append(f"{row.name:<22} {row.images:>8}  {accuracy:>8}  {agreement:>9}  {noise:>9}  {size:>13}")
    return "\n".join(lines)
