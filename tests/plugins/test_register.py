"""Registration in a notebook: no package, cells that run again, faults that are told at once."""

from __future__ import annotations

import sys
import threading
import types

import pytest

from qlearn.calibrators.spec import CalibratorSpec, Trait
from qlearn.engines.spec import EngineSpec
from qlearn.errors import PluginConflictError, PluginError, PluginWarning, UnknownSchemeError
from qlearn.hookspecs import hookimpl
from qlearn.integer.layers import IntegerLayer
from qlearn.integer.model import IntegerModel
from qlearn.numbers.qparams import QParams
from qlearn.registry import (
    calibrator,
    default_registry,
    fresh_registry,
    plugins,
    register,
    scheme,
    unregister,
)
from qlearn.schemes.affine import AffineScheme
from qlearn.schemes.base import SchemeSpec


def spec(name="mine", **fields):
    return SchemeSpec(**{"name": name, "factory": AffineScheme, "summary": "s", **fields})


@pytest.fixture(autouse=True)
def _bare():
    with fresh_registry({"QLEARN_LOAD_PLUGINS": ""}):
        yield


class Plugin:
    """A plugin as a notebook cell would write it."""

    def __init__(self, *specs):
        self.specs = specs

    @hookimpl
    def qlearn_schemes(self):
        return self.specs


def rows(provider="session"):
    return [row.name for row in plugins().rows if row.provider == provider]


def test_a_record_comes_in_and_goes_out():
    register(spec())
    assert scheme("mine", bits=4) == scheme("session:mine", bits=4) == AffineScheme(bits=4)
    unregister("mine")
    with pytest.raises(UnknownSchemeError):
        scheme("mine")


def test_a_cell_may_run_again():
    register(spec(summary="first"))
    register(spec(summary="second"))
    assert default_registry().find("scheme", "mine").spec.summary == "second"
    assert rows() == ["mine"]


def test_one_name_for_a_scheme_and_a_calibrator():
    register(spec("twice"))
    register(CalibratorSpec(name="twice", factory=list, summary="s"))
    assert rows() == ["twice", "twice"]
    unregister("twice")
    assert rows() == []


def test_a_plugin_object_that_is_registered_again_takes_back_what_it_no_longer_offers():
    register(Plugin(spec("one"), spec("two")))
    register(Plugin(spec("two"), spec("three")))
    assert rows() == ["two", "three"]
    unregister("session:three")
    unregister(f"{Plugin.__module__}.Plugin")
    assert rows() == []


def test_an_engine_comes_in_and_computes():
    class Backwards:
        def prepare(self, model):
            return lambda codes, watch=None: codes[:, ::-1]

    model = IntegerModel((IntegerLayer("x", "input", (), QParams(1.0, 0, -8, 7)),), "x", (2,))
    register(EngineSpec(name="backwards", factory=Backwards, summary="s"))
    assert model.with_engine("backwards")([[1.0, 2.0]]).tolist() == [[2.0, 1.0]]
    unregister("backwards")
    register(EngineSpec(name="none", factory=list, summary="s"))
    with pytest.raises(PluginError, match=r"returned a list, no engine: it lacks prepare\(\)"):
        model.with_engine("none")


def test_a_module_is_a_plugin():
    module = types.ModuleType("notebook_module")
    module.qlearn_schemes = hookimpl(lambda: [spec("modular")])
    module.qlearn_schemes.__name__ = "qlearn_schemes"
    register(module)
    assert [r.plugin for r in plugins().rows if r.name == "modular"] == ["notebook_module"]


def test_a_built_in_keeps_its_name():
    with pytest.warns(PluginWarning, match="'affine' of this session has the name of a built-in"):
        register(spec("affine", factory=lambda *, bits, signed: AffineScheme(2)))
    assert (scheme("affine").bits, scheme("session:affine").bits) == (8, 2)


def test_strict_refuses_the_name_of_a_built_in_and_changes_nothing():
    with fresh_registry({"QLEARN_LOAD_PLUGINS": "", "QLEARN_STRICT_PLUGINS": "1"}):
        with pytest.raises(PluginError, match="built-in"):
            register(spec("affine"))
        assert rows() == []


def test_an_installed_plugin_of_that_name_is_a_conflict(put_on_path):
    with fresh_registry({"QLEARN_LOAD_PLUGINS": put_on_path("clash_a")[0]}):
        register(spec("twin"))
        with pytest.raises(PluginConflictError, match="'fake-clash-a:twin' or 'session:twin'"):
            scheme("twin")
        unregister("twin")
        assert scheme("twin").symmetric
        with pytest.raises(PluginError, match=r"not registered in this session .*nothing.*QLEARN_LOAD_PLUGINS"):
            unregister("twin")


class Secretive:
    def __dir__(self):
        raise RuntimeError("not telling")


def hook(function, **options):
    function.__name__ = options.pop("name", "qlearn_schemes")
    return types.SimpleNamespace(**{function.__name__: hookimpl(**options)(function)})


def answers(value, **options):
    return hook(lambda: value, **options)


def wrapper():
    yield


FAULTS = {
    "class": (Plugin, "Plugin is a class: give an instance"),
    "nothing": (types.SimpleNamespace(), "it implements no hook: @qlearn.hookimpl marks one"),
    "None": (None, "it implements no hook"),
    "secretive": (Secretive(), "it cannot be searched for hooks: RuntimeError: not telling"),
    "a string": ("minmax", "it implements no hook"),
    "unmarked": (types.SimpleNamespace(qlearn_schemes=list), "qlearn_schemes is there, but @qlearn.hookimpl"),
    "wrapper": (hook(wrapper, wrapper=True), "hook qlearn_schemes is a wrapper: qlearn calls hooks one by one"),
    "old wrapper": (hook(wrapper, hookwrapper=True), "is a wrapper"),
    "typo": (answers([], name="qlearn_sheme"), "did you mean qlearn_schemes"),
    "far off": (answers([], name="zzz"), "there is no hook zzz: The hooks are qlearn_calibrators"),
    "arguments": (hook(lambda register: []), "register"),
    "one record": (answers(spec()), "hook qlearn_schemes: it returned a SchemeSpec; a list of SchemeSpec"),
    "no return": (answers(None), "it returned None; a list of SchemeSpec is expected"),
    "text": (answers("affine"), "it returned a str"),
    "mapping": (answers({"affine": spec()}), "it returned a dict"),
    "the other kind": (
        answers([CalibratorSpec(name="a", factory=list, summary="s")]),
        "record 1: expected a SchemeSpec, got a CalibratorSpec",
    ),
    "twice": (Plugin(spec("a"), spec("b"), spec("a")), "'a' is there twice"),
    "capital": (spec("Mine"), "name 'Mine' must be a letter"),
    "dash": (spec("my-scheme"), "name 'my-scheme' must be a letter"),
    "newline": (spec("mine\n"), r"name 'mine\\n' must be a letter"),
    "number": (spec(3), "name 3 must be"),
    "no factory": (spec(factory=None), "'mine': factory None cannot be called"),
    "no summary": (spec(summary=" "), "summary must be one line"),
    "two lines": (spec(summary="a\nb"), "summary must be one line"),
    "reference": (spec(reference=None), "reference must be text: got None"),
    "api bool": (spec(api_version=True), "api_version must be 1 or more: got True"),
    "api 0": (spec(api_version=0), "api_version must be 1 or more: got 0"),
    "api 2": (spec(api_version=2), "plugin API 2, .* has plugin API 1: upgrade qlearn"),
    "traits": (
        CalibratorSpec(name="a", factory=list, summary="s", traits={Trait.MERGEABLE}),
        "traits must be a frozenset of Trait",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_at_once_and_changes_nothing(fault):
    plugin, message = FAULTS[fault]
    before = default_registry()
    with pytest.raises(PluginError, match=message):
        register(plugin)
    assert default_registry() is before


def test_a_fault_in_the_second_hook_leaves_the_first_out():
    class Half(Plugin):
        @hookimpl
        def qlearn_calibrators(self):
            return [CalibratorSpec(name="half", factory=list, summary="s")]

        @hookimpl
        def qlearn_schemes(self):
            raise ZeroDivisionError

    with pytest.raises(PluginError, match="hook qlearn_schemes: ZeroDivisionError") as caught:
        register(Half())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert rows() == []


def test_what_a_factory_returns_is_checked():
    register(CalibratorSpec(name="a_list", factory=lambda **_: [], summary="s"))
    with pytest.raises(PluginError) as caught:
        calibrator("a_list")
    assert str(caught.value) == (
        "calibrator 'a_list' of this session: the factory returned a list, no calibrator: "
        "it lacks observe(), compute_range(), merge(), reset()"
    )
    register(spec("none", factory=lambda **_: None))
    with pytest.raises(PluginError, match=r"it lacks qparams\(\), bits, signed, symmetric, qmin, qmax"):
        scheme("none")
    register(spec("forgot_to_call", factory=lambda **_: AffineScheme))
    with pytest.raises(PluginError, match="returned the class AffineScheme, not an instance"):
        scheme("forgot_to_call")


def test_a_factory_that_python_cannot_inspect():
    register(CalibratorSpec(name="c_function", factory=max, summary="s"))
    with pytest.raises(PluginError, match="max expected at least 1 argument"):
        calibrator("c_function")


def test_a_block_of_fresh_registry_leaves_nothing_behind():
    with fresh_registry({"QLEARN_LOAD_PLUGINS": ""}):
        register(spec())
    assert rows() == []


def test_many_threads_see_one_registry():
    seen, interval = [], sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda: seen.append(default_registry())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len({id(registry) for registry in seen}) == 1
    assert len(seen) == 8
