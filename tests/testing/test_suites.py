"""The suites as an author meets them: a class of three lines in a test file, run by pytest."""

import pytest
from testing.good import Extremes

from qlearn.testing.plan import cases, find

pytest_plugins = ["pytester"]

HEAD = """
import qlearn
from qlearn.testing import CalibratorSuite, SchemeSuite
from testing.good import Extremes
from testing.mutants import LastBatchOnly

for name, cls in (("extremes", Extremes), ("last", LastBatchOnly)):
    qlearn.register(qlearn.CalibratorSpec(name=name, factory=cls, summary=name))
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Return a function that runs a test file in a folder of its own."""
    import qlearn.registry

    monkeypatch.setattr(qlearn.registry, "_session", qlearn.registry._Session())
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # other plugins take longer than the kit
    pytester.makeini("[pytest]\nxfail_strict = true\nfilterwarnings = error\n")

    def run_file(body, *arguments, conftest=""):
        if conftest:
            pytester.makeconftest(conftest)
        pytester.makepyfile(test_it=HEAD + body)
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:unraisableexception", *arguments)

    return run_file


MINMAX = """
class TestExtremes(CalibratorSuite):
    name = "extremes"
"""
CHECKS = len(cases(find("calibrator", Extremes)))  # one more where CUDA is


def test_three_lines_make_one_test_for_each_check(run):
    result = run(MINMAX, "-v", "-rP")
    result.assert_outcomes(passed=CHECKS + 1)
    result.stdout.fnmatch_lines(["*TestExtremes::test_check[[]split_invariance[]] PASSED*"])
    result.stdout.fnmatch_lines([f"{CHECKS} checks of calibrator 'extremes'"])


def test_schemes_with_parameters(run):
    result = run("""
class TestAffine(SchemeSuite):
    name = "affine"
class TestSymmetric(SchemeSuite):
    name = "symmetric"
    params = [{}, {"restricted": True}]
""")
    result.assert_outcomes(passed=3 * 21 + 2)


def test_one_check_can_be_chosen(run):
    run(MINMAX, "-k", "split_invariance").assert_outcomes(passed=1, deselected=CHECKS)
    run(MINMAX, "-k", "complete").assert_outcomes(passed=1, deselected=CHECKS)


def test_a_failure_says_what_to_do(run):
    result = run("""
class TestLast(CalibratorSuite):
    name = "last"
""")
    result.assert_outcomes(failed=2, passed=CHECKS - 1)
    result.stdout.fnmatch_lines(
        [
            "*ConformanceError: split_invariance: The range is the same, bit for bit, however*",
            "*input   normal data of shape (2048,), affine, 8 bits signed, in 3 batches",
            "*got     *; in one batch: *",
            "*remedy  Keep counts or extremes*See book/plugins, check 'split_invariance'.",
        ]
    )


def test_expected_failures_are_strict(run):
    result = run("""
class TestLast(CalibratorSuite):
    name = "last"
    expected_failures = {"split_invariance": "last batch", "permutation_invariance": "last batch", "useful": "a slip"}
""")
    result.assert_outcomes(xfailed=2, failed=1, passed=CHECKS - 2)
    result.stdout.fnmatch_lines(["*XPASS(strict)*a slip*"])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('    name = "extremez"', "*UnknownCalibratorError*Did you mean 'extremes'*"),
        ('    name = "last"\n    expected_failures = {"splits": "a slip"}', "*expected_failures names splits*"),
    ],
)
def test_a_wrong_name_fails_and_does_not_break_the_collection(run, body, told):
    result = run(f"class TestWrong(CalibratorSuite):\n{body}\n")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines([told])


def test_skipped_checks_are_noticed(run):
    conftest = """
import pytest
def pytest_collection_modifyitems(items):
    for item in items:
        if "split" in item.name or "reset" in item.name:
            item.add_marker(pytest.mark.skip(reason="in a hurry"))
"""
    result = run(MINMAX, conftest=conftest)
    result.assert_outcomes(skipped=2, failed=1, passed=CHECKS - 2)
    result.stdout.fnmatch_lines(
        [f"*2 of {CHECKS} checks of calibrator 'extremes' did not run: reset, split_invariance.*"]
    )


def test_checks_that_were_taken_out_run_all_the_same(run):
    conftest = """
def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if "split" not in item.name]
"""
    body = """
class TestLast(CalibratorSuite):
    name = "last"
    expected_failures = {"permutation_invariance": "last batch"}
"""
    result = run(body, conftest=conftest)
    result.assert_outcomes(failed=1, xfailed=1, passed=CHECKS - 2)
    result.stdout.fnmatch_lines(["*split_invariance: The range is the same*"])


def test_an_override_that_does_nothing_does_not_help(run):
    result = run("""
class TestLazy(CalibratorSuite):
    name = "last"
    def test_check(self, case):
        pass
""")
    result.assert_outcomes(failed=1, passed=CHECKS)
    result.stdout.fnmatch_lines(["*split_invariance: The range is the same*"])


def test_two_classes_do_not_count_for_each_other(run):
    result = run(MINMAX + MINMAX.replace("TestExtremes", "TestAgain"))
    result.assert_outcomes(passed=2 * (CHECKS + 1))
