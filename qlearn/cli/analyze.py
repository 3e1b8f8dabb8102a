"""``qlearn analyze``: what quantization does to every layer, and from which part the noise comes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from qlearn.cli.document import print_json
from qlearn.cli.options import JSON_HELP, MODEL_HELP, add_own, add_recipe
from qlearn.errors import RecipeError

if TYPE_CHECKING:
    from qlearn.cli.options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command to the parser. Light: the work is imported when the command runs."""
    parser = commands.add_parser(
        "analyze",
        help="show what quantization does to every layer",
        description="Quantize, run beside the float network, and print for every layer the error in all, the layer's "
        "own error, and the parts of which it consists: weights, input, bias, rounding and clipping of the output.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    add_recipe(parser)
    add_own(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--images", type=int, default=64, metavar="N", help="pictures to measure on")
    group.add_argument("--worst-first", action="store_true", help="the layer that does most harm itself at the top")
    group.add_argument("--alone", action="store_true", help="budget of each layer by itself, on float inputs")
    group.add_argument("--sensitivity", action="store_true", help="also quantize one layer at a time, and all but one")
    group.add_argument("--json", action="store_true", help=JSON_HELP)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Quantize, analyse, print."""
    from qlearn.analysis.budget import error_budget
    from qlearn.analysis.layers import analyze
    from qlearn.analysis.sensitivity import sensitivity

    quantized, pictures = _prepared(arguments)
    table = analyze(quantized, pictures)
    parts: dict[str, Any] = {
        "layers": table.worst_first() if arguments.worst_first else table,
        "budget": error_budget(quantized, pictures, inherited=not arguments.alone),
    }
    if arguments.sensitivity:
        parts["sensitivity"] = sensitivity(quantized, pictures)
    if arguments.json:
        print_json({name: part.to_dict() for name, part in parts.items()})
    else:
        print("\n\n".join(map(str, parts.values())))
    return 0


def _prepared(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Return the quantized network, and the pictures to measure on."""
    from qlearn.cli.quantize import recipe_of
    from qlearn.cli.sources import open_data, open_model, parse_preprocess
    from qlearn.graph.fold import fold_batch_norm
    from qlearn.integer.model import IntegerModel
    from qlearn.pipeline.calibrate import calibrate
    from qlearn.pipeline.quantize import quantize_model

    recipe = recipe_of(arguments.weights, arguments)
    preprocess = parse_preprocess(arguments.preprocess)
    model = open_model(arguments.model, arguments.checkpoint, preprocess)
    if isinstance(model, IntegerModel):
        raise RecipeError(f"{arguments.model} is quantized already: analyze needs the float network")
    data = open_data(arguments, preprocess or model.preprocess)
    folded = fold_batch_norm(model)
    quantized = quantize_model(folded, recipe, calibrate(folded, data.calibration, recipe))
    return quantized, data.evaluation.subset(min(arguments.images, len(data.evaluation)))
