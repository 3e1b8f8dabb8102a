"""Students' copies: no solution, no output, everything else as it is; nbgrader finds what it needs."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

import qlearn as ql
from qlearn.classroom import exercises

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("student", ROOT / "tools" / "student.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_nothing_is_lost_but_solutions_and_outputs(tool, path):
    teacher = nbformat.read(path, 4)
    before = nbformat.writes(teacher)
    student = tool.student_copy(teacher)
    assert nbformat.writes(teacher) == before
    kept = [cell for cell in teacher.cells if "solution" not in cell.metadata.get("tags", [])]
    pointer = "\nThe solution is in the collapsed cell after that."  # there is none in a student's copy
    assert sum(pointer in cell.source for cell in kept) == 1
    assert [(cell["id"], cell.source, cell.metadata) for cell in student.cells] == [
        (cell["id"], cell.source.replace(pointer, ""), cell.metadata) for cell in kept
    ]
    assert all(
        cell.outputs == [] and cell.execution_count is None for cell in student.cells if cell.cell_type == "code"
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_no_line_of_a_solution_stands_in_an_exercise(tool, path):
    teacher = nbformat.read(path, 4)
    left = "\n".join(cell.source for cell in tool.student_copy(teacher).cells if cell["id"].startswith("ex-"))
    assert "# Solution" not in left
    for cell in teacher.cells:
        if "solution" in cell.metadata.get("tags", []):
            body = [line.strip() for line in cell.source.splitlines() if "ql.check" not in line]
            secret = [line for line in body if line.startswith(("return ", "answer = "))]
            assert secret
            assert not any(re.search(rf"^\s*{re.escape(line)}$", left, re.MULTILINE) for line in secret)


def test_every_exercise_counts_once(tool):
    points = {}
    for path in NOTEBOOKS:
        student = tool.student_copy(nbformat.read(path, 4), grade=True)
        nbformat.validate(student)
        names = [cell.metadata.nbgrader.grade_id for cell in student.cells if "nbgrader" in cell.metadata]
        assert len(names) == len(set(names))
        for before, cell in zip(student.cells, student.cells[1:], strict=False):
            mark = cell.metadata.get("nbgrader", {})
            if mark.get("grade"):
                assert mark.locked
                assert "check" in before.metadata.tags
                assert before.source.startswith("passed = ql.check(")
                number = cell["id"].split("-")[1:3]
                points[".".join(number)] = mark.points
    assert set(points) == set(exercises())
    assert set(points.values()) == {1, 2, 3}


def test_the_counting_cell_raises_until_solved(tool):
    student = tool.student_copy(nbformat.read(NOTEBOOKS[0], 4), grade=True)
    cell = next(cell for cell in student.cells if cell["id"] == "ex-00-1-grade")
    cheat = {"ql": ql, "passed": True, "weight_bytes": lambda weights, bits: 0}
    with pytest.raises(AssertionError, match=re.escape("exercise 00.1 is not solved yet")):
        exec(cell.source, cheat)
    exec(cell.source, {"ql": ql, "weight_bytes": lambda weights, bits: -(-weights * bits // 8)})


def test_the_command_writes_one_copy_of_each_chapter(tool, tmp_path, capsys):
    assert tool.main(["--into", str(tmp_path / "copies")]) == 0
    assert sorted(path.name for path in (tmp_path / "copies").iterdir()) == [path.name for path in NOTEBOOKS]
    assert capsys.readouterr().out == f"{len(NOTEBOOKS)} chapters without solutions: copies/\n"


def test_the_command_writes_a_course_for_nbgrader(tool, tmp_path, capsys):
    assert tool.main(["--into", str(tmp_path), "--grade"]) == 0
    found = sorted(tmp_path.glob("source/*/*.ipynb"))
    assert [(path.parent.name, path.name) for path in found] == [(path.name[:2], path.name) for path in NOTEBOOKS]
    assert capsys.readouterr().out.endswith(", a course for nbgrader\n")
    compile((tmp_path / "nbgrader_config.py").read_text(), "nbgrader_config.py", "exec")


def test_an_exercise_without_difficulty_is_named(tool):
    cell = nbformat.v4.new_markdown_cell("### Exercise 99.1: nothing\n\nDo it.", id="ex-99-1")
    with pytest.raises(ValueError, match=r"Exercise 99\.1"):
        tool.student_copy(nbformat.v4.new_notebook(cells=[cell]))
