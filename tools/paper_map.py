"""The map from the paper to the course: ``python tools/paper_map.py write`` or ``check``.

`book/paper_map.toml` says, for everything in the paper, which cells teach it, what holds it, where it is in the
library, and which slip of the paper it touches. This script follows every reference in it, and renders
`book/paper_map.md`.

A row has these fields:

what     the section, equation, figure, method, ...
note     what more there is to say about it; optional, but a row without a name of the library needs one
cells    ``c03-024``; ``04/real-photographs`` for an id without its chapter; ``c05-035#Correct the bias`` or
         ``09#The procedure`` name a heading; ``book/errata.md#print`` a page of the book
held     ``tests/…/test_x.py::test_name``, ``benchmarks/…``, ``nbval c03-024`` for the compared output of a cell,
         ``doctest book/errata.md``
library  dotted names; ``family nasnet`` or ``load resnet20`` for networks of the zoo
errata   anchors of `book/errata.md`
"""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import json
import pkgutil
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DATA, PAGE = ROOT / "book" / "paper_map.toml", ROOT / "book" / "paper_map.md"
CHAPTERS = "What each chapter is about. The picture above also has the sections that it teaches on the way."

TABLES = {
    "sections": "Sections",
    "equations": "Equations",
    "figures": "Figures",
    "tables": "Tables",
    "methods": "Methods",
    "architectures": "Architectures",
    "functions": "Activation functions",
    "tools": "Tools and hardware",
    "references": "References",
}
"""Tables of the data, in the order of the page, and their headings."""


class MapError(Exception):
    """A reference of the map leads nowhere; the message names the row."""


def slug(title: str, taken: set[str] | None = None) -> str:
    """Return the anchor that the book gives to a heading, as MyST does: a number is added where it is taken."""
    first = re.sub(r"[^\w\u4e00-\u9fff\- ]", "", title.lower().replace(" ", "-"))
    found, count = first, 0
    while taken is not None and found in taken:
        count += 1
        found = f"{first}-{count}" if count == 1 else f"{found}-{count}"
    if taken is not None:
        taken.add(found)
    return found


def headings(text: str) -> list[str]:
    """Titles of the headings that get an anchor (three levels), without marks of emphasis or code."""
    text = re.sub(r"^(`{3,}|~{3,}).*?^\1`*\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [re.sub(r"[*`]", "", title.strip()) for title in re.findall(r"^#{1,3} (.+)$", text, flags=re.MULTILINE)]


@functools.cache
def data() -> dict[str, Any]:
    """Everything in `book/paper_map.toml`."""
    return tomllib.loads(DATA.read_text(encoding="utf-8"))


def notebook(chapter: str) -> Path:
    """The file of a chapter."""
    if chapter not in data()["chapters"]:
        raise MapError(f"there is no chapter {chapter!r}")
    return ROOT / "notebooks" / f"{data()['chapters'][chapter]['file']}.ipynb"


@functools.cache
def cells(chapter: str) -> dict[str, tuple[dict[str, Any], dict[str, str]]]:
    """Cell id -> the cell, and title -> anchor of its headings; without any of its own, of the last one before it."""
    found: dict[str, tuple[dict[str, Any], dict[str, str]]] = {}
    taken: set[str] = set()
    current: dict[str, str] = {}
    for cell in json.loads(notebook(chapter).read_text(encoding="utf-8"))["cells"]:
        titles = headings("".join(cell["source"])) if cell["cell_type"] == "markdown" else []
        own = {title: slug(title, taken) for title in titles}
        found[cell["id"]] = cell, own or dict([list(current.items())[-1]])
        current = own or current
    return found


@functools.cache
def anchors(page: str) -> dict[str, str]:
    """Anchor -> title of each heading of a page of the book."""
    taken: set[str] = set()
    return {slug(title, taken): title for title in headings((ROOT / page).read_text(encoding="utf-8"))}


def place(reference: str) -> tuple[str, str, str]:
    """Split ``c03-024#Heading`` into chapter, cell id and heading; what is not said is empty."""
    where, _, heading = reference.partition("#")
    chapter, _, cell = where.rpartition("/")
    if re.fullmatch(r"\d\d", where):
        return where, "", heading
    if not chapter and (found := re.fullmatch(r"c(\d\d)-\d{3}", cell)):
        chapter = found[1]
    return chapter, cell, heading


def taught(reference: str) -> str:
    """Render a cell as a link to its heading."""
    if reference.startswith("book/"):
        page, _, anchor = reference.partition("#")
        title = anchors(page).get(anchor)
        if title is None:
            raise MapError(f"{page} has no anchor {anchor!r}")
        return f"[{title}]({page.removeprefix('book/')}#{anchor})"
    chapter, cell, heading = place(reference)
    known = cells(chapter)
    if cell and cell not in known:
        raise MapError(f"{notebook(chapter).name} has no cell {cell!r}")
    titles = known[cell][1] if cell else {t: a for _, found in known.values() for t, a in found.items()}
    if heading and heading not in titles:
        raise MapError(f"{notebook(chapter).name} has no heading {heading!r}" + (f" at {cell}" if cell else ""))
    title = heading or next(iter(titles))
    link = f"[{chapter} {re.sub(r'^[0-9]+ ', '', title)}](../notebooks/{notebook(chapter).name}#{titles[title]})"
    return f"{link} `{cell}`" if cell else link


@functools.cache
def tests_in(path: str) -> frozenset[str]:
    """Names of the test functions in a file."""
    if not (ROOT / path).is_file():
        raise MapError(f"there is no {path}")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name.startswith("test_"))


def held(reference: str) -> str:
    """Render what holds a row: a test, the compared output of a cell, or a page whose examples run."""
    kind, _, rest = reference.partition(" ")
    if kind == "nbval":
        chapter, cell, _ = place(rest)
        if not is_compared(cells(chapter).get(cell, ({}, {}))[0]):
            raise MapError(f"nbval compares no printed output of {rest!r}")
        return f"nbval of `{cell}`"
    if kind == "doctest":
        if ">>>" not in (ROOT / rest).read_text(encoding="utf-8"):
            raise MapError(f"{rest} has no examples")
        return f"doctest, `{rest}`"
    path, _, name = reference.partition("::")
    if name not in tests_in(path):
        raise MapError(f"{path} has no test {name!r}")
    return f"`{path}::{name}`"


def is_compared(cell: dict[str, Any]) -> bool:
    """Whether nbval compares something that a reader can read: printed lines, or HTML."""
    if cell.get("cell_type") != "code" or "nbval-ignore-output" in cell["metadata"].get("tags", []):
        return False
    return any("text" in output or "text/html" in output.get("data", {}) for output in cell["outputs"])


def named(reference: str) -> str:
    """Render a name of the library as a link into the API reference."""
    from qlearn.zoo.load import available
    from qlearn.zoo.models.families import FAMILIES

    kind, _, name = reference.partition(" ")
    if name:
        known = {"family": FAMILIES, "load": [entry.name for entry in available()]}[kind]
        if name not in known:
            raise MapError(f"no {kind} is called {name!r}")
        return f'`{"ql.load" if kind == "load" else "family"}("{name}")`'
    try:
        target = pkgutil.resolve_name(reference)
    except (ImportError, AttributeError, ValueError) as error:
        raise MapError(f"{reference}: {error}") from None
    return f"{{py:{role_of(target)}}}`{'' if inspect.ismodule(target) else '~'}{reference}`"


def role_of(target: object) -> str:
    """Return the role of Sphinx that links to an object."""
    if inspect.ismodule(target):
        return "mod"
    if inspect.isclass(target):
        return "class"
    if inspect.isfunction(target):
        return "meth" if "." in target.__qualname__ else "func"
    return "attr" if isinstance(target, property) else "data"


def slip(anchor: str) -> str:
    """Render a link to an erratum."""
    if anchor not in anchors("book/errata.md"):
        raise MapError(f"book/errata.md has no anchor {anchor!r}")
    return f"[{anchors('book/errata.md')[anchor]}](errata.md#{anchor})"


FIELDS = {
    "cells": ("taught in", taught),
    "held": ("held by", held),
    "library": ("in the library", named),
    "errata": ("slips", slip),
}
"""Fields of a row, in the order of the page: the word before them, and how each reference is followed and rendered."""


def row(record: dict[str, Any]) -> str:
    """Render one row; every reference is followed.

    Raises
    ------
    MapError
        If one leads nowhere, or a field is empty.
    """
    what = record["what"]
    try:
        missing = [field for field in ("cells", "held") if not record.get(field)]
        if not record.get("library") and not record.get("note"):
            missing.append("library, or a note that says why not")
        if missing or (unknown := set(record) - {"what", "note", "cells", "held", "library", "errata"}):
            raise MapError(f"empty: {', '.join(missing)}" if missing else f"unknown fields: {sorted(unknown)}")
        lines = [
            f"*{label}* " + ", ".join(render(reference) for reference in record[field])
            for field, (label, render) in FIELDS.items()
            if record.get(field)
        ]
    except MapError as error:
        raise MapError(f"{what}: {error}") from None
    name = f"**{what}**" + (f"<br>{record['note']}" if record.get("note") else "")
    return f"| {name} | {'<br>'.join(lines)} |"


def chapters() -> list[str]:
    """Render the table of chapters."""
    lines = ["| chapter | paper |", "|---|---|"]
    for number, chapter in data()["chapters"].items():
        link = f"[{number} {chapter['title']}](../notebooks/{chapter['file']}.ipynb)"
        lines.append(f"| {link} | {chapter['paper']} |")
    return lines


def page() -> str:
    """Render the whole page.

    Raises
    ------
    MapError
        If a reference leads nowhere.
    """
    lines = [data()["head"], "## Chapters", "", CHAPTERS, "", *chapters(), ""]
    for table, heading in TABLES.items():
        lines += [f"## {heading}", ""]
        if introduction := data().get("introductions", {}).get(table):
            lines += [introduction.strip(), ""]
        lines += ["| what | where |", "|---|---|"]
        lines += [row(record) for record in data()[table]] + [""]
    return "\n".join(lines).rstrip() + "\n"


def coverage() -> dict[str, set[str]]:
    """Section -> the chapters that its row names, for sections with a number."""
    found: dict[str, set[str]] = {}
    for record in data()["sections"]:
        if number := re.match(r"(\d(?:\.\d)?) ", record["what"]):
            named_here = {place(reference)[0] for reference in record["cells"] if not reference.startswith("book/")}
            found.setdefault(number[1], set()).update(named_here)
    return found


def main() -> int:
    """Write the page, or say that it is not what would be written now."""
    parser = argparse.ArgumentParser(description="The map from the paper to the course.")
    parser.add_argument("action", choices=["write", "check"])
    writes = parser.parse_args().action == "write"
    try:
        text = page()
    except MapError as error:
        print(error, file=sys.stderr)
        return 1
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    if writes:
        PAGE.write_text(text, encoding="utf-8")
        print(f"book/{PAGE.name}: written")
        return 0
    print(f"book/{PAGE.name} is not what would be written now: python tools/paper_map.py write", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
