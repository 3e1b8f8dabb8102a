"""The table of plugins: what a person reads, and what a program reads."""

from __future__ import annotations

import dataclasses
import json

import pytest

from qlearn import __version__
from qlearn.errors import PluginError
from qlearn.registry.table import PluginRow

MISSING = "ModuleNotFoundError: No module named 'acme_core_that_is_not_there'"


@pytest.fixture
def table(install):
    """Other plugins may be installed where the tests run; they are off, and left out here."""
    table = install("good", "importerror", "builtin_name", "clash_a", "clash_b", "empty").table()
    return dataclasses.replace(table, rows=tuple(row for row in table.rows if row.status != "off"))


def test_text(table):
    third_party = table.select(builtin=False)
    assert repr(third_party).splitlines() == [
        "KIND        NAME    PROVIDER           VERSION  STATUS    SUMMARY",
        "calibrator  peak    fake-good          1.2      ok        the largest value <seen>",
        "scheme      affine  fake-builtin-name  1.0      shadowed  not affine at all",
        "scheme      twin    fake-clash-a       1.0      conflict  twin a",
        "scheme      twin    fake-clash-b       1.0      conflict  twin b",
        "scheme      wide    fake-good          1.2      ok        affine under another name",
        "scheme      narrow  fake-good          1.2      ok        affine again",
        "engine      echo    fake-good          1.2      ok        its input",
        "-           empty   fake-empty         1.0      empty     offers nothing",
        f"-           acme    fake-importerror   2.0      FAILED    {MISSING}",
        "shadowed: a built-in has this name. Write 'fake-builtin-name:affine'.",
        "conflict: more than one plugin has this name. Write 'fake-clash-a:twin'.",
        "conflict: more than one plugin has this name. Write 'fake-clash-b:twin'.",
        "1 plugin failed. Details: qlearn plugins --traceback acme   Disable: QLEARN_LOAD_PLUGINS=''",
    ]


def test_select(table):
    assert {row.kind for row in table.select(kind="calibrator").rows} == {"calibrator", "-"}
    assert {row.provider for row in table.select(builtin=True).rows} == {"qlearn"}
    assert "failed" not in repr(table.select(builtin=True))
    assert len(table.select(builtin=True).rows) + len(table.select(builtin=False).rows) == len(table.rows)


def test_html_is_escaped(table):
    page = table._repr_html_()
    assert "the largest value &lt;seen&gt;" in page
    assert page.count("<tr>") == len(table.rows) + 1
    assert "--traceback acme" in page


SNAPSHOT = [
    {
        "kind": "calibrator",
        "name": "peak",
        "qualified_name": "fake-good:peak",
        "provider": "fake-good",
        "version": "1.2",
        "plugin": "good",
        "builtin": False,
        "status": "ok",
        "summary": "the largest value <seen>",
        "reference": "a reference",
        "traits": ["MERGEABLE"],
        "api_version": 1,
    },
    {
        "kind": "scheme",
        "name": "symmetric",
        "qualified_name": "qlearn:symmetric",
        "provider": "qlearn",
        "version": __version__,
        "plugin": "builtins",
        "builtin": True,
        "status": "ok",
        "summary": "zero point 0, full range such as [-128, 127]",
        "reference": "paper §2.1",
        "traits": [],
        "api_version": 1,
    },
    {
        "kind": "engine",
        "name": "torch",
        "qualified_name": "qlearn:torch",
        "provider": "qlearn",
        "version": __version__,
        "plugin": "builtins",
        "builtin": True,
        "status": "ok",
        "summary": "the same integers from torch's int8 convolutions",
        "reference": "paper §3.5",
        "traits": [],
        "api_version": 1,
    },
    {
        "kind": "-",
        "name": "acme",
        "qualified_name": "fake-importerror:acme",
        "provider": "fake-importerror",
        "version": "2.0",
        "plugin": "acme",
        "builtin": False,
        "status": "FAILED",
        "summary": MISSING,
        "reference": "",
        "traits": [],
        "api_version": None,
    },
]


def test_json_snapshot(table):
    document = json.loads(table.to_json())
    assert {key: document[key] for key in document if key != "plugins"} == {
        "schema": 1,
        "qlearn": __version__,
        "api_version": 1,
    }
    by_name = {row["qualified_name"]: row for row in document["plugins"]}
    for expected in SNAPSHOT:
        row = by_name[expected["qualified_name"]]
        assert row == expected
        assert list(row) == list(expected)
    assert document["plugins"] == table.records()


@pytest.mark.parametrize("name", ["acme", "fake-importerror", "Fake_ImportError:acme"])
def test_traceback_by_any_of_its_names(table, name):
    story = table.traceback(name)
    assert story.startswith("plugin 'acme' of fake-importerror 2.0\nTraceback")
    assert "ModuleNotFoundError" in story


def test_traceback_of_what_did_not_fail(table):
    with pytest.raises(PluginError, match="no plugin 'good' among those that failed: acme"):
        table.traceback("good")


def test_what_would_break_the_table_is_cut(table):
    bell = PluginRow(
        kind="-",
        name="a\nb",
        qualified_name="a:b",
        provider="a",
        version="\x1b[31m",
        plugin="b",
        builtin=False,
        status="empty",
        summary="long " * 50,
    )
    text = repr(type(table)((bell,), (), "0"))
    assert len(text.splitlines()) == 2
    assert "\x1b" not in text
    assert text.endswith("…")
