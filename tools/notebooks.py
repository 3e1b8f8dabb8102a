"""Run the chapters and keep them in one canonical form: ``python tools/notebooks.py run`` or ``check``.

``run`` executes notebooks from top to bottom and writes them back with their outputs.
Two runs give the same bytes: no times, no random cell ids, no metadata but those that somebody wrote.
``check`` executes them too, changes nothing, and says where the committed outputs differ, pictures included.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import difflib
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nbformat import NotebookNode

FOLDER = Path(__file__).parents[1] / "notebooks"
TIMEOUT = 300  # seconds for one cell
KEPT_METADATA = ("jupyter", "mystnb", "tags")
SHORTEST_ALT = 20  # characters; an alternative text is longer than that
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}


class NotebookError(Exception):
    """A notebook cannot be read or run; the message names it and the cell."""


def read(path: Path) -> NotebookNode:
    """Read a notebook.

    Raises
    ------
    NotebookError
        If it is missing, or no notebook of format 4.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        taken: set[str] = set()
        for number, cell in enumerate(raw["cells"], start=1):
            cell["id"] = _cell_id(cell.get("id"), number, taken)  # before nbformat gives random ones
        raw["nbformat_minor"] = 5
        return nbformat.reads(json.dumps(raw), as_version=4)
    except OSError as error:
        raise NotebookError(f"{path.name}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, nbformat.ValidationError) as error:
        raise NotebookError(f"{path.name}: not a notebook ({str(error).splitlines()[0]})") from error


def canonical(notebook: NotebookNode) -> str:
    """Return a notebook as text, in the one form in which chapters are committed.

    Parameters
    ----------
    notebook : NotebookNode
        Not changed.

    Returns
    -------
    str
        JSON with sorted keys, one space of indentation and a newline at the end.
    """
    kept = copy.deepcopy(notebook)
    kept.metadata = nbformat.from_dict(NOTEBOOK_METADATA)
    for cell in kept.cells:
        cell.metadata = nbformat.from_dict({k: cell.metadata[k] for k in KEPT_METADATA if cell.metadata.get(k)})
        if cell.cell_type == "code":
            cell.outputs = _merged_streams(cell.outputs)
    nbformat.validate(kept)
    return str(nbformat.writes(kept, version=4)).rstrip("\n") + "\n"


def _cell_id(found: str | None, number: int, taken: set[str]) -> str:
    """Keep the id of a cell; one without gets its number."""
    cell_id = found or f"cell-{number}"
    while cell_id in taken:
        cell_id += "-again"
    taken.add(cell_id)
    return cell_id


def _merged_streams(outputs: Sequence[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring prints: how the kernel cuts them depends on its haste."""
    merged: list[NotebookNode] = []
    for output in outputs:
        former = merged[-1] if merged else None
        if former and output.output_type == former.output_type == "stream" and output.name == former.name:
            former.text += output.text
        else:
            merged.append(output)
    return merged


def executed(path: Path, timeout: int = TIMEOUT) -> NotebookNode:
    """Run a notebook in a fresh kernel and return it with its new outputs; the file stays as it is.

    Raises
    ------
    NotebookError
        If a cell raises, takes too long or ends the kernel.
    """
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = _Client(notebook, path, timeout)
    try:
        with _environment(PYTHONHASHSEED="0"):
            client.execute(cwd=str(path.parent))
    except CellExecutionError as error:
        raise NotebookError(f"{client.place()}: {error.ename}: {error.evalue}") from error
    except CellTimeoutError as error:
        raise NotebookError(f"{client.place()}: took more than {timeout} s") from error
    except DeadKernelError as error:
        raise NotebookError(f"{client.place()}: the kernel died") from error
    return notebook


class _Client(NotebookClient):  # type: ignore[misc]  # nbclient has no types
    """Runs the cells, remembers which one is running, and shows it where somebody watches."""

    def __init__(self, notebook: NotebookNode, path: Path, timeout: int) -> None:
        quiet = ["--IPKernelApp.log_level=40"]
        super().__init__(notebook, kernel_name="python3", timeout=timeout, record_timing=False, extra_arguments=quiet)
        self.path, self.running = path, -1
        self.on_cell_start = self._started

    def _started(self, cell: NotebookNode, cell_index: int) -> None:
        self.running = cell_index
        if sys.stderr.isatty():
            print(f"\r{self.path.name}: cell {cell_index + 1} of {len(self.nb.cells)} ", end="", file=sys.stderr)

    def place(self) -> str:
        """Return notebook, cell and first line of it."""
        if self.running < 0:
            return f"{self.path.name}, before the first cell"
        lines = self.nb.cells[self.running].source.strip().splitlines() or [""]
        return f"{self.path.name}, cell {self.running + 1} ({lines[0][:60]})"


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    former = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in former.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def missing_alt_texts(notebook: NotebookNode) -> list[int]:
    """Return the numbers (from 1) of cells that show a picture without a text for those who cannot see it.

    The text stands in the metadata of the cell, where the book looks for it:
    ``{"mystnb": {"image": {"alt": "..."}}}``.
    """
    missing = []
    for number, cell in enumerate(notebook.cells, start=1):
        types = {mime for output in cell.get("outputs", []) for mime in output.get("data", {})}
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if any(mime.startswith("image/") for mime in types) and len(alt.strip()) <= SHORTEST_ALT:
            missing.append(number)
    return missing


def differences(path: Path, new: NotebookNode, *, images: bool = True) -> list[str]:
    """Say where a notebook's file and its newly executed form differ, a few lines for each cell."""
    old = read(path)
    found = []
    for number, (before, after) in enumerate(zip(old.cells, new.cells, strict=True), start=1):
        texts = [_shown(cell, images=images) for cell in (before, after)]
        if texts[0] != texts[1]:
            lines = list(difflib.unified_diff(*(t.splitlines() for t in texts), "committed", "now", lineterm="", n=1))
            found.append(f"{path.name}, cell {number}:\n" + "\n".join(f"    {line[:160]}" for line in lines[:20]))
    if not found and images and path.read_text(encoding="utf-8") != canonical(new):
        found.append(f"{path.name}: not in canonical form (metadata, ids or layout): run it")
    return found


def _shown(cell: NotebookNode, *, images: bool) -> str:
    """Return what a code cell shows as text; of a picture only its length and an excerpt."""
    outputs = _merged_streams(copy.deepcopy(cell.get("outputs", [])))
    shown = copy.deepcopy(outputs)
    for output in shown:
        for mime in list(output.get("data", {})):
            if mime.startswith("image/"):
                picture = re.sub(r"\s", "", output.data[mime])
                output.data[mime] = f"{len(picture)} characters, ends {picture[-40:]}" if images else "a picture"
    return json.dumps([cell.get("execution_count"), shown], indent=1, sort_keys=True).replace("\\n", "\n")


def run(path: Path, options: argparse.Namespace) -> list[str]:
    """Execute a notebook and write it back in canonical form; return what is wrong with it."""
    new = executed(path, options.timeout)
    text = canonical(new)
    if text != path.read_text(encoding="utf-8"):
        temporary = path.with_name(f".{path.name}.part")
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(path)
    return _alt_problems(path, new)


def check(path: Path, options: argparse.Namespace) -> list[str]:
    """Execute a notebook and return where it differs from its file."""
    new = executed(path, options.timeout)
    return differences(path, new, images=not options.ignore_images) + _alt_problems(path, new)


def _alt_problems(path: Path, notebook: NotebookNode) -> list[str]:
    wanted = f"metadata mystnb.image.alt of more than {SHORTEST_ALT} characters is missing"
    return [f"{path.name}, cell {number}: a picture, but {wanted}" for number in missing_alt_texts(notebook)]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line; return 1 if a notebook fails or differs."""
    options = _parser().parse_args(argv)
    paths = options.notebooks or sorted(FOLDER.glob("*.ipynb"))
    if not paths:
        print(f"no notebooks in {FOLDER.name}/", file=sys.stderr)
        return 1
    failed = 0
    for position, path in enumerate(paths, start=1):
        started = time.perf_counter()
        try:
            problems = options.action(path, options)
        except NotebookError as error:
            problems = [str(error)]
        failed += bool(problems)
        clear = "\r" + " " * 79 + "\r" if sys.stderr.isatty() else ""
        seconds = time.perf_counter() - started
        print(f"{clear}[{position}/{len(paths)}] {path.name}: {'FAILED' if problems else 'ok'}, {seconds:.1f} s")
        for problem in problems:
            print(problem, file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Run the chapters, or check that they still print what they show.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for action, text in ((run, "execute and write them back"), (check, "execute and compare, change nothing")):
        command = commands.add_parser(action.__name__, help=text, description=text)
        command.set_defaults(action=action)
        command.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="default: all in notebooks/")
        command.add_argument("--timeout", type=int, default=TIMEOUT, metavar="S", help="seconds for one cell")
        if action is check:
            command.add_argument(
                "--ignore-images", action="store_true", help="for another version of matplotlib than the pinned one"
            )
    return parser


if __name__ == "__main__":
    sys.exit(main())
