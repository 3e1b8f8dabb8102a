"""The library's own calibrators and schemes pass the kit, by the classes that every author writes."""

import importlib.util
import sys
from pathlib import Path

import pytest
from testing import good

from qlearn.calibrators.spec import Trait
from qlearn.registry import build_registry
from qlearn.testing import CalibratorSuite, SchemeSuite, check_calibrator, check_scheme

ROOT = Path(__file__).parents[2]
BUILT_IN = [o for o in build_registry({"QLEARN_LOAD_PLUGINS": ""}).offers if o.kind != "engine"]  # see test_engines.py
PARAMS = {"percentile": [{}, {"percent": 99.0}, {"percent": 100.0}], "mean_std": [{}, {"k": 2.0}]}

for offer in BUILT_IN:
    base = CalibratorSuite if offer.kind == "calibrator" else SchemeSuite
    members = {"name": f"qlearn:{offer.name}", "params": PARAMS.get(offer.name, ())}
    title = f"Test{offer.name.title().replace('_', '')}{offer.kind.title()}"
    globals()[title] = type(title, (base,), members)


def test_every_built_in_has_a_class():
    suites = [value for name, value in globals().items() if name.startswith("Test")]
    assert {suite.name for suite in suites} == {offer.qualified for offer in BUILT_IN}


@pytest.mark.parametrize("restricted", [False, True])
def test_the_example_plugin_passes(restricted, monkeypatch):
    path = ROOT / "plugins" / "qlearn-pow2" / "qlearn_pow2.py"
    spec = importlib.util.spec_from_file_location("qlearn_pow2_for_the_kit", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # pickle looks the class up by its module
    spec.loader.exec_module(module)
    report = check_scheme(module.PowerOfTwoScheme, params={"restricted": restricted})
    assert report.ok, report


GOOD = [
    (good.Extremes, {Trait.MERGEABLE}),
    (good.Extremes, set()),
    (good.MovingAverage, {Trait.ORDER_DEPENDENT}),
    (good.Balanced, {Trait.MERGEABLE, Trait.MAY_EXCEED_DATA}),
    (good.Stepped, {Trait.MERGEABLE, Trait.APPROXIMATE}),
]


@pytest.mark.parametrize(("cls", "traits"), GOOD)
def test_what_the_mutants_are_made_from_passes(cls, traits):
    report = check_calibrator(cls, traits=traits)
    assert report.ok, report
    assert report.total == report.passed >= 25


def test_the_scheme_that_the_mutants_are_made_from_passes():
    report = check_scheme(good.Plain)
    assert report.ok, report
