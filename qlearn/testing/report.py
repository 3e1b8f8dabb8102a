"""What the kit found: as text, as HTML, as a record for JSON."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from qlearn.registry.records import Kind

Outcome = Literal["passed", "failed", "expected"]

_MARKS: dict[Outcome, str] = {"passed": "passed", "failed": "FAILED", "expected": "expected"}


@dataclass(frozen=True)
class Result:
    """What came of one check.

    Parameters
    ----------
    id : str
        Name of the check, and of the parameters where there are several sets.
    check : str
        Name of the check.
    rule : str
        What it asks for, in one line.
    outcome : {"passed", "failed", "expected"}
        expected: it failed, and was expected to. One that was expected to fail and passes has failed.
    message : str
        Rule, input, got and remedy of a failure; empty if the check passed.
    reason : str
        Why it is expected to fail; empty if it is not.
    """

    id: str
    check: str
    rule: str
    outcome: Outcome
    message: str = ""
    reason: str = ""


@dataclass(frozen=True, repr=False)
class Report:
    """All results for one calibrator or scheme. ``print(report)`` shows them, the number of checks last.

    Parameters
    ----------
    kind : {"calibrator", "scheme"}
        The kit has no checks of engines.
    name : str
        Qualified: ``"qlearn:minmax"``.
    title : str
        In words: ``"calibrator 'minmax' of qlearn 0.1.0"``.
    results : tuple of Result

    Examples
    --------
    >>> report = Report("scheme", "session:mine", "scheme 'mine' of this session", (
    ...     Result("monotone", "monotone", "A larger value never gets a smaller code.", "passed"),))
    >>> report
    scheme 'mine' of this session
      passed    monotone
    1 passed, 0 failed, 0 expected to fail: 1 check
    >>> report.ok, report.total
    (True, 1)
    """

    kind: Kind
    name: str
    title: str
    results: tuple[Result, ...]

    @property
    def passed(self) -> int:
        """Number of checks that passed."""
        return self._count("passed")

    @property
    def failed(self) -> int:
        """Number of checks that failed, or were expected to fail and passed."""
        return self._count("failed")

    @property
    def expected(self) -> int:
        """Number of checks that failed as expected."""
        return self._count("expected")

    @property
    def total(self) -> int:
        """Number of checks that ran."""
        return len(self.results)

    @property
    def ok(self) -> bool:
        """True if checks ran and none failed."""
        return self.total > 0 and self.failed == 0

    @property
    def failures(self) -> tuple[Result, ...]:
        """The results that failed."""
        return tuple(result for result in self.results if result.outcome == "failed")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a dictionary, ready for JSON."""
        counts = {"passed": self.passed, "failed": self.failed, "expected": self.expected, "total": self.total}
        results = [asdict(result) for result in self.results]
        return {"kind": self.kind, "name": self.name, "ok": self.ok, **counts, "results": results}

    def __repr__(self) -> str:
        lines = [self.title]
        for result in self.results:
            lines.append(f"  {_MARKS[result.outcome]:<8}  {result.id}{_because(result)}")
            if result.outcome == "failed":
                lines += [f"      {line}" for line in result.message.splitlines()]
        return "\n".join([*lines, self._footnote()])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{column}</th>" for column in ("", "check", "rule"))
        body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in _cells(result))}</tr>" for result in self.results)
        title, note = html.escape(self.title), html.escape(self._footnote())
        return f"<p>{title}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{note}</p>"

    def _count(self, outcome: Outcome) -> int:
        return sum(result.outcome == outcome for result in self.results)

    def _footnote(self) -> str:
        """Return the counts in words."""
        checks = f"{self.total} check{'' if self.total == 1 else 's'}"
        return f"{self.passed} passed, {self.failed} failed, {self.expected} expected to fail: {checks}"


def _because(result: Result) -> str:
    return f"  ({result.reason})" if result.outcome == "expected" else ""


def _cells(result: Result) -> tuple[str, str, str]:
    told = result.message if result.outcome == "failed" else result.rule
    text = html.escape(told + _because(result)).replace("\n", "<br>")
    return _MARKS[result.outcome], html.escape(result.id), text
