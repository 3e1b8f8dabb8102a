"""The kit as pytest classes: each check is a test of its own, so that ``-k`` and ``--lf`` work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from qlearn.errors import PluginError
from qlearn.testing import plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pytest

    from qlearn.registry.records import Kind
    from qlearn.testing.plan import Case, Params

_LOOK_UP = "look_up"


class _Suite:
    """What the two suites share."""

    kind: ClassVar[Kind]
    name: ClassVar[str] = ""
    params: ClassVar[Sequence[Params]] = ()
    expected_failures: ClassVar[Mapping[str, str]] = {}

    _ran: ClassVar[set[str]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._ran = set()

    @classmethod
    def cases(cls) -> list[Case]:
        """Return what the kit promises for this class."""
        return plan.cases(plan.find(cls.kind, cls.name), cls.params, cls.expected_failures)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one test of each check. pytest calls this while it collects."""
        import pytest  # here, so that the rest of the kit works without it

        if "case" not in metafunc.fixturenames:
            return
        try:
            cases = self.cases()
        except PluginError:  # told by the tests, not by a collection that breaks down
            metafunc.parametrize("case", [pytest.param(None, id=_LOOK_UP)])
            return
        metafunc.parametrize(
            "case",
            [
                pytest.param(
                    case,
                    id=case.id,
                    marks=[pytest.mark.xfail(reason=case.expected, strict=True)] if case.expected else [],
                )
                for case in cases
            ],
        )

    def test_check(self, case: Case | None) -> None:
        """Run one check."""
        __tracebackhide__ = True
        if case is None:
            self.cases()  # raises what is wrong with the name or with expected_failures
            return
        self._ran.add(case.id)
        case.run()

    def test_suite_is_complete(self, request: pytest.FixtureRequest) -> None:
        """Fail if fewer checks ran than the kit promises: a green run that skipped them says nothing.

        Where only a part was asked for (``-k``, ``--lf``, one of several workers), the rest is run here.
        """
        promised = self.cases()
        distributed = hasattr(request.config, "workerinput")
        due = set() if distributed else self._due(request)
        skipped = sorted(case.id for case in promised if case.id in due - self._ran)
        assert not skipped, (
            f"{len(skipped)} of {len(promised)} checks of {self.kind} {self.name!r} did not run: {', '.join(skipped)}. "
            "Do not skip a check: write its name and a reason into expected_failures."
        )
        for case in promised:
            if case.id not in self._ran:
                result = case.judge()
                assert result.outcome != "failed", result.message
        print(f"{len(promised)} checks of {self.kind} {self.name!r}")  # noqa: T201  (shown by pytest -rP)

    def _due(self, request: pytest.FixtureRequest) -> set[str]:
        """Return the checks of this class that pytest was to run before this test."""
        items = request.session.items
        before = items[: items.index(request.node)] if request.node in items else []
        mine = [item for item in before if getattr(item, "cls", None) is type(self)]
        calls = [item.callspec.params.get("case") for item in mine if hasattr(item, "callspec")]
        return {case.id for case in calls if case is not None}


class CalibratorSuite(_Suite):
    """The conformance kit for one calibrator, as a test class of three lines.

    Attributes
    ----------
    name : str
        Looked up as `qlearn.calibrator` does, which proves the entry point too.
    params : sequence of mappings
        Parameters of the factory; each set gets all checks. Without it: the defaults.
    expected_failures : mapping
        Name of a check -> reason. It has to fail: when it passes, the entry has to go.

    Examples
    --------
    >>> class TestAciq(CalibratorSuite):
    ...     name = "aciq"
    """

    kind = "calibrator"


class SchemeSuite(_Suite):
    """The conformance kit for one scheme, as a test class of three lines.

    Attributes
    ----------
    name : str
        Looked up as `qlearn.scheme` does, which proves the entry point too.
    params : sequence of mappings
        Parameters of the factory besides bits and signed; each set gets all checks.
    expected_failures : mapping
        Name of a check -> reason. It has to fail: when it passes, the entry has to go.

    Examples
    --------
    >>> class TestPow2(SchemeSuite):
    ...     name = "pow2"
    ...     params = [{}, {"restricted": True}]
    """

    kind = "scheme"
