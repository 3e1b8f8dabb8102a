"""``qlearn repair``: the repair ladder of one network."""

from __future__ import annotations

import argparse
import datetime as dt
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qlearn import __version__
from qlearn.cli.document import print_json
from qlearn.cli.options import JSON_HELP, MODEL_HELP, add_bits, add_own
from qlearn.errors import MissingDataError, RecipeError

if TYPE_CHECKING:
    from qlearn.cli.options import Commands
    from qlearn.graph.model import FloatModel
    from qlearn.pipeline.recipe import Recipe
    from qlearn.zoo.data import Splits

STEP_NAMES = (
    "dead inputs zeroed", "equalized", "noise equalized", "bias absorbed", "bias corrected",
    "bias corrected without pictures", "rounding learned",
)  # fmt: skip
"""The steps of `qlearn.repair.steps`, whose import would load torch."""

EPILOG = (
    f"The steps: {', '.join(STEP_NAMES)}. Each rung takes some of them, in the order in which the table lists them. "
    "--output saves the rung whose logits have the highest SQNR on the pictures reported on, of all --weights: labels "
    "play no part. Choose on other pictures than you report on where the zoo has some (--on selection)."
)


def add_parser(commands: Commands) -> None:
    """Add the command to the parser. Light: the work is imported when the command runs."""
    parser = commands.add_parser(
        "repair",
        help="mend a quantized network step by step, without training",
        description="Zero the weights that read dead channels, equalize ranges or noise, absorb and correct "
        "biases, learn the rounding; print top-1 for each rung of the ladder, with paired 95 % confidence "
        "intervals against float. No labels are used but to measure.",
        epilog=EPILOG,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    group = parser.add_argument_group("recipe")
    granularities = ("per_tensor", "per_channel")
    group.add_argument(
        "--weights", nargs="+", choices=granularities, default=list(granularities), help="one ladder each"
    )
    add_bits(group)
    group.add_argument("--calibrator", default="mse", metavar="NAME", help="of the activations, see `qlearn plugins`")
    group.add_argument("--policy", choices=("fixed", "float32"), default="fixed", help="of the model that is saved")
    add_own(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--on", choices=("evaluation", "selection"), default="evaluation", help="which pictures: choose on selection"
    )
    group.add_argument("--images", type=int, metavar="N", help="report on N pictures only")
    group.add_argument("--output", metavar="FILE", help="save the integer model of the best rung, see below")
    group.add_argument("--json", action="store_true", help=JSON_HELP)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Repair step by step, print what each step brings, save the best network."""
    from qlearn.analysis.ladder import repair_ladder
    from qlearn.graph.fold import fold_batch_norm

    if arguments.output is not None and not Path(arguments.output).absolute().parent.is_dir():
        raise MissingDataError(f"--output {arguments.output}: its folder does not exist")
    model, data, evaluation = _opened(arguments)
    recipes = {granularity: _recipe(granularity, arguments) for granularity in arguments.weights}
    ladder, best = repair_ladder(
        fold_batch_norm(model), recipes, calibration=data.calibration, evaluation=evaluation, keep="best"
    )
    if arguments.output is not None:
        best.quantized.to_integer(arguments.policy).save(arguments.output)
    if arguments.json:
        print_json(_made_by() | ladder.to_dict() | {"best": ladder.best.to_dict()})
    else:
        print(ladder)
        if arguments.output is not None:
            rung = ladder.best
            print(f"saved, by SQNR: weights {rung.granularity.replace('_', ' ')}, {rung.name}: {arguments.output}")
    return 0


def _opened(arguments: argparse.Namespace) -> tuple[FloatModel, Splits, Any]:
    """Return the network, its data, and the pictures to report on."""
    from qlearn.cli.sources import open_data, open_model, parse_preprocess
    from qlearn.integer.model import IntegerModel

    preprocess = parse_preprocess(arguments.preprocess)
    model = open_model(arguments.model, arguments.checkpoint, preprocess)
    if isinstance(model, IntegerModel):
        raise RecipeError(f"{arguments.model} is quantized already: repair needs the float network")
    data = open_data(arguments, preprocess or model.preprocess)
    evaluation = data.selection if arguments.on == "selection" else data.evaluation
    if evaluation is None:
        raise MissingDataError(f"{arguments.model} has no pictures to choose on: leave --on selection out")
    return model, data, evaluation if arguments.images is None else evaluation.subset(arguments.images)


def _recipe(granularity: str, arguments: argparse.Namespace) -> Recipe:
    from qlearn.pipeline.recipe import Recipe, TensorRecipe

    weights = TensorRecipe(scheme=arguments.weight_scheme, bits=arguments.weight_bits, granularity=granularity)
    activations = TensorRecipe(
        scheme=arguments.activation_scheme, bits=arguments.activation_bits, calibrator=arguments.calibrator
    )
    return Recipe(activations=activations, weights=weights)


def _made_by() -> dict[str, Any]:
    """Where a results file comes from."""
    import numpy as np
    import torch

    versions = {"qlearn": __version__, "torch": torch.__version__, "numpy": np.__version__}
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "command": " ".join(["qlearn", *sys.argv[1:]]),
        "versions": versions | {"python": platform.python_version()},
    }
