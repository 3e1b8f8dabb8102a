"""A Sphinx extension that fills the plugin directory from ``qlearn plugins --json``, at every build.

The page holds a comment where a table is wanted. The example packages need not be installed: they are asked
in a process of their own, which finds them beside what a package manager would have written about them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
PAGE = "book/plugin_directory"
BUILT_IN, EXAMPLES = "<!-- table: built in -->", "<!-- table: examples -->"


def records(*options: str, folders: tuple[Path, ...] = ()) -> list[dict[str, Any]]:
    """Return what ``qlearn plugins --json`` says, with more folders on the path."""
    path = os.pathsep.join([*map(str, folders), str(ROOT)])
    command = [sys.executable, "-m", "qlearn", "plugins", "--json", *options]
    environment = os.environ | {"PYTHONPATH": path}
    environment.pop("QLEARN_LOAD_PLUGINS", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    return list(json.loads(done.stdout)["plugins"])


def built_in() -> str:
    """Return the table of what the library brings."""
    head = ["| kind | name | what it does | source |", "|---|---|---|---|"]
    return "\n".join(head + [_row(record) for record in records("--builtin")])


def examples() -> str:
    """Return the table of the example packages in ``plugins/``."""
    sources = sorted(ROOT.glob("plugins/*/pyproject.toml"))
    projects = [tomllib.loads(path.read_text(encoding="utf-8"))["project"] for path in sources]
    with tempfile.TemporaryDirectory() as name:
        for project in projects:
            _describe(project, Path(name))
        rows = records("--third-party", folders=(Path(name), *(path.parent for path in sources)))
    head = ["| package | kind | name | what it does | source |", "|---|---|---|---|---|"]
    ours = [row for row in rows if row["provider"] in {project["name"] for project in projects}]
    return "\n".join(head + [f"| `{row['provider']}` {row['version']} {_row(row)}" for row in ours])


def _row(record: dict[str, Any]) -> str:
    return "| {kind} | `{name}` | {summary} | {0} |".format(record["reference"] or "–", **record)


def _describe(project: dict[str, Any], folder: Path) -> None:
    """Write what an installed package has beside its code: its name, its version and its entry points."""
    facts = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    lines = [f"{name} = {module}" for name, module in project["entry-points"]["qlearn"].items()]
    (facts / "entry_points.txt").write_text("\n".join(["[qlearn]", *lines, ""]), encoding="utf-8")


def fill(text: str) -> str:
    """Put the tables where the page wants them."""
    return text.replace(BUILT_IN, built_in()).replace(EXAMPLES, examples())


def setup(app: Sphinx) -> dict[str, Any]:
    """Let Sphinx call this extension."""

    def read(_app: Sphinx, name: str, source: list[str]) -> None:
        if name == PAGE:
            source[0] = fill(source[0])

    app.connect("source-read", read)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
