"""What nbval does not see: the form of the committed notebooks."""

from __future__ import annotations

import copy
import functools
import importlib.util
import itertools
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

MACHINE_PATH = re.compile(r"(?<![\w.])/(home|work|root|tmp|Users|opt|usr|mnt|var)/|[A-Z]:\\\\?Users")
DIRECTIVE = re.compile(r"^\s*(:{3,}|`{3,}|~{3,})\s*\{|^\([\w-]+\)=\s*$|\{[a-z]+(:[a-z]+)*\}`", re.MULTILINE)
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*$", re.MULTILINE | re.DOTALL)
LONGEST_CELL = 20  # lines of code that are not blank
LONGEST_LINE = 88  # characters of code: what the page shows without a scroll bar
LARGEST_FILE = 500_000  # bytes


def load_tool():
    name = "qlearn_tools_notebooks"
    if name not in sys.modules:
        pytest.importorskip("nbclient")
        spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / "notebooks.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def text_of(value):
    return value if isinstance(value, str) else "".join(value)


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def prose(notebook):
    """Markdown of all cells, without fenced examples."""
    cells = [text_of(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    return [FENCE.sub("", cell) for cell in cells]


def outputs(notebook):
    """(cell number from 1, cell, output) of every output."""
    cells = enumerate(notebook["cells"], start=1)
    return [(number, cell, output) for number, cell in cells for output in cell.get("outputs", [])]


def texts(output):
    """Everything of an output that a reader or a browser sees as text."""
    found = [text_of(output[key]) for key in ("text", "evalue") if key in output]
    found += output.get("traceback", [])
    data = output.get("data", {}).items()
    return found + [text_of(v) for mime, v in data if mime.startswith("text/") or mime == "image/svg+xml"]


# Rules: notebook -> what is wrong with it.


def counts_run_from_one(notebook):
    counts = [cell["execution_count"] for cell in code_cells(notebook) if text_of(cell["source"]).strip()]
    wanted = list(range(1, len(counts) + 1))
    return [] if counts == wanted else [f"execution counts are {counts}: run it from top to bottom"]


def some_output_exists(notebook):
    return [] if outputs(notebook) else ["no cell has an output: nbval would compare nothing"]


def errors_are_expected(notebook):
    return [
        f"cell {number}: {output['ename']}, and no tag raises-exception"
        for number, cell, output in outputs(notebook)
        if output["output_type"] == "error" and "raises-exception" not in cell["metadata"].get("tags", [])
    ]


def no_stderr(notebook):
    return [
        f"cell {number}: writes to stderr: {text_of(output['text'])[:80]!r}"
        for number, _, output in outputs(notebook)
        if output["output_type"] == "stream" and output["name"] == "stderr"
    ]


def no_usage_error(notebook):
    return [f"cell {n}: UsageError" for n, _, o in outputs(notebook) if any("UsageError" in text for text in texts(o))]


def no_machine_paths(notebook):
    return [
        f"cell {number}: a path of one machine: {found.group()!r}"
        for number, _, output in outputs(notebook)
        for text in texts(output)
        if (found := MACHINE_PATH.search(text))
    ]


def no_foreign_scripts(notebook):
    wanted = re.compile(
        r"<(script|link|iframe|img)\b[^>]*\b(src|href)\s*=\s*[\"']?(https?:)?//|import\(.https?://", re.IGNORECASE
    )
    return [
        f"cell {number}: HTML that needs another server"
        for number, _, output in outputs(notebook)
        if wanted.search(text_of(output.get("data", {}).get("text/html", "")))
    ]


def pictures_have_alt_text(notebook):
    return [
        f"cell {number}: metadata mystnb.image.alt of more than 20 characters is missing"
        for number, cell, output in outputs(notebook)
        if any(mime.startswith("image/") for mime in output.get("data", {}))
        and len(cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "").strip()) <= 20
    ]


def kernel_is_python3(notebook):
    name = notebook["metadata"].get("kernelspec", {}).get("name")
    return [] if name == "python3" else [f"kernelspec is {name!r}"]


def headings_do_not_jump(notebook):
    lines = [line for text in prose(notebook) for line in text.splitlines()]
    levels = [len(found[1]) for line in lines if (found := re.match(r"(#{1,6}) ", line))]
    problems = [] if levels[:1] == [1] and levels.count(1) == 1 else ["wants one heading '# …', the first one"]
    steps = itertools.pairwise(levels)
    return problems + [f"a heading of level {b} follows one of level {a}" for a, b in steps if b > a + 1]


def no_directives_or_roles(notebook):
    return [
        f"not portable outside the book: {found.group().strip()!r}"
        for text in prose_with_fences(notebook)
        if (found := DIRECTIVE.search(text))
    ]


def prose_with_fences(notebook):
    return [text_of(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]


def cells_are_short(notebook):
    lines = [
        (number, sum(bool(line.strip()) for line in text_of(cell["source"]).splitlines()))
        for number, cell in enumerate(notebook["cells"], start=1)
        if cell["cell_type"] == "code"
    ]
    return [
        f"cell {number}: {count} lines, the limit is {LONGEST_CELL}" for number, count in lines if count > LONGEST_CELL
    ]


def lines_are_short(notebook):
    return [
        f"cell {number}: a line of {len(line)} characters, the limit is {LONGEST_LINE}: {line.strip()[:40]!r}"
        for number, cell in enumerate(notebook["cells"], start=1)
        if cell["cell_type"] == "code"
        for line in text_of(cell["source"]).splitlines()
        if len(line) > LONGEST_LINE
    ]


def no_semicolon_at_the_end(notebook):
    """nbval runs cells without history, and IPython then prints the value in spite of the semicolon."""
    return [
        f"cell {number}: ends with a semicolon; assign the value instead, _ = ..."
        for number, cell in enumerate(notebook["cells"], start=1)
        if cell["cell_type"] == "code" and text_of(cell["source"]).rstrip().endswith(";")
    ]


RULES = [
    counts_run_from_one,
    some_output_exists,
    errors_are_expected,
    no_stderr,
    no_usage_error,
    no_machine_paths,
    no_foreign_scripts,
    pictures_have_alt_text,
    kernel_is_python3,
    headings_do_not_jump,
    no_directives_or_roles,
    cells_are_short,
    lines_are_short,
    no_semicolon_at_the_end,
]


@functools.cache
def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_there_is_a_notebook():
    assert NOTEBOOKS, "notebooks/ has no *.ipynb"


if NOTEBOOKS:

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
    @pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
    def test_notebook_keeps_the_rule(path, rule):
        problems = rule(read(path))
        assert not problems, f"{path.name}: " + "; ".join(problems)

    @pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
    def test_notebook_is_small(path):
        assert path.stat().st_size < LARGEST_FILE, f"{path.name}: {path.stat().st_size} bytes"

    @pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
    def test_notebook_is_canonical(path):
        tool = load_tool()
        assert path.read_text(encoding="utf-8") == tool.canonical(tool.read(path)), (
            f"{path.name} was saved by another program: python tools/notebooks.py run notebooks/{path.name}"
        )


# The rules themselves: a good notebook passes all of them, and each spoilt one is caught by its rule.


def good():
    return {
        "metadata": {"kernelspec": {"name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
        "cells": [
            {
                "cell_type": "markdown",
                "id": "a",
                "metadata": {},
                "source": ["# Title\n", "\n", "Text, $r = S(q - Z)$."],
            },
            {"cell_type": "markdown", "id": "b", "metadata": {}, "source": "## Part\n\n```text\n# no heading\n```"},
            {
                "cell_type": "code",
                "id": "c",
                "metadata": {"mystnb": {"image": {"alt": "A line that rises from one to two."}}},
                "execution_count": 1,
                "source": "plot()",
                "outputs": [
                    {"output_type": "stream", "name": "stdout", "text": ["1/2 of home/work\n"]},
                    {
                        "output_type": "display_data",
                        "metadata": {},
                        "data": {"image/png": "iVBOR/tmp/", "text/plain": "<Figure>", "text/html": "<b>x</b>"},
                    },
                ],
            },
        ],
    }


def spoil_code(**changes):
    def spoil(notebook):
        notebook["cells"][2].update(changes)

    return spoil


def spoil_prose(text):
    def spoil(notebook):
        notebook["cells"][1]["source"] = text

    return spoil


def output(**fields):
    return spoil_code(outputs=[{"output_type": "stream", "name": "stdout", "text": "x", **fields}])


SPOILT = [
    (counts_run_from_one, spoil_code(execution_count=None)),
    (counts_run_from_one, spoil_code(execution_count=7)),
    (some_output_exists, spoil_code(outputs=[])),
    (errors_are_expected, output(output_type="error", ename="ValueError", evalue="no", traceback=[])),
    (no_stderr, output(name="stderr")),
    (no_usage_error, output(text="UsageError: Line magic function `%x` not found.")),
    (no_machine_paths, output(text="saved to /home/somebody/net.qlearn")),
    (no_machine_paths, output(text=r"C:\Users\somebody")),
    (no_foreign_scripts, output(output_type="display_data", data={"text/html": "<script src='https://x.org/a.js'>"})),
    (no_foreign_scripts, output(output_type="display_data", data={"text/html": ["<link ", 'href="//x.org/a.css">']})),
    (pictures_have_alt_text, spoil_code(metadata={"mystnb": {"image": {"alt": "A figure"}}})),
    (kernel_is_python3, lambda notebook: notebook["metadata"].clear()),
    (headings_do_not_jump, spoil_prose("### Too deep")),
    (headings_do_not_jump, spoil_prose("# A second title")),
    (no_directives_or_roles, spoil_prose("```{note}\nText\n```")),
    (no_directives_or_roles, spoil_prose(":::{note}\nText\n:::")),
    (no_directives_or_roles, spoil_prose("See {func}`qlearn.quantize`.")),
    (no_directives_or_roles, spoil_prose("See {cite:t}`jacob2018`.")),
    (no_directives_or_roles, spoil_prose("(label)=\n## Part")),
    (cells_are_short, spoil_code(source="x = 1\n" * 21)),
    (lines_are_short, spoil_code(source=["x = 1\n", f"y = {'1' * 85}\n"])),
    (no_semicolon_at_the_end, spoil_code(source="plot();\n")),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_notebook_passes(rule):
    assert rule(good()) == []


@pytest.mark.parametrize(("rule", "spoil"), SPOILT, ids=[f"{rule.__name__}-{i}" for i, (rule, _) in enumerate(SPOILT)])
def test_a_spoilt_notebook_is_caught(rule, spoil):
    notebook = copy.deepcopy(good())
    spoil(notebook)
    assert rule(notebook)


def test_every_rule_is_tried():
    assert {rule for rule, _ in SPOILT} == set(RULES)


def test_canonical_form_is_stable(tmp_path):
    tool = load_tool()
    untidy = good()
    untidy["metadata"]["widgets"] = {"x": 1}
    untidy["cells"][2]["metadata"]["execution"] = {"iopub.execute_input": "2026-11-24"}
    del untidy["cells"][0]["id"]
    path = tmp_path / "untidy.ipynb"
    path.write_text(json.dumps(untidy), encoding="utf-8")
    text = tool.canonical(tool.read(path))
    assert "execution_count" in text
    assert "iopub" not in text
    assert "widgets" not in text
    path.write_text(text, encoding="utf-8")
    assert tool.canonical(tool.read(path)) == text


def test_prints_that_the_kernel_cut_in_two_are_joined(tmp_path):
    tool = load_tool()
    cut = good()
    stream = {"output_type": "stream", "name": "stdout"}
    cut["cells"][2]["outputs"] = [{**stream, "text": "a"}, {**stream, "text": "b\n"}]
    path = tmp_path / "cut.ipynb"
    path.write_text(json.dumps(cut), encoding="utf-8")
    outputs = json.loads(tool.canonical(tool.read(path)))["cells"][2]["outputs"]
    assert [text_of(output["text"]) for output in outputs] == ["ab\n"]


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"cells": 1}'])
def test_what_is_no_notebook_is_refused_by_name(tmp_path, content):
    tool = load_tool()
    path = tmp_path / "broken.ipynb"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(tool.NotebookError, match=r"broken\.ipynb: not a notebook"):
        tool.read(path)


def test_a_missing_notebook_is_named(tmp_path):
    tool = load_tool()
    with pytest.raises(tool.NotebookError, match=r"absent\.ipynb: cannot be read"):
        tool.read(tmp_path / "absent.ipynb")
