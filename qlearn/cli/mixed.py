"""``qlearn mixed``: the bits of every layer within a budget, and what they are worth. `mixed_run` does the work."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from qlearn.cli.options import JSON_HELP, MODEL_HELP, add_own

if TYPE_CHECKING:
    from qlearn.cli.options import Commands

MEASURES = ("kl", "sqnr", "accuracy", "hessian")
EPILOG = (
    "A budget is a number of bits, 4bit, which means what a network with that many bits for all weights takes; or a "
    "number of bytes (40000, 40KiB) or of bit-operations (2.5G)."
)


def add_parser(commands: Commands) -> None:
    """Add the command to the parser. Light: the work is imported when the command runs."""
    parser = commands.add_parser(
        "mixed",
        help="choose the bits of every layer within a budget",
        description="Measure what each choice of bits hurts, search for the best bits of every layer within a budget, "
        "and compare with the same bits everywhere.",
        epilog=EPILOG,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    group = parser.add_argument_group("search")
    group.add_argument("--budget", nargs="+", default=["6bit", "4bit"], metavar="SIZE", help="see below")
    group.add_argument(
        "--resource", choices=("bytes", "bops"), default="bytes", help="packed bytes of weights, or bit-operations"
    )
    group.add_argument("--measure", nargs="+", choices=MEASURES, default=["kl"], help="what a choice costs")
    group.add_argument("--search", nargs="+", choices=("program", "greedy"), default=["program", "greedy"], help="how")
    group.add_argument("--weight-bits", nargs="+", type=int, default=[2, 3, 4, 5, 6, 7, 8], metavar="N", help="to try")
    group.add_argument(
        "--activation-bits", nargs="+", type=int, default=[], metavar="N", help="to try; 8 everywhere if not given"
    )
    group.add_argument("--sensitivity-images", type=int, default=256, metavar="N", help="calibration pictures used")
    group.add_argument("--vectors", type=int, default=32, metavar="N", help="random vectors for the Hessian's trace")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of those vectors")
    group.add_argument("--pareto", action="store_true", help="print the Pareto front of the first measure")
    add_own(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--images", type=int, metavar="N", help="evaluate on N pictures only")
    group.add_argument("--workers", type=int, default=1, metavar="N", help="networks evaluated at the same time")
    group.add_argument("--policy", choices=("fixed", "float32"), default="fixed", help="of the model saved")
    group.add_argument("--output", metavar="FILE", help="save the first search's integer model for the last budget")
    group.add_argument("--json", action="store_true", help=JSON_HELP)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, search, compare, print."""
    from qlearn.cli.mixed_run import run as work  # loads torch

    return work(arguments)
