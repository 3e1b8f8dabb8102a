"""``qlearn repair``: the repair ladder of one network."""

from __future__ import annotations

import datetime as dt
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qlearn import __version__
from qlearn.analysis.ladder import repair_ladder
from qlearn.cli.document import print_json
from qlearn.cli.sources import open_data, open_model, parse_preprocess
from qlearn.errors import MissingDataError, RecipeError
from qlearn.graph.fold import fold_batch_norm
from qlearn.integer.model import IntegerModel
from qlearn.pipeline.recipe import Recipe, TensorRecipe

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    """Repair step by step, print what each step brings, save the last network."""
    preprocess = parse_preprocess(arguments.preprocess)
    if arguments.output is not None and not Path(arguments.output).absolute().parent.is_dir():
        raise MissingDataError(f"--output {arguments.output}: its folder does not exist")
    model = open_model(arguments.model, arguments.checkpoint, preprocess)
    if isinstance(model, IntegerModel):
        raise RecipeError(f"{arguments.model} is quantized already: repair needs the float network")
    data = open_data(arguments, preprocess or model.preprocess)
    evaluation = data.selection if arguments.on == "selection" else data.evaluation
    if evaluation is None:
        raise MissingDataError(f"{arguments.model} has no pictures to choose on: leave --on selection out")
    if arguments.images is not None:
        evaluation = evaluation.subset(arguments.images)
    recipes = {granularity: _recipe(granularity, arguments) for granularity in arguments.weights}
    ladder, last = repair_ladder(fold_batch_norm(model), recipes, calibration=data.calibration, evaluation=evaluation)
    if arguments.output is not None:
        last.quantized.to_integer(arguments.policy).save(arguments.output)
    if arguments.json:
        print_json(_made_by() | ladder.to_dict())
    else:
        print(ladder)
    return 0


def _recipe(granularity: str, arguments: argparse.Namespace) -> Recipe:
    weights = TensorRecipe(scheme=arguments.weight_scheme, bits=arguments.weight_bits, granularity=granularity)
    activations = TensorRecipe(
        scheme=arguments.activation_scheme, bits=arguments.activation_bits, calibrator=arguments.calibrator
    )
    return Recipe(activations=activations, weights=weights)


def _made_by() -> dict[str, Any]:
    """Where a results file comes from."""
    versions = {"qlearn": __version__, "torch": torch.__version__, "numpy": np.__version__}
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "command": " ".join(["qlearn", *sys.argv[1:]]),
        "versions": versions | {"python": platform.python_version()},
    }
