"""The hooks themselves: each is documented with its exact signature, tested, and used by the built-ins."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from qlearn import builtins
from qlearn.calibrators import base, spec
from qlearn.engines.spec import Engine
from qlearn.hookspecs import QlearnSpecs
from qlearn.registry import build_registry
from qlearn.registry.calls import ATTRIBUTES, METHODS, make
from qlearn.registry.loader import implementations
from qlearn.registry.records import HOOKS
from qlearn.schemes.base import Scheme

ROOT = Path(__file__).parents[2]
DECLARED = [name for name, value in vars(QlearnSpecs).items() if hasattr(value, "qlearn_spec")]
PROTOCOLS = {"calibrator": spec.Calibrator, "scheme": Scheme, "engine": Engine}
BUILT_IN = build_registry({"QLEARN_LOAD_PLUGINS": ""})


def test_the_host_calls_every_hook():
    assert list(HOOKS) == DECLARED


@pytest.mark.parametrize("hook", DECLARED)
def test_every_hook_is_documented_with_its_exact_signature(hook):
    function = getattr(QlearnSpecs, hook)
    signature = str(inspect.signature(function)).replace("'", "").replace("(self)", "()")
    assert f"`{hook}{signature}`" in (ROOT / "plugins" / "README.md").read_text(encoding="utf-8")
    assert "Returns\n" in inspect.getdoc(function)


@pytest.mark.parametrize("hook", DECLARED)
def test_every_hook_is_tested(hook):
    fakes = (ROOT / "tests" / "data" / "plugins").glob("*/*.py")
    assert any(f"def {hook}(" in path.read_text(encoding="utf-8") for path in fakes)


def test_the_built_ins_use_every_hook():
    assert [found.hook for found in implementations(builtins)] == DECLARED


@pytest.mark.parametrize("offer", BUILT_IN.offers, ids=str)
def test_every_built_in_can_be_made(offer):
    made = make(offer, {})
    assert isinstance(made, PROTOCOLS[offer.kind])


def test_required_members_are_those_of_the_protocols():
    def members(protocol):
        return {name for name in vars(protocol) if not name.startswith("_")}

    for kind, protocol in PROTOCOLS.items():
        assert members(protocol) == {*METHODS[kind], *ATTRIBUTES[kind]}


def test_the_record_is_the_same_from_both_modules():
    assert base.CalibratorSpec is spec.CalibratorSpec
    assert base.Trait is spec.Trait


def test_versions_and_names_of_the_fakes_are_consistent():
    for path in (ROOT / "tests" / "data" / "plugins").glob("*/*.dist-info"):
        name, version = re.fullmatch(r"(.+)-(.+)\.dist-info", path.name).groups()
        metadata = (path / "METADATA").read_text(encoding="utf-8")
        assert f"Name: {name.replace('_', '-')}\nVersion: {version}\n" in metadata
