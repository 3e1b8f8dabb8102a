"""Each fault is caught, by the check that names it; each check has caught something."""

import functools

import pytest
import torch
from testing.mutants import CALIBRATORS
from testing.scheme_mutants import SCHEMES

from qlearn.testing import check_calibrator, check_scheme
from qlearn.testing.plan import CHECKS


@functools.cache
def failures(cls, traits=None):
    """Check name -> message, for everything that the kit finds in a mutant."""
    report = check_scheme(cls) if traits is None else check_calibrator(cls, traits=traits)
    return {failure.check: failure.message for failure in report.failures}


def expect_caught(cls, check, found):
    assert check in found, f"{cls.__doc__} Caught by {sorted(found) or 'nothing'}, not by {check}"
    first, *others = found[check].splitlines()
    assert first.startswith(f"{check}: ")
    assert [line.split()[0] for line in others] == ["input", "got", "remedy"]
    assert others[-1].endswith(f"See book/plugins, check '{check}'.")


@pytest.mark.parametrize(("cls", "check", "traits"), [pytest.param(*m, id=m[0].__name__) for m in CALIBRATORS])
def test_calibrator(cls, check, traits):
    expect_caught(cls, check, failures(cls, traits))


@pytest.mark.parametrize(("cls", "check"), [pytest.param(*m, id=m[0].__name__) for m in SCHEMES])
def test_scheme(cls, check):
    expect_caught(cls, check, failures(cls))


def all_failures():
    return {
        "calibrator": [failures(cls, traits) for cls, _, traits in CALIBRATORS],
        "scheme": [failures(cls) for cls, _ in SCHEMES],
    }


def test_all_are_caught(capsys):
    every = [found for kind in all_failures().values() for found in kind]
    caught = sum(map(bool, every))
    with capsys.disabled():
        print(f"\n{caught} of {len(every)} deliberately broken calibrators and schemes caught")
    assert caught == len(every) >= 26


@pytest.mark.parametrize("kind", ["calibrator", "scheme"])
def test_every_check_catches_something(kind):
    names = {check.name for check in CHECKS[kind]}
    idle = names - {name for found in all_failures()[kind] for name in found}
    assert idle <= (set() if torch.cuda.is_available() else {"cuda"})


def test_most_faults_are_told_by_few_checks():
    """A report with one failure says what to do; one with ten says that something is wrong."""
    counts = [len(found) for kind in all_failures().values() for found in kind]
    assert sum(count <= 3 for count in counts) >= 0.6 * len(counts)
