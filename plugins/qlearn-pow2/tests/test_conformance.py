"""The rules that every scheme keeps, checked by qlearn's own kit."""

from __future__ import annotations

from qlearn.testing import SchemeSuite


class TestPow2(SchemeSuite):
    name = "pow2"
    params = [{}, {"restricted": True}]
