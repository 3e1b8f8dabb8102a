"""The book's plugin directory is filled from what is there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import qlearn as ql

ROOT = Path(__file__).parents[2]


def load():
    spec = importlib.util.spec_from_file_location("qlearn_book_directory", ROOT / "book" / "directory.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_lists_what_the_library_brings_and_the_example_packages():
    directory = load()
    page = (ROOT / "book" / "plugin_directory.md").read_text(encoding="utf-8")
    filled = directory.fill(page)
    for row in ql.plugins().select(builtin=True).rows:
        assert f"| {row.kind} | `{row.name}` | {row.summary} |" in filled
    for package, kind, name in (("qlearn-aciq", "calibrator", "aciq"), ("qlearn-pow2", "scheme", "pow2")):
        assert f"| `{package}` 0.1.0 | {kind} | `{name}` |" in filled
    assert "<!-- table" not in filled
    assert page.count("<!-- table") == 2
