"""``qlearn doctor``: what is wrong with a quantized network, where, how sure that is, and what mends it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qlearn.cli.document import print_json
from qlearn.cli.options import JSON_HELP, MODEL_HELP, add_own, add_recipe
from qlearn.errors import MissingDataError

if TYPE_CHECKING:
    from qlearn.cli.options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command to the parser. Light: the work is imported when the command runs."""
    parser = commands.add_parser(
        "doctor",
        help="say what is wrong with a quantized network, and what mends it",
        description="Quantize, run beside the float network, look for known faults, and say what is wrong, where, how "
        "sure that is, and what each remedy brings here. Exit with 0, also with findings; "
        "under --strict with 1 if there are findings that are more than notes.",
        epilog="A saved .qlearn file has no float network: name that with --float, or only both ends are examined.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    add_recipe(parser)
    add_own(parser)
    group = parser.add_argument_group("examination")
    group.add_argument("--float", dest="reference", metavar="NETWORK", help="float network of a .qlearn file, as MODEL")
    group.add_argument("--images", type=int, default=64, metavar="N", help="pictures to examine with")
    group.add_argument("--quick", action="store_true", help="do not try the remedies")
    group = parser.add_argument_group("output")
    group.add_argument("--report", metavar="FILE.html", help="also write a report that needs no network")
    group.add_argument("--strict", action="store_true", help="exit with 1 if there are errors or warnings")
    group.add_argument("--json", action="store_true", help=JSON_HELP)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine, print, write the report."""
    from qlearn.analysis.doctor.diagnose import diagnose

    if arguments.report is not None and not Path(arguments.report).absolute().parent.is_dir():
        raise MissingDataError(f"--report {arguments.report}: its folder does not exist")
    model, data, choices = _prepared(arguments)
    diagnosis = diagnose(model, data, images=arguments.images, measure=not arguments.quick, **choices)
    if arguments.report is not None:
        from qlearn.report import write_report

        write_report(diagnosis, arguments.report)
    if arguments.json:
        print_json(diagnosis.to_dict())
    else:
        print(diagnosis)
    serious = any(finding.severity != "note" for finding in diagnosis)
    return int(arguments.strict and serious)


def _prepared(arguments: argparse.Namespace) -> tuple[Any, Any, dict[str, Any]]:
    """Return the network, its pictures, and how it is or was quantized."""
    from qlearn.cli.quantize import recipe_of
    from qlearn.cli.sources import open_data, open_model, parse_preprocess
    from qlearn.integer.model import IntegerModel

    preprocess = parse_preprocess(arguments.preprocess)
    named = (
        None if arguments.reference is None else argparse.Namespace(**{**vars(arguments), "model": arguments.reference})
    )
    model = open_model(arguments.model, None if named else arguments.checkpoint, None if named else preprocess)
    if not isinstance(model, IntegerModel):
        data = open_data(arguments, preprocess or model.preprocess)
        if preprocess is not None:  # the user's word, not a rule that came with the network
            model = replace(model, preprocess=None)
        return model, data, {"recipe": recipe_of(arguments.weights, arguments)}
    reference = None if named is None else open_model(named.model, arguments.checkpoint, preprocess)
    data = open_data(named or arguments, preprocess or model.preprocess)
    if arguments.data is None and named is None:
        raise MissingDataError(
            f"{arguments.model} brings no pictures: name a folder with --data, or its network with --float"
        )
    return model, data, {"reference": reference}
