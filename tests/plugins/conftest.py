"""Install fake distributions, for the length of one test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import qlearn.registry
from qlearn.registry import build_registry

FAKES = Path(__file__).parents[1] / "data" / "plugins"


@pytest.fixture
def put_on_path(monkeypatch):
    """Return a function that makes fake distributions importable and returns their names."""

    def put(*folders):
        for folder in folders:
            monkeypatch.syspath_prepend(str(FAKES / folder))
            monkeypatch.delitem(sys.modules, f"fake_{folder}", raising=False)
        return [f"fake-{folder.replace('_', '-')}" for folder in folders]

    yield put
    for name in [name for name in sys.modules if name.startswith("fake_")]:
        del sys.modules[name]


@pytest.fixture
def install(put_on_path):
    """Return a function that builds a registry with these fake distributions and no other plugin."""

    def build(*folders, **environ):
        names = put_on_path(*folders)
        return build_registry({"QLEARN_LOAD_PLUGINS": ",".join(names), **environ})

    return build


@pytest.fixture(autouse=True)
def _registry_of_this_test(monkeypatch):
    """Build the process's registry anew for each test, and put the former one back."""
    monkeypatch.setattr(qlearn.registry, "_session", qlearn.registry._Session())
