"""The status page, the README's times and the notebooks say the same."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# 99 Waiting\n\nText."},
        {"cell_type": "markdown", "id": "ex-99-1", "metadata": {}, "source": "## Exercise 99.1: wait"},
        {
            "cell_type": "code",
            "id": "ex-99-1-answer",
            "metadata": {},
            "execution_count": 1,
            "source": "x = bytearray(300 * 2**20)\nx[::4096] = b'1' * len(x[::4096])\n"
            "import time\ntime.sleep(0.5)\nprint('done')",
            "outputs": [{"output_type": "stream", "name": "stdout", "text": "done\n"}],
        },
    ],
}


@pytest.fixture(scope="module")
def tool():
    pytest.importorskip("psutil")
    pytest.importorskip("resource")
    spec = importlib.util.spec_from_file_location("qlearn_tools_status", ROOT / "tools" / "status.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def status():
    return json.loads((ROOT / "book" / "status.json").read_text(encoding="utf-8"))


def saved(folder, notebook):
    path = folder / "99_waiting.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return path


def test_every_notebook_has_a_row(status):
    names = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    assert [chapter["name"] for chapter in status["chapters"]] == names, "make status"


def test_titles_and_counts_are_those_of_the_notebooks(tool, status):
    assert tool.recounted(status) == status, "run python tools/status.py --write"


def test_the_page_is_written_from_the_numbers(tool, status):
    assert (ROOT / "book" / "status.md").read_text(encoding="utf-8") == tool.page(status)


def test_the_readme_has_the_measured_times(tool, status):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == tool.with_times(readme, status)
    for chapter in status["chapters"]:
        wanted = rf"\(notebooks/{chapter['name']}\.ipynb\).*\| {tool.spoken(chapter['seconds'])} \|$"
        assert re.search(wanted, readme, re.MULTILINE), chapter["name"]


def test_the_numbers_name_no_machine(status):
    assert not re.search(r"/(home|work|root|tmp|Users)\b", json.dumps(status))


def test_a_chapter_is_measured(tool, tmp_path):
    pytest.importorskip("nbval")
    path = saved(tmp_path, NOTEBOOK)
    found = tool.measure(path)
    assert tool.facts(path) == {
        "name": "99_waiting",
        "title": "99 Waiting",
        "cells": 3,
        "code_cells": 1,
        "exercises": 1,
    }
    assert found["seconds"] > 0.5
    assert 0 < found["cpu_seconds"] < found["seconds"] + 5
    assert 300 < found["peak_mib"] < 600  # what the cell holds, and a kernel


def test_a_chapter_that_prints_something_else_has_no_time(tool, tmp_path):
    pytest.importorskip("nbval")
    spoilt = copy.deepcopy(NOTEBOOK)
    spoilt["cells"][2] |= {"source": "print('else')"}
    with pytest.raises(tool.StatusError, match=r"99_waiting\.ipynb failed"):
        tool.measure(saved(tmp_path, spoilt))


def test_what_exceeds_a_bound_is_named(tool, status):
    kept = copy.deepcopy(status) | {"chapters": [{"name": "a", "seconds": 60.0, "peak_mib": 2048}]}
    assert tool.exceeded(kept) == ["All were kept."]
    slow = kept | {"chapters": [{"name": "a", "seconds": 61.0, "peak_mib": 2049}]}
    assert tool.exceeded(slow) == ["a took 61 s.", "a took 2049 MiB."]
    many = kept | {"chapters": [{"name": f"c{i}", "seconds": 60.0, "peak_mib": 1} for i in range(8)]}
    assert tool.exceeded(many) == ["All together took 8.0 minutes."]


@pytest.mark.parametrize(("seconds", "said"), [(0.2, 5), (5.0, 5), (5.1, 10), (44.9, 45), (60.0, 60)])
def test_times_are_rounded_up_to_five_seconds(tool, seconds, said):
    assert tool.spoken(seconds) == f"about {said} s"


def test_only_rows_of_measured_chapters_change(tool):
    status = {"chapters": [{"name": "01_a", "seconds": 12.0}]}
    text = "| [1](notebooks/01_a.ipynb) | 2 | x | – |\n| [2](notebooks/02_b.ipynb) | 2 | y | – |\nand so on |\n"
    new = "| [1](notebooks/01_a.ipynb) | 2 | x | about 15 s |\n| [2](notebooks/02_b.ipynb) | 2 | y | – |\nand so on |\n"
    assert tool.with_times(text, status) == new
