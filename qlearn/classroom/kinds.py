"""Kinds of exercises: write a function, find a value, choose an answer.

Each kind knows how to judge an answer. A verdict is a list of lines to print, or nothing if the answer is right.
None of them ever shows a solution: only what a failing case was given, what came back, and what should have.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.classroom.compare import difference, show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RANDOM_CASES = 20
"""Cases drawn by the generator of a function exercise, on top of the literal ones."""


class NotAnsweredError(Exception):
    """The stub is still empty; the text says how one can tell."""


@dataclass(frozen=True, kw_only=True)
class FunctionExercise:
    """Write a function.

    Parameters
    ----------
    id : str
        Chapter and number: ``"01.2"``.
    title : str
    spec : callable
        What is asked for, in plain Python loops.
    cases : sequence of dict
        Arguments by name, easiest first: the first one that fails is shown.
    draw : callable
        Takes a NumPy generator and the number of the case; returns further arguments, boundary cases among them.
    """

    id: str
    title: str
    spec: Callable[..., Any]
    cases: Sequence[Mapping[str, Any]]
    draw: Callable[[np.random.Generator, int], Mapping[str, Any]]

    @property
    def tests(self) -> int:
        """Number of cases that an answer has to pass."""
        return len(self.cases) + RANDOM_CASES

    def all_cases(self) -> list[Mapping[str, Any]]:
        """Return the literal cases, then the drawn ones; always the same."""
        rng = np.random.default_rng(0)
        return [*self.cases, *(self.draw(rng, number) for number in range(RANDOM_CASES))]

    def judge(self, answer: Any) -> list[str]:
        """Return no lines if every case passes, else the report of the first that does not."""
        if answer is None:
            raise NotAnsweredError("the answer is None")
        if not callable(answer):
            return [f"a function is asked for, but this is {_kind(answer)}: pass its name, without parentheses"]
        for number, case in enumerate(self.all_cases(), start=1):
            expected = self.spec(**copy.deepcopy(dict(case)))
            try:
                yours = answer(*copy.deepcopy(list(case.values())))
            except Exception as error:  # whatever the reader's code raises is an answer to report, not a crash
                reason = f"raised {type(error).__name__}: {error}"
            else:
                if yours is None and number == 1:
                    raise NotAnsweredError("your function returns None")
                problem = difference(yours, expected)
                if problem is None:
                    continue
                reason = show(yours) + (f"   ({problem})" if problem else "")
            return [f"test {number} of {self.tests} fails", *_report(case, reason, show(expected))]
        return []


@dataclass(frozen=True, kw_only=True)
class ValueExercise:
    """Find one value. A wrong one gets a hint, never the right one.

    Parameters
    ----------
    id, title : str
    value : int, float or array_like
    hint : str
        For an answer of the right kind that is wrong.
    """

    id: str
    title: str
    value: Any
    hint: str

    tests = 1

    def judge(self, answer: Any) -> list[str]:
        """Return no lines if the value is right."""
        if answer is None:
            raise NotAnsweredError("the answer is None")
        if callable(answer):
            return ["a value is asked for, but this is a function: call it, and pass what it returns"]
        problem = difference(answer, self.value)
        if problem is None:
            return []
        return [f"{show(answer)} is not it{f' ({problem})' if problem else ''}. {self.hint}"]


@dataclass(frozen=True, kw_only=True)
class ChoiceExercise:
    """Choose an answer by its letter; each wrong one gets its reason.

    Parameters
    ----------
    id, title : str
    right : str
        A letter.
    why_not : mapping of letter to str
        One reason per wrong letter.
    """

    id: str
    title: str
    right: str
    why_not: Mapping[str, str]

    tests = 1

    def judge(self, answer: Any) -> list[str]:
        """Return no lines if the letter is right."""
        letters = sorted([self.right, *self.why_not])
        if answer is None:
            raise NotAnsweredError("the answer is None")
        letter = answer.strip().lower().strip("().") if isinstance(answer, str) else answer
        if letter not in letters:
            return [f"answer with one letter in quotes, {', '.join(letters)}: got {show(answer)}"]
        return [] if letter == self.right else [f'not "{letter}": {self.why_not[letter]}']


Exercise = FunctionExercise | ValueExercise | ChoiceExercise


def _report(case: Mapping[str, Any], yours: str, expected: str) -> list[str]:
    given = ", ".join(f"{name}={show(value)}" for name, value in case.items())
    return [f"  input     {given}", f"  Yours     {yours}", f"  Expected  {expected}"]


def _kind(answer: Any) -> str:
    name = type(answer).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
