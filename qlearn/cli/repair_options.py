"""The options of ``qlearn repair``; loads nothing heavy."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from qlearn.cli.options import MODEL_HELP, add_own

if TYPE_CHECKING:
    from qlearn.cli.options import Commands


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "repair",
        help="mend a quantized network step by step, without training",
        description="Zero the weights that read dead channels, equalize ranges or noise, absorb and correct "
        "biases, learn the rounding; print top-1 for each rung of the ladder, with paired 95 % confidence "
        "intervals against float. No labels are used but to measure.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    group = parser.add_argument_group("recipe")
    granularities = ("per_tensor", "per_channel")
    group.add_argument(
        "--weights", nargs="+", choices=granularities, default=list(granularities), help="one ladder each"
    )
    group.add_argument("--weight-scheme", default="symmetric_restricted", metavar="NAME", help="scheme of the weights")
    group.add_argument("--weight-bits", type=int, default=8, metavar="N", help="2 to 16")
    group.add_argument("--activation-scheme", default="affine", metavar="NAME", help="scheme of the activations")
    group.add_argument("--activation-bits", type=int, default=8, metavar="N", help="2 to 16")
    group.add_argument("--calibrator", default="mse", metavar="NAME", help="of the activations, see `qlearn plugins`")
    group.add_argument("--policy", choices=("fixed", "float32"), default="fixed", help="of the model that is saved")
    add_own(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--on", choices=("evaluation", "selection"), default="evaluation", help="which pictures: choose on selection"
    )
    group.add_argument("--images", type=int, metavar="N", help="report on N pictures only")
    group.add_argument("--output", metavar="FILE", help="save the integer model of the last rung")
    group.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from qlearn.cli.repair import run  # loads torch, which --help must not

    return run(arguments)
