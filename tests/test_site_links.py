"""The link check finds what is broken, and nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("qlearn_tools_site_links", ROOT / "tools" / "site_links.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def site(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "one.html").write_text(
        '<h1 id="a">A</h1><img src="p%20q.png"><a href="sub/two.html#%C3%A9">x</a>', "utf-8"
    )
    (tmp_path / "sub" / "two.html").write_text(
        '<a name="é"></a><a href="../one.html#a">y</a><a href="#">top</a>', "utf-8"
    )
    (tmp_path / "sub" / "index.html").write_text(
        '<a href="https://example.org/no#no">z</a><a href="mailto:a@b">m</a>', "utf-8"
    )
    (tmp_path / "p q.png").write_bytes(b"")
    return tmp_path


def test_a_whole_site_passes(tool, site):
    assert tool.broken(site) == ([], 3, 4)


@pytest.mark.parametrize(
    "link", ["nowhere.html", "#nothing", "sub/two.html#nothing", "sub/", "../outside.html", "no.png"]
)
def test_a_broken_link_is_named(tool, site, link):
    if link == "sub/":
        (site / "sub" / "index.html").unlink()
    with (site / "one.html").open("a", encoding="utf-8") as page:
        page.write(f'<a href="{link}">broken</a>')
    assert tool.broken(site)[0] == [f"one.html: {link}"]


def test_no_pages_is_a_failure(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "HTML", tmp_path)
    assert tool.main() == 1
