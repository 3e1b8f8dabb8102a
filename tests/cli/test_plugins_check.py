"""`qlearn plugins check`: text, JSON, exit codes, names."""

import json

import pytest
from testing.good import Extremes, Plain
from testing.scheme_mutants import CountsCodes

import qlearn as ql
from qlearn import __version__
from qlearn.cli import main
from qlearn.registry import fresh_registry


@pytest.fixture(autouse=True)
def _session():
    """A registry with a good and a bad record of this session."""
    with fresh_registry({"QLEARN_LOAD_PLUGINS": ""}):
        traits = frozenset({ql.Trait.MERGEABLE})
        ql.register(ql.CalibratorSpec(name="both", factory=Extremes, summary="extremes", traits=traits))
        ql.register(ql.SchemeSpec(name="both", factory=Plain, summary="affine"))
        ql.register(ql.SchemeSpec(name="codes", factory=CountsCodes, summary="counts codes"))
        yield


def run(capsys, *arguments):
    code = main(["plugins", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("name", ["affine", "qlearn:affine"])
def test_one_line_for_each_check_and_the_count(capsys, name):
    code, out, err = run(capsys, "check", name)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == f"scheme 'affine' of qlearn {__version__}"
    assert all(line.startswith("  passed    ") for line in lines[1:-1])
    assert lines[-1] == f"{len(lines) - 2} passed, 0 failed, 0 expected to fail: {len(lines) - 2} checks"


def test_a_failure_is_shown_and_is_exit_code_1(capsys):
    code, out, _ = run(capsys, "check", "codes")
    assert code == 1
    assert "  FAILED    covers_range\n      covers_range: The integers reach both ends" in out
    assert out.splitlines()[-1] == "20 passed, 1 failed, 0 expected to fail: 21 checks"


def test_a_name_of_both_kinds_runs_both(capsys):
    code, out, _ = run(capsys, "check", "both")
    assert code == 0
    assert "calibrator 'both' of this session" in out
    assert "scheme 'both' of this session" in out
    reports = json.loads(run(capsys, "check", "session:both", "--json")[1])["reports"]
    assert [report["kind"] for report in reports] == ["calibrator", "scheme"]


@pytest.mark.parametrize("arguments", [("check", "codes", "--json"), ("--json", "check", "codes")])
def test_json(capsys, arguments):
    code, out, _ = run(capsys, *arguments)
    document = json.loads(out)
    assert code == 1
    assert set(document) == {"schema", "qlearn", "ok", "reports"}
    assert (document["schema"], document["qlearn"], document["ok"]) == (1, __version__, False)
    (report,) = document["reports"]
    assert set(report) == {"kind", "name", "ok", "passed", "failed", "expected", "total", "results"}
    assert (report["name"], report["passed"], report["failed"], report["total"]) == ("session:codes", 20, 1, 21)
    failed = [result for result in report["results"] if result["outcome"] == "failed"]
    assert [result["check"] for result in failed] == ["covers_range"]
    assert failed[0]["message"].startswith("covers_range: ")


def test_an_unknown_name(capsys):
    code, out, err = run(capsys, "check", "afine")
    assert (code, out) == (1, "")
    assert "no calibrator 'afine'" in err
    assert "no scheme 'afine'. Did you mean 'affine'?" in err


def test_without_a_name_it_is_a_wrong_call(capsys):
    with pytest.raises(SystemExit) as left:
        main(["plugins", "check"])
    assert left.value.code == 2
    assert "NAME" in capsys.readouterr().err
