"""``ql.check``: tell a reader whether an answer is right, and where it goes wrong, but never the solution.

In a notebook an exercise is a heading, a hint, an answer cell, a check cell and a collapsed solution cell.
The answer cell holds a stub that runs: its function, or its value, is None.
For that `check` prints ``01.1 is not answered yet``, which is what the committed notebook shows,
what a reader sees on the first "Run all", and what nbval compares. It is not an error.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from qlearn.classroom.kinds import NotAnsweredError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qlearn.classroom.kinds import Exercise


@functools.cache
def exercises() -> Mapping[str, Exercise]:
    """Return all exercises by id: the ``EXERCISES`` of every module ``qlearn.classroom.chapter_NN``.

    Examples
    --------
    >>> sorted(exercises())[0]
    '00.1'
    """
    from qlearn import classroom

    names = sorted(module.name for module in pkgutil.iter_modules(classroom.__path__) if "chapter_" in module.name)
    chapters = [importlib.import_module(f"qlearn.classroom.{name}") for name in names]
    return {exercise.id: exercise for chapter in chapters for exercise in chapter.EXERCISES}


def check(id: str, answer: Any) -> bool:  # noqa: A002  (what readers call it)
    """Check an answer; print the verdict.

    Parameters
    ----------
    id : str
        Of the exercise: ``"01.2"``.
    answer : function, value or letter
        What the exercise asks for.

    Returns
    -------
    bool
        True if the answer is right. An exercise that is not answered yet gives False and a friendly line.

    Examples
    --------
    >>> check("00.1", None)
    00.1 is not answered yet: the answer is None.
      Fill in the cell above, then run this one again.
    False
    >>> def weight_bytes(weights, bits):
    ...     return weights * bits // 8
    >>> check("00.1", weight_bytes)
    ✘ 00.1 test 2 of 23 fails
      input     weights=3, bits=4
      Yours     1
      Expected  2
    False
    """
    known = exercises()
    if id not in known:
        print(f"There is no exercise {id!r}; there are {', '.join(sorted(known))}.")
        return False
    try:
        lines = known[id].judge(answer)
    except NotAnsweredError as error:
        print(f"{id} is not answered yet: {error}.\n  Fill in the cell above, then run this one again.")
        return False
    if lines:
        print(f"✘ {id} " + "\n".join(lines))
        return False
    tests = known[id].tests
    print(f"✔ {id} passed ({tests} test{'s' if tests > 1 else ''})")
    return True
