"""The report and the functions that make one: names, records, classes, parameters, expected failures."""

import copy
import functools
import json
import pickle
import subprocess
import sys

import pytest
from testing.good import Extremes, Plain
from testing.mutants import LastBatchOnly, MergeTakesOver
from testing.scheme_mutants import CountsCodes

import qlearn as ql
from qlearn.errors import CalibrationError, ConformanceError, PluginError, QLearnError, UnknownSchemeError
from qlearn.registry import fresh_registry
from qlearn.testing import Report, Result, check_calibrator, check_scheme
from qlearn.testing.calibrator_invariance import check_split_invariance
from qlearn.testing.plan import CHECKS


def test_counts_and_text():
    report = check_scheme(CountsCodes)
    assert (report.passed, report.failed, report.expected, report.total) == (20, 1, 0, 21)
    assert not report.ok
    lines = str(report).splitlines()
    assert lines[0] == "scheme 'countscodes' of this session"
    assert lines[-1] == "20 passed, 1 failed, 0 expected to fail: 21 checks"
    failure = lines.index("  FAILED    covers_range")
    assert lines[failure + 1].strip() == report.failures[0].message.splitlines()[0]
    assert sum(line.startswith("  passed ") for line in lines) == report.passed
    assert repr(report) == str(report)


def test_html_is_escaped_and_complete():
    results = (Result("a", "a", "x < y", "passed"), Result("b", "b", "rule", "failed", "b: <got>\n  got  1"))
    page = Report("scheme", "session:s", "scheme <s>", results)._repr_html_()
    assert page.count("<tr>") == 3
    assert "x &lt; y" in page
    assert "b: &lt;got&gt;<br>" in page
    assert "scheme &lt;s&gt;" in page
    assert page.endswith("<p>1 passed, 1 failed, 0 expected to fail: 2 checks</p>")


def test_record_for_json():
    report = check_scheme("affine")
    record = json.loads(json.dumps(report.to_dict()))
    assert set(record) == {"kind", "name", "ok", "passed", "failed", "expected", "total", "results"}
    assert set(record["results"][0]) == {"id", "check", "rule", "outcome", "message", "reason"}
    assert (record["kind"], record["name"], record["ok"], record["total"]) == ("scheme", "qlearn:affine", True, 21)


def test_no_checks_are_no_success():
    assert not Report("scheme", "session:s", "s", ()).ok


def test_names_records_classes_and_functions():
    by_name = check_scheme("affine")
    spec = ql.SchemeSpec(name="mine", factory=Plain, summary="affine once more")
    for target in (spec, Plain, functools.partial(Plain)):
        report = check_scheme(target)
        assert report.ok, report
        assert report.total == by_name.total
    assert check_calibrator("qlearn:minmax").title.startswith("calibrator 'minmax' of qlearn ")
    with fresh_registry({"QLEARN_LOAD_PLUGINS": ""}):
        ql.register(
            ql.CalibratorSpec(name="mine", factory=Extremes, summary="s", traits=frozenset({ql.Trait.MERGEABLE}))
        )
        assert check_calibrator("mine").ok


def test_traits_decide_which_checks_run():
    plain = {result.check for result in check_calibrator(Extremes).results}
    merging = {result.check for result in check_calibrator(Extremes, traits=[ql.Trait.MERGEABLE]).results}
    assert plain - merging == {"merge_refused"}
    assert merging - plain == {"merge_exact", "many_values"}


def test_several_sets_of_parameters():
    report = check_calibrator("percentile", params=[{}, {"percent": 100.0}])
    ids = [result.id for result in report.results]
    assert len(set(ids)) == len(ids) == report.total
    assert "split_invariance-default" in ids
    assert "split_invariance-percent=100.0" in ids
    # With 100 percent the range is exact: the trait APPROXIMATE has to show with the first parameters only.
    assert [i for i in ids if i.startswith("approximation")] == ["approximation-default"]
    assert report.ok, report


def test_expected_failures_are_strict():
    report = check_calibrator(LastBatchOnly, expected_failures={"split_invariance": "last batch only"})
    assert report.expected == 1
    assert "  expected  split_invariance  (last batch only)" in str(report)
    assert "permutation_invariance" in {failure.check for failure in report.failures}
    report = check_calibrator(Extremes, expected_failures={"split_invariance": "a habit"})
    assert (report.failed, report.expected) == (1, 0)
    assert "expected to fail (a habit), but it passes" in str(report)
    with pytest.raises(PluginError, match="expected_failures names split_invarianc, but the checks"):
        check_calibrator(Extremes, expected_failures={"split_invarianc": "a slip"})
    with pytest.raises(PluginError, match="merge_exact"):  # it does not run without the trait
        check_calibrator(Extremes, expected_failures={"merge_exact": "not mergeable"})


def test_an_expected_failure_may_name_one_set_of_parameters():
    calls = {"params": [{}, {"percent": 100.0}], "expected_failures": {"useful-percent=100.0": "it passes in fact"}}
    report = check_calibrator("percentile", **calls)
    assert [failure.id for failure in report.failures] == ["useful-percent=100.0"]


def test_wrong_calls_are_told():
    with pytest.raises(UnknownSchemeError, match="'affine'"):
        check_scheme("afine")
    with pytest.raises(PluginError, match="its traits are those of its record"):
        check_calibrator("minmax", traits={ql.Trait.MERGEABLE})
    with pytest.raises(PluginError, match="expected a CalibratorSpec, got a SchemeSpec"):
        check_calibrator(ql.SchemeSpec(name="mine", factory=Plain, summary="s"))
    with pytest.raises(PluginError, match="a name, a record, a class or a function is needed: got 3"):
        check_scheme(3)
    with pytest.raises(PluginError, match=r"params is a mapping, or a sequence of mappings.*got \['percent'\]"):
        check_calibrator("percentile", params=["percent"])


def test_a_check_is_a_plain_function():
    check_split_invariance(Extremes, frozenset())
    with pytest.raises(ConformanceError, match=r"split_invariance: .*\n  input   normal data") as caught:
        check_split_invariance(LastBatchOnly, frozenset())
    assert isinstance(caught.value, AssertionError)
    assert isinstance(caught.value, QLearnError)


def test_what_authors_may_raise_is_a_value_error():
    assert issubclass(CalibrationError, ValueError)


class Raises(Extremes):
    """Breaks in every method."""

    def observe(self, x):
        raise ZeroDivisionError("a bug")


def test_a_bug_in_the_authors_code_is_a_failed_check():
    report = check_calibrator(Raises)
    assert report.failed > 20
    assert "observe() raised ZeroDivisionError: a bug" in str(report)


class Exits(Extremes):
    """Ends the program, which must not end the report."""

    def observe(self, x):
        raise SystemExit(3)


def exits(**params):
    raise SystemExit(3)


def test_code_that_ends_the_program_is_a_failed_check():
    assert "SystemExit: 3" in str(check_calibrator(Exits))
    for report in (check_calibrator(exits), check_scheme(exits)):
        assert report.failed == report.total > 20
        assert "the factory tried to end the program (SystemExit: 3)" in str(report)


class NoCalibrator:
    """Lacks everything."""

    def __init__(self, *, channel_axis=None):
        pass


def test_what_is_no_calibrator_fails_the_first_check():
    first = check_calibrator(NoCalibrator).results[0]
    assert (first.check, first.outcome) == ("protocol", "failed")
    assert "it lacks observe(), compute_range(), merge(), reset()" in first.message


def test_error_messages_show_what_merge_did():
    report = check_calibrator(MergeTakesOver, traits={ql.Trait.ORDER_DEPENDENT})
    assert [failure.check for failure in report.failures] == ["channel_count", "merge_refused"]
    assert "one calibrator for all" in str(report)


def test_report_travels():
    report = check_scheme("affine")
    assert pickle.loads(pickle.dumps(report)) == copy.deepcopy(report) == report


@pytest.mark.parametrize("kind", ["calibrator", "scheme"])
def test_each_check_has_a_rule_of_one_line_a_remedy_and_a_name_of_its_own(kind):
    checks = CHECKS[kind]
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        assert 20 < len(check.rule) < 120, check.name
        assert check.rule.endswith("."), check.name
        assert check.remedy.endswith("."), check.name


def test_pytest_is_not_needed():
    program = """
import sys
sys.modules["pytest"] = sys.modules["_pytest"] = None      # importing either is an ImportError now
import qlearn as ql
report = ql.check_scheme("affine")
assert report.ok, report
from qlearn.cli import main
code = main(["plugins", "check", "minmax"])
import qlearn.testing.suites
sys.exit(code)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].endswith("checks")


def test_nothing_is_imported_that_a_notebook_does_not_need():
    program = "import sys, qlearn.testing; print([m for m in ('pytest', 'matplotlib') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
