"""The first cell of a chapter."""

import random
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
import torch

import qlearn as ql
from qlearn import classroom
from qlearn.classroom import environment
from qlearn.errors import QLearnError


def test_ready_in_one_stable_line(capsys):
    ql.check_environment()
    assert capsys.readouterr().out == "qlearn 0.1 is ready (numpy, torch, matplotlib found).\n"


def test_missing_package_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(environment, "NEEDED", {"numpy": (1, 26), "no_such_package": (2, 0)})
    with pytest.raises(QLearnError, match=r"no_such_package 2\.0 or newer \(not found\).*pip install 'qlearn\[lab\]'"):
        ql.check_environment()


def test_old_package_is_named_with_its_version(monkeypatch):
    monkeypatch.setattr(environment.metadata, "version", lambda name: "1.9.1+cpu")
    with pytest.raises(QLearnError, match=r"numpy 1\.26 or newer \(found 1\.9\.1\+cpu\); torch 2\.4 or newer"):
        ql.check_environment()


def test_old_python_is_named(monkeypatch):
    monkeypatch.setattr(environment, "OLDEST_PYTHON", (99, 0))
    with pytest.raises(QLearnError, match=r"Python 99\.0 or newer"):
        ql.check_environment()


def test_package_without_metadata_will_do(monkeypatch, capsys):
    def unknown(name):
        raise environment.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(environment.metadata, "version", unknown)
    ql.check_environment()
    assert "ready" in capsys.readouterr().out


@pytest.fixture
def _printing():
    former = np.get_printoptions()
    yield
    np.set_printoptions(**former)
    torch.set_printoptions(profile="default")


@pytest.mark.usefixtures("_printing")
def test_setup_makes_numbers_repeat():
    drawn = []
    for _ in range(2):
        classroom.setup(seed=3)
        drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: NPY002
    assert drawn[0] == drawn[1]
    classroom.setup(seed=4)
    assert torch.rand(1).item() != drawn[0][2]
    assert torch.get_num_threads() == 1


@pytest.mark.usefixtures("_printing")
def test_setup_leaves_matplotlib_alone():
    before = dict(mpl.rcParams)
    classroom.setup()
    assert dict(mpl.rcParams) == before


@pytest.mark.slow
def test_a_notebook_shows_the_axes_that_a_cell_returns():
    program = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
from qlearn import classroom, viz
classroom.setup()
data, _ = shell.display_formatter.format(viz.pipeline_strip(title="the map"))
assert sorted(data) == ["image/png", "text/plain"], data.keys()
assert data["text/plain"] == "Figure: the map", data["text/plain"]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_results_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QLearnError, match="start Jupyter in the folder notebooks/"):
        classroom.results_folder()
    (tmp_path / "notebooks" / "results").mkdir(parents=True)
    assert classroom.results_folder() == "notebooks/results"
    (tmp_path / "student").mkdir()
    monkeypatch.chdir(tmp_path / "student")
    assert classroom.results_folder() == "../notebooks/results"
    deep = tmp_path / "student" / "autograded" / "ada" / "01"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert classroom.results_folder() == "../../../../notebooks/results"
    monkeypatch.chdir(tmp_path / "notebooks")
    assert classroom.results_folder() == "results"
