"""The long computations that chapters only read: what made each results file, and how to make it again.

    python tools/results.py list
    python tools/results.py run                     # all but the trainings: about 75 minutes
    python tools/results.py run table1 'adaround*'  # some, as does `make results RESULTS="table1 adaround*"`

A file is replaced when its command has ended well, and not before. What a machine cannot run is skipped, and named.
Trainings run only when they are named, because they replace weights that ship.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provenance import formatted, head, whole, write

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
DATA = "QLEARN_DATA"
"""The need for networks and pictures in the folder that this environment variable names; other needs are packages."""


class ResultError(Exception):
    """A command failed, or printed what does not belong into its file."""


@dataclass(frozen=True)
class Result:
    """A committed file and what makes it.

    Parameters
    ----------
    file : str
        From the root of the project. The name on the command line is this without folder and ending.
    commands : tuple of str
        As the file records them. ``qlearn`` prints its document, a tool takes ``--output``; with several commands,
        each replaces its own part of the file.
    minutes : int
        About how long they take together, on one core.
    needs : tuple of str
        ``"QLEARN_DATA"``, or packages to import.
    notes : dict
        What a ``qlearn`` command does not print and the file holds, after its date and command.
    """

    file: str
    commands: tuple[str, ...]
    minutes: int
    needs: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The name on the command line."""
        return Path(self.file).stem

    @property
    def is_training(self) -> bool:
        """Whether it replaces weights that ship, besides the file."""
        return self.file.startswith("tools/logs/")

    @property
    def missing(self) -> list[str]:
        """What this machine lacks for it."""
        return [need for need in self.needs if not _is_here(need)]


def _is_here(need: str) -> bool:
    return bool(os.environ.get(DATA)) if need == DATA else importlib.util.find_spec(need) is not None


def _result(name: str, *commands: str, minutes: int, needs: Sequence[str] = (), **notes: str) -> Result:
    return Result(f"notebooks/results/{name}.json", commands, minutes, tuple(needs), tuple(notes.items()))


def _training(name: str, command: str, minutes: int, *needs: str) -> Result:
    return Result(f"tools/logs/{name}.json", (f"python tools/{command} {name}",), minutes, needs)


_PHOTOS = "650 photographs of the ImageNet validation set; calibrated on 200 other ones"
_SETS = "python tools/calibration_data.py"
_DIGITS = "--pool 500 --pictures 200 --draws 5 --clusterings 2 --invented 1 --distilled 16 --iterations 150"

RESULTS: tuple[Result, ...] = (
    _result("activations", "python tools/activation_study.py", minutes=7),
    _result(
        "adaround_mobilenet_v1_0.25",
        "python tools/adaround.py mobilenet_v1_0.25 --weights 8:per_tensor:minmax 8:per_channel:minmax "
        "4:per_channel:mse --iterations 1000",
        minutes=3,
        needs=[DATA],
    ),
    _result(
        "adaround_resnet20",
        "python tools/adaround.py resnet20 --weights 8:per_channel:minmax 4:per_channel:mse --iterations 1000",
        minutes=3,
        needs=[DATA],
    ),
    _result(
        "calibration_data",
        f"{_SETS} mobilenet_v1_0.25 --pool 400 --pictures 150 --draws 3 --clusterings 1 --invented 1 --distilled 16 "
        "--iterations 60 --recipes '8 mse'",
        f"{_SETS} tiny_mobilenet {_DIGITS}",
        f"{_SETS} tiny_resnet {_DIGITS}",
        minutes=5,
        needs=[DATA],
    ),
    _result("calibration_size_tiny_resnet", "python tools/calibration_size.py --draws 10 --pictures 1000", minutes=6),
    _result(
        "calibrators_mobilenet_v1_0.25",
        "qlearn compare mobilenet_v1_0.25 --json",
        minutes=4,
        needs=[DATA],
        pictures=f"{_PHOTOS}, chosen on 800 more",
    ),
    _result("cpu_ratio", "python benchmarks/cpu_ratio.py", minutes=1, needs=["onnxruntime", "onnx"]),
    _result("doctor_margins", "python tools/doctor_margins.py", minutes=1, needs=[DATA]),
    _result(
        "mixed_precision_resnet20",
        "qlearn mixed resnet20 --budget 6bit 4bit --measure kl sqnr --search program --sensitivity-images 256 --json",
        minutes=15,
        needs=[DATA, "scipy"],
    ),
    _result(
        "mixed_precision_tiny_mobilenet",
        "qlearn mixed tiny_mobilenet --budget 6bit 4bit --measure kl sqnr hessian accuracy --search program greedy "
        "--sensitivity-images 256 --vectors 32 --pareto --json",
        minutes=10,
        needs=["scipy"],
    ),
    _result(
        "mobilenet_v1_0.25",
        "qlearn quantize mobilenet_v1_0.25 --weights per_tensor per_channel float --calibrator minmax --json",
        minutes=2,
        needs=[DATA],
        pictures=_PHOTOS,
    ),
    _result("repair_mobilenet_v1_0.25", "qlearn repair mobilenet_v1_0.25 --json", minutes=10, needs=[DATA]),
    _result(
        "runtimes",
        "python tools/runtimes.py --pictures 200",
        minutes=1,
        needs=["onnx", "onnxruntime", "ai_edge_litert"],
    ),
    _result("table1", "python tools/table1.py", minutes=10, needs=[DATA]),
    _training("tiny_resnet", "train_zoo.py", 10),
    _training("tiny_mobilenet", "train_zoo.py", 20),
    _training("tiny_mobilenet_w8a8", "train_qat.py", 10),
    _training("tiny_mobilenet_w4a8", "train_qat.py", 20),
    _training("resnet20_w8a8", "train_qat.py", 5, DATA),
    _training("resnet20_w4a4", "train_qat.py", 30, DATA),
    _training("resnet20_all4", "train_qat.py", 10, DATA),
)


def recorded(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the heads of a results file, one for each command: its own, or those of its networks."""
    heads: list[dict[str, Any]] = document["networks"] if "command" not in document else [document]
    return heads


def make(result: Result, folder: Path | None = None) -> Path:
    """Run what makes a file, and replace it; into another folder if told.

    Raises
    ------
    ResultError
        If a command fails, or the file would not record the commands that made it.
    """
    path = ROOT / result.file if folder is None else folder / Path(result.file).name
    if result.is_training:  # writes its files itself, whole
        _run(result.commands[0])
        return path
    with whole(path) as part:
        if path.exists():
            shutil.copy(path, part)  # where each command replaces its own part
        for command in result.commands:
            if command.startswith("qlearn "):
                write(part, formatted(_with_head(json.loads(_run(command)), command, dict(result.notes))))
            else:
                _run(f"{command} --output {shlex.quote(str(part))}")
        found = sorted(one["command"] for one in recorded(json.loads(part.read_text(encoding="utf-8"))))
        if found != sorted(result.commands):
            raise ResultError(f"{result.name}: the file would record {found}")
    return path


def _run(command: str) -> str:
    """Run a command from the root with this Python, its progress on the terminal; return what ``qlearn`` prints."""
    program, *words = shlex.split(command)
    own = [sys.executable, "-m", "qlearn"] if program == "qlearn" else [sys.executable]
    print(f"$ {command}", flush=True)
    done = subprocess.run(
        [*own, *words], cwd=ROOT, stdout=subprocess.PIPE if program == "qlearn" else None, text=True, check=False
    )
    if done.returncode != 0:
        raise ResultError(f"{command}: ended with {done.returncode}")
    return done.stdout or ""


def _with_head(document: dict[str, Any], command: str, notes: dict[str, str]) -> dict[str, Any]:
    """Put date, command and versions first; what the command printed itself stays as it is."""
    made = head(command)
    more = {"command": command, "versions": made["versions"] | document.get("versions", {})}
    return {key: document.get(key, made[key]) for key in made} | notes | document | more


def chosen(patterns: Sequence[str]) -> list[Result]:
    """Return the results that patterns name, or all that train nothing.

    Raises
    ------
    ResultError
        If a pattern names none.
    """
    if not patterns:
        return [one for one in RESULTS if not one.is_training]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(one.name, pattern) for one in RESULTS):
            raise ResultError(f"no result is called {pattern!r}: {', '.join(one.name for one in RESULTS)}")
    return [one for one in RESULTS if any(fnmatch.fnmatchcase(one.name, pattern) for pattern in patterns)]


def run(options: argparse.Namespace) -> int:
    """Make the chosen files one after the other; return 1 if one failed."""
    wanted, failed = chosen(options.names), 0
    print(f"{len(wanted)} results, about {sum(one.minutes for one in wanted if not one.missing)} minutes on one core")
    for position, result in enumerate(wanted, start=1):
        start = time.perf_counter()
        if result.missing:
            state = f"skipped: needs {', '.join(map(_remedy, result.missing))}"
        else:
            try:
                make(result, options.into)
                state = f"made in {(time.perf_counter() - start) / 60:.1f} minutes"
            except (ResultError, ValueError, KeyError) as error:
                failed, state = 1, f"FAILED, the old file is as it was: {error}"
        print(f"[{position}/{len(wanted)}] {result.name}: {state}", flush=True)
    return failed


def _remedy(need: str) -> str:
    if need == DATA:
        return "pictures and networks that do not ship, in the folder that QLEARN_DATA names"
    return f"the package {need} (pip install 'qlearn[runtimes,mixed]')"


def show(options: argparse.Namespace) -> int:
    """Print every file with its commands, minutes and needs."""
    for result in chosen(options.names) if options.names else RESULTS:
        needs = f", needs {', '.join(result.needs)}" if result.needs else ""
        print(f"{result.name}: about {result.minutes} minutes{needs}; {result.file}")
        for command in result.commands:
            print(f"    {command}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, action, text in (("list", show, "what made each file"), ("run", run, "make them again")):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(action=action)
        command.add_argument("names", nargs="*", metavar="NAME", help="of results, with * for any; default: all")
        if action is run:
            command.add_argument("--into", type=Path, metavar="FOLDER", help="write there, for a trial")
    options = parser.parse_args(argv)
    try:
        code: int = options.action(options)
    except ResultError as error:
        print(error, file=sys.stderr)
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
