"""What a name means: bare, qualified, taken twice, unknown; and which plugins are let in."""

from __future__ import annotations

import pytest

from qlearn.errors import (
    PluginConflictError,
    PluginError,
    UnknownCalibratorError,
    UnknownEngineError,
    UnknownSchemeError,
)
from qlearn.registry import build_registry, calibrator, engine, fresh_registry, scheme
from qlearn.registry.calls import make
from qlearn.schemes.affine import AffineScheme
from qlearn.schemes.symmetric import SymmetricScheme

NONE = {"QLEARN_LOAD_PLUGINS": ""}


@pytest.fixture
def _bare():
    with fresh_registry(NONE):
        yield


def providers(registry):
    return [o.info.provider for o in registry.offers if o.info.provider.startswith("fake-")]


@pytest.mark.usefixtures("_bare")
def test_built_ins_through_the_face():
    assert scheme("affine", bits=4) == AffineScheme(bits=4)
    assert scheme("symmetric", signed=False) == SymmetricScheme(signed=False)
    assert scheme("symmetric_restricted") == SymmetricScheme(restricted=True)
    assert scheme("qlearn:affine") == AffineScheme()
    assert calibrator("percentile", percent=99.0, channel_axis=1).percent == 99.0
    assert type(engine("torch")).__name__ == "TorchEngine"
    assert type(calibrator("minmax")).__name__ == "MinMaxCalibrator"


def test_built_in_wins_and_the_plugin_keeps_its_qualified_name(install):
    registry = install("builtin_name")
    assert isinstance(make(registry.find("scheme", "affine"), {}), AffineScheme)
    assert isinstance(make(registry.find("scheme", "fake-builtin-name:affine"), {}), SymmetricScheme)
    (text,) = registry.warnings()
    for content in ("'affine' of fake-builtin-name 1.0", "built-in of qlearn", "'fake-builtin-name:affine'"):
        assert content in text
    assert registry.schemes["affine"].info.provider == "qlearn"


def test_two_plugins_one_name(install):
    registry = install("clash_b", "clash_a")
    with pytest.raises(PluginConflictError) as caught:
        registry.find("scheme", "twin")
    for content in ("'clash_a' of fake-clash-a 1.0", "'clash_b' of fake-clash-b 1.0", "'fake-clash-a:twin' or"):
        assert content in str(caught.value)
    assert registry.find("scheme", "fake-clash-a:twin").spec.summary == "twin a"
    assert registry.find("scheme", "Fake_Clash.B:twin").spec.summary == "twin b"
    assert "twin" not in registry.schemes
    assert not registry.warnings()


def test_two_entry_points_of_one_distribution_one_name(tmp_path, monkeypatch, put_on_path):
    put_on_path("clash_a", "clash_b")
    info = tmp_path / "fake_both-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-both\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[qlearn]\na = fake_clash_a\nb = fake_clash_b\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = build_registry({"QLEARN_LOAD_PLUGINS": "fake-both"})
    with pytest.raises(PluginConflictError, match="renamed by its author"):
        registry.find("scheme", "fake-both:twin")


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        (
            "percentil",
            [
                "no calibrator 'percentil'",
                "Did you mean 'percentile'?",
                "Available: minmax, moving_average, mean_std, percentile, entropy, mse",
            ],
        ),
        ("affine", ["'affine' is a scheme."]),
        ("", ["no calibrator ''"]),
        ("qlearn:nothing", ["no calibrator 'qlearn:nothing'"]),
        ("nobody:minmax", ["no calibrator 'nobody:minmax'", "minmax"]),
        (3, ["is text: got 3"]),
    ],
)
def test_unknown_names(name, contents):
    registry = build_registry(NONE)
    with pytest.raises(UnknownCalibratorError) as caught:
        registry.find("calibrator", name)
    assert isinstance(caught.value, LookupError)
    for content in contents:
        assert content in str(caught.value)


def test_unknown_scheme_names_the_ambiguous_ones_by_their_qualified_names(install):
    with pytest.raises(UnknownSchemeError, match="fake-clash-a:twin, fake-clash-b:twin"):
        install("clash_a", "clash_b").find("scheme", "triplet")


def test_unknown_engine_says_what_there_is(install):
    with pytest.raises(UnknownEngineError, match=r"no engine 'touch'\. Did you mean 'torch'.*reference, torch, echo"):
        install("good").find("engine", "touch")
    with pytest.raises(UnknownSchemeError, match="'torch' is an engine"):
        install().find("scheme", "torch")


@pytest.mark.usefixtures("_bare")
def test_wrong_parameters_name_the_provider_and_what_it_takes():
    with pytest.raises(PluginError) as caught:
        calibrator("percentile", percnt=99)
    for content in (
        "calibrator 'percentile' of qlearn 0.",
        "percent=99.99",
        "channel_axis=None",
        "unexpected keyword argument 'percnt'",
        "did you mean 'percent'?",
    ):
        assert content in str(caught.value)
    with pytest.raises(PluginError, match=r"takes .*signed"):
        scheme("symmetric_restricted", restricted=False)


def test_a_type_error_of_a_factory_tells_what_it_takes(install):
    registry = install("good")
    with pytest.raises(PluginError, match=r"it takes .*keep=") as caught:
        make(registry.find("calibrator", "peak"), {"keep": ["much"]})
    assert isinstance(caught.value.__cause__, TypeError)


def test_other_errors_of_a_factory_pass_with_a_note(install):
    registry = install("good")
    with pytest.raises(ValueError, match="keep is a share") as caught:
        make(registry.find("calibrator", "peak"), {"keep": 2.0})
    assert caught.value.__notes__ == ["raised by the factory of calibrator 'peak' of fake-good 1.2"]


def test_load_plugins_unset_lets_all_in(put_on_path):
    put_on_path("good", "clash_a")
    assert providers(build_registry({})) == ["fake-clash-a", "fake-good", "fake-good", "fake-good", "fake-good"]


def test_load_plugins_empty_lets_none_in(put_on_path):
    put_on_path("good", "importerror")
    registry = build_registry(NONE)
    assert not providers(registry)
    assert not registry.failures
    with pytest.raises(UnknownCalibratorError, match=r"Left out by QLEARN_LOAD_PLUGINS: .*fake-good"):
        registry.find("calibrator", "peak")


@pytest.mark.parametrize("setting", ["fake-good", " Fake_Good ,", "fake.good,fake-good"])
def test_load_plugins_list(setting, put_on_path):
    put_on_path("good", "clash_a")
    assert set(providers(build_registry({"QLEARN_LOAD_PLUGINS": setting}))) == {"fake-good"}


def test_load_plugins_compares_names_as_package_indexes_do(put_on_path, tmp_path, monkeypatch):
    put_on_path("clash_a")
    info = tmp_path / "Fake.Loud-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Fake.Loud\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[qlearn]\nloud = fake_clash_a\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = build_registry({"QLEARN_LOAD_PLUGINS": "fake_loud"})
    assert registry.find("scheme", "fake-loud:twin").info.provider == "Fake.Loud"
    assert not registry.failures


def test_load_plugins_names_what_is_not_there():
    (failure,) = build_registry({"QLEARN_LOAD_PLUGINS": "no-such-plugin"}).failures
    assert failure.info.name == "no-such-plugin"
    assert failure.error == "QLEARN_LOAD_PLUGINS asks for it, but no such qlearn plugin is installed"


def test_order_of_the_path_makes_no_difference(install):
    folders = ["good", "clash_b", "clash_a", "builtin_name", "importerror", "typo"]
    there, back = install(*folders).table(), install(*reversed(folders)).table()
    assert there.to_json() == back.to_json()


def test_the_first_of_two_versions_on_the_path_counts(put_on_path, tmp_path, monkeypatch):
    put_on_path("good")
    info = tmp_path / "fake_good-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Fake.Good\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not providers(build_registry({}))


def test_the_registry_is_read_only():
    registry = build_registry(NONE)
    with pytest.raises(TypeError):
        registry.schemes["mine"] = registry.schemes["affine"]
    with pytest.raises(AttributeError):
        registry.offers = ()
