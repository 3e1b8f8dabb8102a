"""The pages list every check, with its rule, and nothing else."""

import re
from pathlib import Path

import pytest

from qlearn.testing.plan import CHECKS

ROOT = Path(__file__).parents[2]
README = (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")


def rows(kind):
    """The table between the markers of one kind, as (name, rule, condition)."""
    part = README.split(f"<!-- checks of a {kind} -->")[1].split("<!-- end -->")[0]
    return re.findall(r"^\| `(\w+)` \| (.+) \| (.+?) \|$", part, flags=re.MULTILINE)


@pytest.mark.parametrize("kind", ["calibrator", "scheme"])
def test_every_check_is_listed_with_its_rule(kind):
    assert rows(kind) == [(check.name, check.rule, check.condition) for check in CHECKS[kind]]


def test_the_tables_are_in_the_part_that_the_book_includes():
    page = (ROOT / "book" / "plugins.md").read_text(encoding="utf-8")
    start, end = "<!-- kit -->", "<!-- end of kit -->"
    assert f"```{{include}} ../plugins/README.md\n:start-after: {start}\n:end-before: {end}\n```" in page
    part = README.split(start)[1].split(end)[0]
    assert all(f"<!-- checks of a {kind} -->" in part for kind in CHECKS)


@pytest.mark.parametrize("kind", ["calibrator", "scheme"])
def test_rules_stay_whole_in_a_markdown_table(kind):
    for check in CHECKS[kind]:
        assert "|" not in check.rule, check.name
        assert "**" not in check.rule, check.name
