"""``qlearn plugins new``: the package that it writes is found, works, and passes the kit."""

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import qlearn.testing
from qlearn.cli import main, new
from qlearn.registry import fresh_registry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "plugin_in_five_minutes.md").read_text(encoding="utf-8")
TEMPLATE = Path(new.__file__).parent / "template"
KINDS = ("calibrator", "scheme")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_it_prints_the_files_and_what_to_type_next(capsys):
    assert main(["plugins", "new", "my_rule"]) == 0
    assert capsys.readouterr().out.replace(os.sep, "/").splitlines() == [
        "qlearn-my-rule/README.md",
        "qlearn-my-rule/pyproject.toml",
        "qlearn-my-rule/qlearn_my_rule.py",
        "qlearn-my-rule/tests/test_my_rule.py",
        "",
        "Next:",
        "  pip install -e qlearn-my-rule",
        "  qlearn plugins --third-party",
        "  pytest qlearn-my-rule",
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["peak", "my_rule", "a__b_", "none"])
def test_the_name_is_everywhere(name, kind):
    texts = new.files(name, kind)
    project = tomllib.loads(texts["pyproject.toml"])
    ((entry, module),) = project["project"]["entry-points"]["qlearn"].items()
    assert entry == name
    assert f"{module}.py" in texts
    assert project["project"]["name"] == new.distribution(name) == module.replace("_", "-")
    for path, text in texts.items():
        assert "mine" not in (path + text).lower()
        if path.endswith(".py"):
            compile(text, path, "exec")
    assert f"{kind.capitalize()}Suite" in texts[f"tests/test_{name}.py"]
    assert f'qlearn.{kind}("{name}")' in texts["README.md"]


def test_what_the_book_shows_is_what_is_written():
    texts = new.files("mine", "calibrator")
    shown = {
        "pyproject.toml": "pyproject.toml",
        "calibrator.py": "qlearn_mine.py",
        "test_mine.py": "tests/test_mine.py",
    }
    for template, path in shown.items():
        assert (TEMPLATE / f"{template}.txt").read_text(encoding="utf-8") == texts[path]
        assert f"{{literalinclude}} ../qlearn/cli/template/{template}.txt" in PAGE


def test_the_calibrator_of_a_notebook_in_the_book_works():
    code = PAGE.split("```python\n")[1].split("```")[0]
    with fresh_registry({"QLEARN_LOAD_PLUGINS": ""}):
        exec(code, {"__name__": "notebook"})
        calibrator = qlearn.calibrator("ninety")
        calibrator.observe(torch.tensor([-1.0, 2.0]))
        assert calibrator.compute_range(qlearn.scheme("affine")) == qlearn.ClipRange(-0.9, 1.8)


@pytest.mark.parametrize("kind", KINDS)
def test_it_passes_the_kit(kind, monkeypatch):
    folder = new.write("peak", kind, Path())
    spec = importlib.util.spec_from_file_location("qlearn_peak", folder / "qlearn_peak.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "qlearn_peak", module)
    spec.loader.exec_module(module)
    (record,) = getattr(module, f"qlearn_{kind}s")()
    report = getattr(qlearn.testing, f"check_{kind}")(record)
    assert report.ok, report


ERRORS = {
    "capital": (["Peak"], "name 'Peak' must be a letter"),
    "dash": (["my-rule"], "name 'my-rule' must be a letter"),
    "digit": (["3peaks"], "name '3peaks' must be a letter"),
    "path": (["../peak"], "name '../peak' must be a letter"),
    "empty": ([""], "name '' must be a letter"),
    "built-in calibrator": (["minmax"], "calibrator 'minmax' is a built-in"),
    "built-in scheme": (["affine", "--kind", "scheme"], "scheme 'affine' is a built-in"),
    "there already": (["taken"], "qlearn-taken exists already"),
    "no folder": (["peak", "--into", "nowhere"], "cannot be written: No such file or directory"),
    "a file": (["peak", "--into", "file"], "cannot be written"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_write_nothing(case, capsys, tmp_path):
    (tmp_path / "qlearn-taken").mkdir()
    (tmp_path / "file").write_text("")
    arguments, message = ERRORS[case]
    assert main(["plugins", "new", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("qlearn: error: ")
    assert message in captured.err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "qlearn-taken"]


def test_a_scheme_may_have_the_name_of_a_calibrator_and_options_come_in_any_order(tmp_path):
    (tmp_path / "two words").mkdir()
    assert main(["plugins", "--kind", "scheme", "new", "minmax", "--into", "two words"]) == 0
    assert "SchemeSuite" in (tmp_path / "two words/qlearn-minmax/tests/test_minmax.py").read_text()


@pytest.mark.slow
def test_both_kinds_install_into_a_clean_environment_and_pass_their_tests(tmp_path):
    """From qlearn's wheel, so the templates have to be in it; without a network. The book shows what is printed."""
    spec = importlib.util.spec_from_file_location("package_check", ROOT / "tools" / "package_check.py")
    package_check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package_check)
    python = package_check.clean_environment(tmp_path / "environment")
    environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "QLEARN_LOAD_PLUGINS")}

    def call(*command):
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def install(*folders):
        call(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", *folders)

    install(ROOT)
    qlearn = python.with_name("qlearn")
    assert f"$ qlearn plugins new mine\n{call(qlearn, 'plugins', 'new', 'mine')}" in PAGE
    install(tmp_path / "qlearn-mine")
    assert f"$ qlearn plugins --third-party\n{call(qlearn, 'plugins', '--third-party')}" in PAGE
    counted = call(qlearn, "plugins", "check", "mine").splitlines()[-1]
    assert counted in PAGE or torch.cuda.is_available()  # where CUDA is, there is one check more

    call(qlearn, "plugins", "new", "my_scheme", "--kind", "scheme")
    install(tmp_path / "qlearn-my-scheme")
    for folder in ("qlearn-mine", "qlearn-my-scheme"):
        assert "passed" in call(python, "-P", "-m", "pytest", "--quiet", "-p", "no:cacheprovider", folder)
    listed = json.loads(call(qlearn, "plugins", "--strict", "--third-party", "--json"))
    assert [(row["kind"], row["name"], row["provider"], row["status"]) for row in listed["plugins"]] == [
        ("calibrator", "mine", "qlearn-mine", "ok"),
        ("scheme", "my_scheme", "qlearn-my-scheme", "ok"),
    ]
