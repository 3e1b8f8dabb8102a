"""What `make test` runs notices one wrong digit, formula or label: each is planted in a copy, and the copy fails there.

The unchanged copy passes first. Commands are those of the Makefile, on the part of the project that they are about.
"""

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SEED = 0
DIGITS, LABELS = 3, 3  # how many of each are changed; formulas are in the table below

pytestmark = pytest.mark.slow


def recipe(target):
    """What the Makefile runs under a target, as the words after ``python -m pytest``, in one process."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    line = re.search(rf"^{target}:.*\n\t\$\(BIN\)/python -m pytest (.*)$", text, re.MULTILINE)[1]
    return shlex.split(line.replace("$(PARALLEL)", ""))


def pytest_in(folder, *words):
    """Run pytest in a folder whose own qlearn comes first; return its exit status and what it printed."""
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", *words],
        cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def failures(printed):
    """What pytest says has failed, without repetitions."""
    return set(re.findall(r"^FAILED (\S+)", printed, re.MULTILINE))


def changed(text, rng, places):
    """Replace the digit at one of the places by another digit."""
    at = rng.choice(places)
    return text[:at] + rng.choice([d for d in "0123456789" if d != text[at]]) + text[at + 1 :]


# (a) One digit of a committed output.


def texts(output):
    """Where an output keeps what nbval compares: (dictionary, key), pictures aside."""
    if output["output_type"] == "stream":
        return [(output, "text")]
    return [(output.get("data", {}), mime) for mime in output.get("data", {}) if mime.startswith("text/")]


def text_of(value):
    return value if isinstance(value, str) else "".join(value)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_that_a_notebook_prints_is_sanitized_away(path):
    """So every digit of an output is compared; of pictures inside HTML, only the pictures are not."""
    from nbval.plugin import get_sanitize_patterns

    patterns = get_sanitize_patterns((ROOT / "tests" / "nbval.cfg").read_text(encoding="utf-8"))
    outputs = [o for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] for o in cell.get("outputs", [])]
    printed = [text_of(holder[key]) for output in outputs for holder, key in texts(output)]
    assert sum(map(str.isdigit, "".join(printed))) > 100
    for text in printed:
        for pattern in dict(patterns):
            assert all(found.startswith("data:image/png") for found in re.findall(pattern, text))


def slice_of(path, count):
    """The start of a notebook: its first `count` code cells and what stands between them."""
    notebook, codes = json.loads(path.read_text(encoding="utf-8")), 0
    for end, cell in enumerate(notebook["cells"]):
        codes += cell["cell_type"] == "code"
        if codes > count:
            return {**notebook, "cells": notebook["cells"][:end]}
    return notebook


def test_a_changed_digit_in_an_output_fails_in_its_cell(tmp_path):
    notebook = slice_of(ROOT / "notebooks" / "01_schemes.ipynb", 12)
    folder, file = tmp_path / "notebooks", tmp_path / "notebooks" / "01_schemes.ipynb"
    folder.mkdir()
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "nbval.cfg", tmp_path / "tests")
    file.write_text(json.dumps(notebook), encoding="utf-8")
    status, printed = pytest_in(tmp_path, *recipe("chapters"))
    assert status == 0, printed

    rng = random.Random(SEED)
    codes = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    found = {}  # number of a cell as nbval counts -> its texts with digits
    for number, cell in enumerate(codes):
        kept = [(h, k) for output in cell["outputs"] for h, k in texts(output) if re.search(r"\d", text_of(h[k]))]
        if kept:
            found[number] = kept
    mutated = sorted(rng.sample(sorted(found), DIGITS))
    for number in mutated:
        holder, key = rng.choice(found[number])
        text = text_of(holder[key])
        holder[key] = changed(text, rng, [i for i, letter in enumerate(text) if letter in "0123456789"])
    file.write_text(json.dumps(notebook), encoding="utf-8")
    status, printed = pytest_in(tmp_path, *recipe("chapters"))
    assert status == 1, printed
    failed = {int(cell) for cell in re.findall(r"^FAILED \S*01_schemes\.ipynb::Cell (\d+)", printed, re.MULTILINE)}
    assert failed == set(mutated), printed
    assert printed.count("mismatch") >= DIGITS


# (b) One formula of a kernel, (c) one label or formula of an exercise.


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """What the tests of kernels and exercises need of the project."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("qlearn", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "notebooks"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture
def planted(copy):
    """Return a function that replaces text in a file of the copy, which is mended afterwards."""
    former = {}

    def plant(name, before, after):
        path = copy / name
        former.setdefault(path, path.read_text(encoding="utf-8"))
        text = path.read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{name} has changed: {before!r} stands there {text.count(before)} times"
        path.write_text(text.replace(before, after), encoding="utf-8")

    yield plant
    for path, text in former.items():
        path.write_text(text, encoding="utf-8")


REFERENCE, REQUANTIZE = "qlearn/integer/reference.py", "qlearn/integer/requantize.py"
KERNEL_TESTS = (REFERENCE, REQUANTIZE, "tests/integer/test_reference.py", "tests/integer/test_requantize.py")
FORMULAS = {
    "zero point of the input": (REFERENCE, "x.astype(np.float64) - x_zero, (", "x.astype(np.float64) + x_zero, ("),
    "zero point of the weights": (
        REFERENCE,
        "taps = weight.astype(np.float64) -",
        "taps = weight.astype(np.float64) +",
    ),
    "ties to even": (REFERENCE, "steps = np.rint(", "steps = np.floor("),
    "half of the last shift": (REQUANTIZE, "(np.abs(values) + half) >> right", "np.abs(values) >> right"),
}
CAUGHT_IN = {
    "zero point of the input": "conv2d",
    "zero point of the weights": "conv2d",
    "ties to even": "reference.quantize",
}
"""What the name of a failing test holds; the others are about policy fixed."""


def test_the_copy_of_the_kernels_passes(copy):
    status, printed = pytest_in(copy, *recipe("unit"), *KERNEL_TESTS)
    assert status == 0, printed


@pytest.mark.parametrize("what", FORMULAS)
def test_a_changed_formula_in_a_kernel_fails_in_its_tests(what, copy, planted):
    planted(*FORMULAS[what])
    status, printed = pytest_in(copy, *recipe("unit"), *KERNEL_TESTS)
    assert status == 1, printed
    assert any(CAUGHT_IN.get(what, "fixed") in test for test in failures(printed)), printed


EXERCISE_TESTS = "tests/classroom/test_exercises.py"
CHOICE = re.compile(r'id="(\d\d\.\d)"(?:(?!id=").)*?right="(\w)"', re.DOTALL)


def choices(folder):
    """(file, number of the exercise, place of the label) of every question whose answer is a letter."""
    files = sorted((folder / "qlearn" / "classroom").glob("chapter_*.py"))
    return [(f, m[1], m.start(2)) for f in files for m in CHOICE.finditer(f.read_text(encoding="utf-8"))]


def test_the_copy_of_the_exercises_passes(copy):
    status, printed = pytest_in(copy, *recipe("unit"), EXERCISE_TESTS)
    assert status == 0, printed


def test_a_changed_label_or_formula_fails_in_its_exercise(copy, planted):
    """The right letter of a few questions becomes a wrong one, and one checker computes something else."""
    rng = random.Random(SEED)
    mutated = rng.sample(choices(copy), LABELS)
    for file, _, at in sorted(mutated, key=lambda one: -one[2]):
        text = file.read_text(encoding="utf-8")
        other = rng.choice([letter for letter in "abc" if letter != text[at]])
        head = text[text.rindex("id=", 0, at) : at]
        planted(file.relative_to(copy).as_posix(), head + text[at] + '"', head + other + '"')
    planted("qlearn/classroom/chapter_03.py", "constant -= weight * x_zero", "constant += weight * x_zero")
    status, printed = pytest_in(copy, *recipe("unit"), EXERCISE_TESTS)
    assert status == 1, printed
    failed = str(failures(printed))
    for number in [*(number for _, number, _ in mutated), "03.2"]:
        assert f"test_solution_passes[{number}]" in failed, printed
    others = set(re.findall(r"test_solution_passes\[(.*?)\]", failed)) - {number for _, number, _ in mutated} - {"03.2"}
    assert not others, printed
