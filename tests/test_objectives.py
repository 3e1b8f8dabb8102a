"""The instructor's page says what the chapters say."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

from qlearn.classroom import exercises

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGE = (ROOT / "book" / "instructors.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("objectives", ROOT / "tools" / "objectives.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_what_the_chapters_say(tool):
    assert tool.rendered(PAGE, NOTEBOOKS) == PAGE, "run python tools/objectives.py write"


def test_every_exercise_is_counted(tool):
    text = "".join(tool.objectives(path) for path in NOTEBOOKS)
    assert sum(map(int, re.findall(r"(\d+) exercises", text))) == len(exercises())


def test_every_timetable_names_chapters_that_exist():
    linked = re.findall(r"\(\.\./notebooks/([\w.]+)\)", PAGE)
    assert {path.name for path in NOTEBOOKS} >= set(linked)
    six_weeks = PAGE.split("## Six weeks")[1].split("\n## ")[0]
    assert len(set(re.findall(r"notebooks/(\d\d)", six_weeks))) == 12


@pytest.mark.parametrize(
    "text", ["no title", "# 03 Title\n\nTime: about 30 minutes.", "# 03 T\n\n**You will be able to**\n\n- a\n"]
)
def test_chapter_without_promise_is_named(tool, tmp_path, text):
    path = tmp_path / "03_x.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)]), path)
    with pytest.raises(tool.ChapterError, match=r"03_x\.ipynb"):
        tool.objectives(path)


def test_page_without_marks_is_refused(tool):
    with pytest.raises(tool.ChapterError, match="marks"):
        tool.rendered("# For instructors\n", NOTEBOOKS)
