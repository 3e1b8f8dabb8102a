"""Keep the instructor's page true: ``python tools/objectives.py write`` or ``check``.

Title, time, learning objectives and points of every chapter stand in the chapters themselves.
This copies them into the part of ``book/instructors.md`` that lies between two marks.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "book" / "instructors.md"
BEGIN, END = "<!-- objectives: written by tools/objectives.py -->", "<!-- end of objectives -->"


class ChapterError(Exception):
    """A chapter lacks its title, time or objectives; the message names it."""


def objectives(path: Path) -> str:
    """Return what a chapter promises, as a section in Markdown.

    Parameters
    ----------
    path : Path
        A notebook of the course.

    Raises
    ------
    ChapterError
        If the chapter has no title, no time, or no list of objectives.
    """
    cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
    text = "\n\n".join(cells)
    title = re.match(r"# (\d\d [^:\n]+)", text)
    minutes = re.search(r"^Time: about (\d+) minutes", text, re.MULTILINE)
    promise = re.search(r"\*\*You will be able to\*\*\n\n((?:- .*\n)+)", text)
    if not (title and minutes and promise):
        raise ChapterError(f"{path.name}: wants '# NN Title', 'Time: about N minutes' and '**You will be able to**'")
    points = [int(found) for found in re.findall(r"\*Difficulty (\d) of 3\.\*", text)]
    return (
        f"### [{title[1]}](../notebooks/{path.name})\n\n"
        f"{minutes[1]} minutes, {len(points)} exercises, {sum(points)} points.\nYou will be able to\n\n{promise[1]}"
    )


def rendered(page: str, notebooks: list[Path]) -> str:
    """Return the page with its objectives as the chapters have them.

    Raises
    ------
    ChapterError
        If the marks are missing, or a chapter is incomplete.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ChapterError(f"{PAGE.name}: the marks {BEGIN!r} and {END!r} are missing")
    sections = "\n".join(objectives(path) for path in notebooks)
    return f"{before}{BEGIN}\n\n{sections}\n{END}{after}"


def main() -> int:
    """Write the page, or say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("write", "check"))
    action = parser.parse_args().action
    page = PAGE.read_text(encoding="utf-8")
    try:
        wanted = rendered(page, sorted((ROOT / "notebooks").glob("*.ipynb")))
    except ChapterError as error:
        print(error, file=sys.stderr)
        return 1
    if action == "write":
        PAGE.write_text(wanted, encoding="utf-8")
    elif page != wanted:
        print(f"{PAGE.name} is not what the chapters say: run python tools/objectives.py write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
