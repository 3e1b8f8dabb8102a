"""Write the students' copies of the chapters: ``python tools/student.py`` fills the folder ``student/``.

``notebooks/`` is the teacher's copy, and the only one that is written by hand: solutions and outputs included.
A student's copy has neither. With ``--grade`` the folder is a course of nbgrader: one assignment for each chapter,
in which every exercise has a cell that fails until it is solved. Points are the exercise's difficulty.
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

if TYPE_CHECKING:
    from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
SCHEMA = 3
"""The version of nbgrader's cell metadata."""

CONFIGURATION = """\
from nbgrader.converters import GenerateAssignment

c = get_config()
c.CourseDirectory.course_id = "qlearn"
# The stubs of the exercises run, and no solution is left to clear: nbgrader would put a stub of its own there.
c.GenerateAssignment.preprocessors = [
    one for one in GenerateAssignment().preprocessors if one.__name__ != "ClearSolutions"
]
c.ExecutePreprocessor.timeout = 300  # seconds for one cell
"""
"""What nbgrader has to know about the course."""


_POINTER = "\nThe solution is in the collapsed cell after that."


def student_copy(notebook: NotebookNode, *, grade: bool = False) -> NotebookNode:
    """Return a chapter without solutions and outputs.

    Parameters
    ----------
    notebook : NotebookNode
        The teacher's copy. Not changed.
    grade : bool
        Add nbgrader's metadata, and after each check a cell that counts.

    Raises
    ------
    ValueError
        If an exercise does not say how difficult it is.
    """
    student = copy.deepcopy(notebook)
    student.cells = []
    points: dict[str, int] = {}
    for cell in copy.deepcopy(notebook.cells):
        tags = cell.metadata.get("tags", [])
        if "solution" in tags:
            continue
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        elif re.fullmatch(r"ex-\d+-\d+", cell["id"]):
            points[cell["id"]] = _difficulty(cell.source)
        cell.source = cell.source.replace(_POINTER, "")
        student.cells.append(cell)
        if grade and "answer" in tags:
            cell.metadata["nbgrader"] = _mark(cell["id"], solution=True)
        if grade and "check" in tags:
            student.cells.append(_graded(cell, points))
    return student


def _difficulty(text: str) -> int:
    found = re.search(r"Difficulty (\d) of 3", text)
    if found is None:
        raise ValueError(f"no line 'Difficulty N of 3' in: {text.splitlines()[0]}")
    return int(found[1])


def _graded(check: NotebookNode, points: dict[str, int]) -> NotebookNode:
    """The cell that counts: it checks once more, because only this one is locked, and raises if the answer is wrong."""
    exercise = check["id"].removesuffix("-check")
    _, chapter, number = exercise.split("-")
    source = f'{check.source}\nassert passed, "exercise {chapter}.{number} is not solved yet"'
    cell = nbformat.v4.new_code_cell(source)
    cell["id"] = f"{exercise}-grade"
    cell.metadata["tags"] = ["raises-exception"]  # "Run all" goes on
    cell.metadata["nbgrader"] = _mark(cell["id"], grade=True, locked=True) | {"points": points[exercise]}
    return cell


def _mark(name: str, **roles: bool) -> dict[str, Any]:
    return {"grade": False, "locked": False, "solution": False, "task": False, "schema_version": SCHEMA} | {
        "grade_id": name,
        **roles,
    }


def write_course(into: Path, *, grade: bool = False) -> int:
    """Write the copy of every chapter.

    Parameters
    ----------
    into : Path
        The folder to fill: ``NN_name.ipynb``, or with `grade` ``source/NN/NN_name.ipynb`` and ``nbgrader_config.py``.
    grade : bool

    Returns
    -------
    int
        How many chapters there are.
    """
    chapters = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for path in chapters:
        folder = into / "source" / path.name[:2] if grade else into
        folder.mkdir(parents=True, exist_ok=True)
        copied = student_copy(nbformat.read(path, as_version=4), grade=grade)
        nbformat.validate(copied)
        nbformat.write(copied, folder / path.name)
    if grade:
        (into / "nbgrader_config.py").write_text(CONFIGURATION, encoding="utf-8")
    return len(chapters)


def main(argv: list[str] | None = None) -> int:
    """Write the copies, and say where they are."""
    parser = argparse.ArgumentParser(
        description="Write the students' copies of the chapters: no solutions, no outputs."
    )
    parser.add_argument("--into", type=Path, default=ROOT / "student", metavar="FOLDER", help="default: student/")
    parser.add_argument("--grade", action="store_true", help="a course for nbgrader, with cells that count")
    options = parser.parse_args(argv)
    count = write_course(options.into, grade=options.grade)
    course = ", a course for nbgrader" if options.grade else ""
    print(f"{count} chapters without solutions: {options.into.name}/{course}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
