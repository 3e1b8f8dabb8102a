"""Options that several commands share. Light: no torch, so that ``--help`` stays quick."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001  (argparse has no public name for it)

MODEL_HELP = "a zoo name (see `qlearn info`), a saved .qlearn file, or package.module:callable"

JSON_HELP = "one JSON document on standard output; null for what is infinite, as the SQNR without any error"


def add_recipe(parser: argparse.ArgumentParser, *, several: bool = False) -> argparse._ArgumentGroup:
    """Add the options of a recipe, `qlearn.cli.quantize.recipe_of` reads them; `several` granularities are rows."""
    group = parser.add_argument_group("recipe")
    add_granularity(group, several=several)
    add_bits(group)
    group.add_argument("--calibrator", default="mse", metavar="NAME", help="of the activations, see `qlearn plugins`")
    group.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of the calibrator: percent=99.9",
    )
    return group


def add_granularity(group: argparse._ArgumentGroup, *, several: bool = False) -> None:
    """Add ``--weights``."""
    choices = ("per_tensor", "per_channel", "float")
    if several:
        group.add_argument(
            "--weights", nargs="+", choices=choices, default=["per_channel"], help="one row each; float keeps them"
        )
    else:
        group.add_argument("--weights", choices=choices, default="per_channel", help="float keeps them")


def add_bits(group: argparse._ArgumentGroup) -> None:
    """Add scheme and bits of weights and activations."""
    group.add_argument("--weight-scheme", default="symmetric_restricted", metavar="NAME", help="scheme of the weights")
    group.add_argument("--weight-bits", type=int, default=8, metavar="N", help="2 to 16")
    group.add_argument("--activation-scheme", default="affine", metavar="NAME", help="scheme of the activations")
    group.add_argument("--activation-bits", type=int, default=8, metavar="N", help="2 to 16")


def add_own(parser: argparse.ArgumentParser) -> None:
    """Add the options for a network and pictures of one's own; `qlearn.cli.sources` reads them."""
    group = parser.add_argument_group("your own network and pictures")
    group.add_argument("--checkpoint", metavar="FILE", help="safetensors file for package.module:callable")
    group.add_argument("--data", metavar="FOLDER", help="pictures to evaluate on")
    group.add_argument("--labels", metavar="CSV", help="columns file,label; without it, no accuracy")
    group.add_argument("--calibration", metavar="FOLDER", help="pictures to calibrate on; if not given, some of --data")
    group.add_argument(
        "--calibration-images", type=int, metavar="N", help="calibrate on N pictures; 200 of your own if not given"
    )
    group.add_argument(
        "--preprocess", metavar="RULE", help="size=224,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,resize=256"
    )
