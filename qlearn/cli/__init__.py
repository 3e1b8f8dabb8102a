"""The ``qlearn`` command: argparse here, and one module for the work of each command."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from typing import TYPE_CHECKING

from qlearn import __version__
from qlearn.cli import analyze, doctor, mixed, repair
from qlearn.cli.options import JSON_HELP, MODEL_HELP, add_bits, add_granularity, add_own, add_recipe
from qlearn.errors import QLearnError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qlearn.cli.options import Commands

CALIBRATORS = ["minmax", "moving_average", "mean_std", "percentile", "percentile:percent=99.9"]
CALIBRATORS += ["percentile:of=tails", "entropy", "mse"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 for our errors, 2 for a wrong call.

    Examples
    --------
    >>> main(["plugins", "--kind", "scheme", "--builtin", "--names"])
    affine
    symmetric
    symmetric_restricted
    0
    """
    arguments = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = int(arguments.run(arguments))
        sys.stdout.flush()
    except QLearnError as error:
        return _failed(f"{error}", error)
    except BrokenPipeError:  # `qlearn plugins | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # a note says where: what failed is a plugin, not qlearn
        if not getattr(error, "__notes__", ()) or os.environ.get("QLEARN_TRACEBACK"):
            raise
        code = _failed(f"{type(error).__name__}: {error}", error)
        print("  QLEARN_TRACEBACK=1 shows the line of code", file=sys.stderr)
    except KeyboardInterrupt:
        print("qlearn: interrupted", file=sys.stderr)
        return 130
    return code


def _failed(text: str, error: BaseException) -> int:
    print(f"qlearn: error: {text}", file=sys.stderr)
    for note in getattr(error, "__notes__", ()):
        print(f"  {note}", file=sys.stderr)
    return 1


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Without the line of our code that Python would show: a reader of the command line has no use for it."""
    print(f"qlearn: warning: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qlearn", description="Quantize convolutional networks to 8 bits, and see what it costs."
    )
    parser.add_argument("--version", action="version", version=f"qlearn {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_quantize(commands)
    _add_compare(commands)
    analyze.add_parser(commands)
    doctor.add_parser(commands)
    mixed.add_parser(commands)
    repair.add_parser(commands)
    _add_export(commands)
    _add_info(commands)
    _add_plugins(commands)
    _add_fetch(commands)
    return parser


def _add_quantize(commands: Commands) -> None:
    parser = commands.add_parser(
        "quantize",
        help="quantize a network and compare it with float",
        description="Fold, calibrate, quantize, run on integers, and print accuracy, agreement, SQNR and bytes.",
        epilog="Your own network: qlearn quantize mypackage.nets:build --checkpoint weights.safetensors "
        "--data pictures/ --labels labels.csv --preprocess size=224,mean=0.5,std=0.5 --output net.qlearn",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    group = add_recipe(parser, several=True)
    group.add_argument("--policy", choices=("fixed", "float32"), default="fixed", help="how sums come back to 8 bits")
    group.add_argument("--strict", action="store_true", help="refuse layers that would stay in float")
    add_own(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--images", type=int, metavar="N", help="evaluate on N pictures only")
    group.add_argument("--output", metavar="FILE", help="save the integer model (of the last --weights)")
    group.add_argument("--json", action="store_true", help=JSON_HELP)
    parser.set_defaults(run=_run_quantize)


def _add_compare(commands: Commands) -> None:
    parser = commands.add_parser(
        "compare",
        help="compare calibrators on one network",
        description="Calibrate once for all calibrators, quantize with each, and print top-1 with paired 95 % "
        "confidence intervals against the first. Where the zoo has pictures to choose on, the choice is made there.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    group = parser.add_argument_group("recipe")
    add_granularity(group)
    group.add_argument(
        "--calibrators",
        nargs="+",
        metavar="NAME[:KEY=VALUE,...]",
        default=CALIBRATORS,
        help="the first is the baseline",
    )
    add_bits(group)
    add_own(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--images", type=int, metavar="N", help="evaluate on N pictures only")
    group.add_argument("--json", action="store_true", help=JSON_HELP)
    parser.set_defaults(run=_run_compare)


def _add_export(commands: Commands) -> None:
    parser = commands.add_parser(
        "export",
        help="write a saved model for ONNX Runtime or LiteRT",
        description="Write a saved integer model as the file of another runtime, which computes the same integers.",
    )
    parser.add_argument("model", metavar="MODEL.qlearn", help="what `qlearn quantize --output` has saved")
    parser.add_argument("file", metavar="FILE", help="what to write; .onnx or .tflite decides for whom")
    parser.add_argument("--integers", action="store_true", help=".onnx: uint8 codes at both ends, not real numbers")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    parser.set_defaults(run=_run_export)


def _add_info(commands: Commands) -> None:
    parser = commands.add_parser("info", help="describe a network, or list the zoo")
    parser.add_argument("model", metavar="MODEL", nargs="?", help=f"{MODEL_HELP}; without it, the zoo")
    parser.add_argument("--checkpoint", metavar="FILE", help="safetensors file for package.module:callable")
    parser.add_argument("--preprocess", metavar="RULE", help="as for quantize: gives the size of the input")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    parser.set_defaults(run=_run_info)


def _add_plugins(commands: Commands) -> None:
    parser = commands.add_parser(
        "plugins", help="list calibrators, schemes and engines, and plugins that failed to load"
    )
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    parser.add_argument("--names", action="store_true", help="names only, one a line")
    parser.add_argument("--kind", choices=("calibrator", "scheme", "engine"), help="only these")
    origin = parser.add_mutually_exclusive_group()
    origin.add_argument("--builtin", action="store_true", help="only qlearn's own")
    origin.add_argument("--third-party", action="store_true", help="only those of other packages")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a plugin failed")
    parser.add_argument("--traceback", metavar="NAME", help="how a plugin failed, in full")
    parser.set_defaults(run=_run_plugins)
    _add_plugin_actions(parser.add_subparsers(title="actions", metavar="ACTION"))


def _add_plugin_actions(actions: Commands) -> None:
    check = actions.add_parser(
        "check",
        help="run the conformance kit on a calibrator or scheme",
        description="Check a calibrator or a scheme against the rules that all of them keep. Exit with 1 if one fails.",
    )
    check.add_argument("name", metavar="NAME", help="as in `qlearn plugins`, or distribution:name")
    check.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=JSON_HELP)
    check.set_defaults(run=_run_check)
    new = actions.add_parser(
        "new",
        help="write a package of your own, ready to install",
        description="Write the package qlearn-NAME: a calibrator or a scheme that works, for you to change.",
    )
    new.add_argument("name", metavar="NAME", help="a letter, then letters, digits and _, all lower-case")
    new.add_argument(
        "--kind", choices=("calibrator", "scheme"), default=argparse.SUPPRESS, help="a calibrator unless told"
    )
    new.add_argument("--into", metavar="FOLDER", default=".", help="where to; if not given, here")
    new.set_defaults(run=_run_new)


def _add_fetch(commands: Commands) -> None:
    parser = commands.add_parser("fetch", help="fetch the weights of a known network once, with checksum")
    parser.add_argument("name", metavar="NAME", nargs="?", help="which; without it, the list")
    parser.add_argument("--folder", metavar="FOLDER", help="where to; if not given, the user's cache")
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    parser.set_defaults(run=_run_fetch)


def _run_quantize(arguments: argparse.Namespace) -> int:
    from qlearn.cli.quantize import run  # loads torch, which --help must not

    return run(arguments)


def _run_compare(arguments: argparse.Namespace) -> int:
    from qlearn.cli.compare import run

    return run(arguments)


def _run_export(arguments: argparse.Namespace) -> int:
    from qlearn.cli.export import run

    return run(arguments)


def _run_info(arguments: argparse.Namespace) -> int:
    from qlearn.cli.info import run

    return run(arguments)


def _run_plugins(arguments: argparse.Namespace) -> int:
    from qlearn.cli.plugins import run

    return run(arguments)


def _run_check(arguments: argparse.Namespace) -> int:
    from qlearn.cli.check import run

    return run(arguments)


def _run_new(arguments: argparse.Namespace) -> int:
    from qlearn.cli.new import run

    return run(arguments)


def _run_fetch(arguments: argparse.Namespace) -> int:
    from qlearn.cli.fetch import run

    return run(arguments)
