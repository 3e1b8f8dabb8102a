"""Whatever a plugin does, the host works on, and says which plugin it was."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from qlearn import __version__
from qlearn.errors import PluginError, PluginWarning, UnknownCalibratorError, UnknownSchemeError
from qlearn.registry import build_registry, default_registry, fresh_registry, plugins, scheme
from qlearn.registry.calls import make
from qlearn.registry.loader import discover, load_all

BROKEN = {
    # folder: (plugin, version, what the message has to contain)
    "importerror": ("acme", "2.0", ["ModuleNotFoundError: No module named 'acme_core_that_is_not_there'"]),
    "bad_signature": ("bad_signature", "1.0", ["qlearn_calibrators(register)", "qlearn_schemes()"]),
    "raises": ("raises", "1.0", ["hook qlearn_calibrators: ValueError: the coffee is cold"]),
    "typo": ("typo", "1.0", ["no hook qlearn_calibrator:", "did you mean qlearn_calibrators?", "qlearn_schemes()"]),
    "exits": ("exits", "1.0", ["SystemExit: 3"]),
    "wrong_type": (
        "wrong_type",
        "1.0",
        ["hook qlearn_schemes: record 2", "expected a SchemeSpec, got a tuple", "'name'"],
    ),
    "bad_engine": (
        "bad_engine",
        "1.0",
        ["hook qlearn_engines: record 1", "expected an EngineSpec, got a SchemeSpec"],
    ),
    "newer": ("newer", "1.0", ["plugin API 99", f"qlearn {__version__} has plugin API 1", "upgrade qlearn"]),
    "no_attribute": ("no_attribute", "1.0", ["AttributeError", "'plugin'"]),
    "looks_up": ("looks_up", "1.0", ["PluginError: a plugin looked something up while being loaded"]),
    "damaged": ("fake-damaged", "-", ["UnicodeDecodeError"]),
}
EVERYTHING = [*BROKEN, "good", "clash_a", "clash_b", "builtin_name", "empty"]


@pytest.mark.parametrize("folder", [f for f in BROKEN if f != "looks_up"])
def test_a_failure_is_told_and_the_host_works(folder, install):
    plugin, version, contents = BROKEN[folder]
    registry = install(folder, "good")
    (failure,) = registry.failures
    assert (failure.info.name, failure.info.version) == (plugin, version)
    for content in contents:
        assert content in failure.error
    assert "\n" not in failure.error
    (text,) = registry.warnings()
    for content in (plugin, failure.info.provider, *contents, f"qlearn plugins --traceback {plugin}"):
        assert content in text
    (row,) = [row for row in registry.table().rows if row.status == "FAILED"]
    assert (row.name, row.version, row.summary) == (plugin, version, failure.error)
    assert make(registry.find("scheme", "affine"), {"bits": 4}).qmax == 7
    assert registry.find("calibrator", "peak").info.provider == "fake-good"


@pytest.mark.parametrize("folder", ["importerror", "raises", "exits"])
def test_the_traceback_leads_to_the_line(folder, install):
    registry = install(folder)
    story = registry.table().traceback(BROKEN[folder][0])
    assert f"fake_{folder}.py" in story
    assert "Traceback (most recent call last)" in story


def test_a_hook_that_fails_does_not_take_the_other_hook_along(install):
    registry = install("raises")
    assert registry.find("scheme", "survivor").info.name == "raises"


def test_a_bad_engine_does_not_take_the_scheme_along(install):
    assert install("bad_engine").find("scheme", "beside_the_engine").info.name == "bad_engine"


def test_nothing_comes_in_from_a_hook_call_that_failed(install):
    registry = install("wrong_type")
    with pytest.raises(UnknownSchemeError):
        registry.find("scheme", "half")


def test_all_at_once(install):
    registry = install(*EVERYTHING)
    assert sorted(f.info.name for f in registry.failures) == sorted(plugin for plugin, _, _ in BROKEN.values())
    assert registry.find("calibrator", "peak").info.provider == "fake-good"
    assert "11 plugins failed." in repr(registry.table())


def test_ctrl_c_is_not_caught(install):
    with pytest.raises(KeyboardInterrupt):
        install("interrupts")


def test_unknown_name_tells_of_plugins_that_failed(install):
    with pytest.raises(UnknownCalibratorError) as caught:
        install("importerror").find("calibrator", "acme")
    for content in ("'acme' of fake-importerror 2.0", "acme_core_that_is_not_there", "--traceback acme", "minmax"):
        assert content in str(caught.value)


def test_a_plugin_cannot_look_up_while_it_is_loaded(put_on_path):
    with fresh_registry({"QLEARN_LOAD_PLUGINS": put_on_path("looks_up")[0]}) as registry:
        (failure,) = registry.failures
    for content in BROKEN["looks_up"][2]:
        assert content.removeprefix("PluginError: ") in failure.error


def test_warning_once_then_silence(put_on_path, recwarn):
    with fresh_registry({"QLEARN_LOAD_PLUGINS": put_on_path("importerror")[0]}):
        with pytest.warns(PluginWarning, match="left out: plugin 'acme' of fake-importerror 2.0"):
            assert scheme("affine").bits == 8
        assert scheme("affine").bits == 8
    assert not recwarn


def test_the_table_neither_warns_nor_raises(put_on_path):
    names = put_on_path("importerror")
    with fresh_registry({"QLEARN_LOAD_PLUGINS": names[0], "QLEARN_STRICT_PLUGINS": "1"}):
        assert "FAILED" in repr(plugins())


@pytest.mark.parametrize("folder", ["importerror", "builtin_name"])
def test_strict_raises_every_time(folder, put_on_path):
    names = put_on_path(folder)
    with fresh_registry({"QLEARN_LOAD_PLUGINS": names[0], "QLEARN_STRICT_PLUGINS": "1"}) as registry:
        for _ in range(2):
            with pytest.raises(PluginError, match=names[0]) as caught:
                default_registry()
            assert len(getattr(caught.value, "__notes__", [])) == len(registry.failures)


def test_strict_0_is_not_strict(put_on_path):
    names = put_on_path("importerror")
    environ = {"QLEARN_LOAD_PLUGINS": names[0], "QLEARN_STRICT_PLUGINS": "0"}
    with fresh_registry(environ), pytest.warns(PluginWarning):
        default_registry()


def test_a_distribution_without_a_name(tmp_path, monkeypatch):
    info = tmp_path / "nameless-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("")
    (info / "entry_points.txt").write_text("[qlearn]\nx = y\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    _, failures = discover()
    assert [f.info.name for f in failures if "nameless" in f.info.name]


def test_an_entry_point_that_is_there_twice(tmp_path, monkeypatch):
    info = tmp_path / "fake_twice-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-twice\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[qlearn]\nx = first\nx = second\nx = first\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = load_all({"QLEARN_LOAD_PLUGINS": "fake-twice"})
    assert any("first and second" in f.error for f in loaded.failures)


def test_a_broken_message_does_not_break_the_host(tmp_path, monkeypatch):
    info = tmp_path / "fake_mute-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-mute\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[qlearn]\nmute = fake_mute\n")
    body = "class Mute(Exception):\n    def __str__(self):\n        raise RuntimeError\n\nraise Mute\n"
    (tmp_path / "fake_mute.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    (failure,) = build_registry({"QLEARN_LOAD_PLUGINS": "fake-mute"}).failures
    assert failure.error == "Mute: (its message cannot be printed)"


def test_trace_prints_loads_and_calls(put_on_path, capsys):
    names = put_on_path("good", "raises")
    build_registry({"QLEARN_LOAD_PLUGINS": ",".join(names), "QLEARN_TRACE_PLUGINS": "1"})
    out, err = capsys.readouterr()
    assert not out
    assert "qlearn: fake-good:good load fake_good (" in err
    assert "qlearn: fake-good:good qlearn_schemes() -> wide, narrow (" in err
    assert "qlearn: fake-raises:raises qlearn_calibrators() -> ValueError: the coffee is cold (" in err
    assert "qlearn: qlearn:builtins qlearn_calibrators() -> minmax, moving_average, mean_std" in err


def test_listing_imports_no_torch():
    code = "import sys, qlearn.registry as r; print(r.plugins()); sys.exit('torch' in sys.modules)"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("QLEARN_")}
    environ["QLEARN_LOAD_PLUGINS"] = ""
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "symmetric_restricted" in done.stdout
