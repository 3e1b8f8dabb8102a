"""The map of the paper: every reference in it leads somewhere, and nothing of the paper is left out."""

import importlib.util
import itertools
import json
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAPER = os.environ.get("QLEARN_PAPER", "")
needs_paper = pytest.mark.skipif(not PAPER, reason="QLEARN_PAPER does not name the text of the paper")

SECTIONS = ["Abstract", "1", "2", "2.1", "2.2", "3", "3.1", "3.2", "3.3", "3.4", "3.5", "4", "5", "5.1", "5.2"]
SECTIONS += ["6", "7", "7.1", "7.2", "7.3", "7.4", "7.5", "8", "9", "References"]
FIGURES = [*"123456789", "10a", "10b", "11", "12", "x"]
EQUATIONS = [f"({number})" for number in range(1, 8)]
REFERENCES = 28
EMPTY_CITATIONS = 9
CITED_NOWHERE = [19, 20, 23, 24]


def load_tool():
    name = "qlearn_tools_paper_map"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / "paper_map.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


TOOL = load_tool()
ROWS = [(table, record) for table in TOOL.TABLES for record in TOOL.data()[table]]


def names(table):
    return [record["what"] for record in TOOL.data()[table]]


def plain(text):
    """Letters and digits only: print and map differ in blanks and dashes."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def found_in(table, word):
    """Whether a row of a table has this word in its name or note."""
    texts = [plain(record["what"] + record.get("note", "")) for record in TOOL.data()[table]]
    return any(plain(word) in text for text in texts)


@pytest.mark.parametrize(("table", "record"), ROWS, ids=[f"{table}: {record['what']}" for table, record in ROWS])
def test_every_row_is_full_and_every_reference_leads_somewhere(table, record):
    text = TOOL.row(record)
    assert "*taught in* " in text
    assert "*held by* " in text
    assert text.count("|") == 3


def test_the_page_is_what_the_data_say():
    assert TOOL.page() == TOOL.PAGE.read_text(encoding="utf-8"), "python tools/paper_map.py write"


def test_the_rows_of_the_paper_are_all_there():
    assert [name.split()[0] for name in names("sections") if not name.startswith(("7.5,", "9,"))] == SECTIONS
    assert names("figures") == FIGURES
    assert names("equations")[:7] == EQUATIONS
    assert names("tables") == ["1"]
    assert [name.split()[0] for name in names("references")] == [f"[{n}]" for n in range(1, REFERENCES + 1)]
    assert all(TOOL.coverage().values())


def test_every_reference_is_in_the_bibliography():
    page = (ROOT / "book" / "bibliography.md").read_text(encoding="utf-8")
    keys = re.findall(r'^### Reference (\d+)\n\n```\{bibliography\}\n:filter: key == "(\w+)"\n```', page, re.MULTILINE)
    assert [int(number) for number, _ in keys] == list(range(1, REFERENCES + 1))
    entries = re.findall(r"^@\w+\{(\w+),", (ROOT / "book" / "refs.bib").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(key for _, key in keys) == sorted(set(entries) - {"chenna"})


def test_every_erratum_is_linked_from_the_map_and_from_a_chapter():
    page = (ROOT / "book" / "errata.md").read_text(encoding="utf-8")
    slips = [TOOL.slug(title) for title in re.findall(r"^### (.+)$", page, re.MULTILINE)] + ["print"]
    linked = {slip for _, record in ROWS for slip in record.get("errata", [])}
    text = "".join(path.read_text(encoding="utf-8") for path in NOTEBOOKS)
    in_chapters = {json.loads(f'"{found}"') for found in re.findall(r"errata\.md#([^)\s]+)\)", text)}
    assert sorted(linked) == sorted(slips)
    assert sorted(in_chapters) == sorted(slips)


def test_what_the_errata_say_of_the_citations():
    page = (ROOT / "book" / "errata.md").read_text(encoding="utf-8")
    *first, last = CITED_NOWHERE
    assert f"References {', '.join(map(str, first))} and {last} are cited nowhere" in page
    assert "Nine citations are empty or lost" in page


def test_anchors_are_those_of_the_book():
    myst = pytest.importorskip("myst_parser.mdit_to_docutils.base", reason="the book's packages are not installed")
    for title in ["Table 1, on photographs", "§7.5, mean: μ ± 3σ", "One bit more", "A `name`: what is it?"]:
        assert TOOL.slug(title) == myst.default_slugify(title)
    taken = set()
    assert [TOOL.slug("Twice", taken) for _ in range(3)] == ["twice", "twice-1", "twice-1-2"]


# The checks themselves: each kind of reference, broken.

GOOD = {
    "what": "good",
    "cells": ["c01-010"],
    "held": ["nbval c01-011"],
    "library": ["qlearn.numbers.affine.quantize"],
    "errata": ["print"],
}


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("cells", [], "empty: cells"),
        ("held", [], "empty: held"),
        ("library", [], "library, or a note"),
        ("speed", ["fast"], "unknown fields"),
        ("cells", ["c01-999"], "no cell"),
        ("cells", ["12/c12-001"], "no chapter"),
        ("cells", ["c01-017#Nowhere"], "no heading"),
        ("cells", ["book/errata.md#nowhere"], "no anchor"),
        ("held", ["nbval c01-010"], "compares no printed output"),
        ("held", ["nbval c08-031"], "compares no printed output"),
        ("held", ["tests/test_errors.py::test_nothing"], "no test"),
        ("held", ["tests/test_nothing.py::test_nothing"], "there is no"),
        ("held", ["doctest book/index.md"], "no examples"),
        ("library", ["qlearn.numbers.affine.quantise"], "quantise"),
        ("library", ["family lenet"], "is called"),
        ("errata", ["nowhere"], "no anchor"),
    ],
)
def test_a_broken_row_is_caught(field, value, complaint):
    assert TOOL.row(GOOD)
    with pytest.raises(TOOL.MapError, match=complaint):
        TOOL.row({**GOOD, field: value})


# The paper itself, where its text is at hand.


def lines():
    return Path(PAPER).read_text(encoding="utf-8").splitlines()


def body():
    """The text from the abstract to the references."""
    text = "\n".join(lines())
    return text[text.index("Abstract") : text.index("REFERENCES")]


@needs_paper
def test_every_heading_of_the_paper_has_a_row():
    numbered = [line for line in body().splitlines() if re.match(r"\d\.(\d)? [A-Z]|\d\.\d\.? [A-Z]", line)]
    have = [plain(name) for name in names("sections")]
    assert len(numbered) == 23
    assert [line for line in numbered if plain(line) not in have] == []


@needs_paper
def test_every_heading_without_a_number_has_a_row():
    blocks = [block.strip() for block in body().split("\n\n") if block.strip()]
    pairs = itertools.pairwise(blocks)
    title = re.compile(r"[A-Z][\w/ ]{3,35}")
    titles = [one for one, then in pairs if title.fullmatch(one) and len(then) > 60 and not then.startswith("Fig")]
    assert len(titles) == 10, titles
    have = {plain(name.partition(", ")[2]) for name in names("sections")}
    assert [one for one in titles if plain(one) not in have] == []


@needs_paper
def test_every_figure_equation_table_and_reference_has_a_row():
    captions = [found[1] for line in lines() if (found := re.match(r"Fig (\w+)\.? ", line))]
    assert sorted(captions) == sorted(re.sub("[ab]$", "", name) for name in names("figures"))
    numbers = re.findall(r"\\tag\{(\d)\}|\\quad \((\d)\)|^\((\d)\)$", body(), re.MULTILINE)
    assert sorted(f"({''.join(found)})" for found in numbers) == EQUATIONS
    assert re.findall(r"^Table (\d+)\.", body(), re.MULTILINE) == names("tables")
    assert [int(n) for n in re.findall(r"^- \[(\d+)\]", "\n".join(lines()), re.MULTILINE)] == list(range(1, 29))


@needs_paper
def test_every_network_of_table_1_has_a_row():
    rows = [
        line.split("\t")[0] for line in body().splitlines() if line.count("\t") == 5 and re.match(r"[A-Z]\w+-", line)
    ]
    assert len(rows) == 9
    for network in rows:
        family, version = re.match(r"([A-Za-z]+)-(v\d|Mobile)", network).groups()
        assert found_in("architectures", family + version), network


@needs_paper
def test_every_proper_name_has_a_row():
    """Words with a capital inside, or all capitals: networks, tools, methods."""
    known = {"AR", "VR"}  # what a row of its own would say nothing about
    tables = ("architectures", "functions", "tools", "methods", "references", "sections")
    words = set(re.findall(r"\b(?:[A-Z][a-z]+[A-Z]\w*|[A-Z]{3,}\w*|[A-Z][A-Z]+\d*|TF\w+|Pytorch)\b", body())) - known
    missing = sorted(
        word for word in words if not any(found_in(table, re.sub(r"(?<=[A-Z])s$|\d+$", "", word)) for table in tables)
    )
    assert missing == []


@needs_paper
def test_the_errata_on_citations_are_true():
    text = body()
    lost = len(re.findall(r"\[\]|\[ *\n+\]|Research\n+\]", text))
    assert lost == EMPTY_CITATIONS
    cited = {int(n) for n in re.findall(r"\[(\d+)\]", text)}
    for low, high in re.findall(r"\[(\d+)-(\d+)\]", text):
        cited |= set(range(int(low), int(high) + 1))
    assert [n for n in range(1, REFERENCES + 1) if n not in cited] == CITED_NOWHERE
