"""What a check is: a plain function ``check_xxx`` that returns nothing, or raises with rule, input, got and remedy."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec

from qlearn.errors import ConformanceError
from qlearn.registry.records import error_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from qlearn.calibrators.spec import Trait

P = ParamSpec("P")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check of the kit.

    Parameters
    ----------
    name : str
        Name of its function without ``check_``: ``"split_invariance"``.
    rule : str
        What a good calibrator or scheme does, in one line: the docstring of the function.
    remedy : str
        What usually helps.
    run : callable
        The function. It takes a maker, and for calibrators the traits.
    needs, unless : Trait or None
        The check belongs to calibrators with (without) this trait.
    once : bool
        True if the check wants evidence for a declared trait. It runs with the first set of parameters only:
        others may make the calibrator milder.
    where : callable
        Whether the check can run on this machine.
    place : str
        The same in words; empty if it runs everywhere.
    """

    name: str
    rule: str
    remedy: str
    run: Callable[..., None]
    needs: Trait | None = None
    unless: Trait | None = None
    once: bool = False
    where: Callable[[], bool] = lambda: True
    place: str = ""

    @property
    def condition(self) -> str:
        """When the check belongs to the kit, in words: ``"unless ORDER_DEPENDENT"``."""
        words = [f"with {self.needs.name}"] if self.needs else []
        words += [f"unless {self.unless.name}"] if self.unless else []
        words += [self.place] if self.place else []
        return ", ".join(words) or "always"

    def applies(self, traits: frozenset[Trait]) -> bool:
        """Return True if the check belongs to a calibrator with these traits."""
        wanted = self.needs is None or self.needs in traits
        return wanted and (self.unless is None or self.unless not in traits)


class Finding(Exception):  # noqa: N818  (inside the kit only: it becomes a ConformanceError with rule and remedy)
    """What a check found: the input and what came of it."""

    def __init__(self, given: object, got: object) -> None:
        super().__init__(f"{given}: {got}")
        self.given, self.got = given, got


def expect(ok: object, given: object, got: object) -> None:
    """Raise a Finding unless `ok` is true.

    Not an ``assert``: the kit works under ``python -O`` too.
    """
    if not ok:
        raise Finding(given, got)


def raised(error: BaseException, doing: str) -> str:
    """Return words for an exception that should not have come.

    Examples
    --------
    >>> raised(ValueError("no"), "observe()")
    'observe() raised ValueError: no'
    """
    return f"{doing} raised {error_line(error)}"


def message(name: str, rule: str, remedy: str, given: object, got: object) -> str:
    """Return what an author reads when a check fails.

    Examples
    --------
    >>> print(message("positive_scale", "Scales are > 0.", "Use 1 for an empty range.", "[0, 0]", "scale 0"))
    positive_scale: Scales are > 0.
      input   [0, 0]
      got     scale 0
      remedy  Use 1 for an empty range. See book/plugins, check 'positive_scale'.
    """
    return f"{name}: {rule}\n  input   {given}\n  got     {got}\n  remedy  {remedy} See book/plugins, check '{name}'."


def collect(
    into: list[Check],
    *,
    remedy: str,
    needs: Trait | None = None,
    unless: Trait | None = None,
    once: bool = False,
    where: Callable[[], bool] = lambda: True,
    place: str = "",
) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Add a function to a list of checks, and let it raise full messages.

    Parameters
    ----------
    into : list of Check
    remedy, needs, unless, once, where, place
        See `Check`.
    """

    def add(function: Callable[P, None]) -> Callable[P, None]:
        name, rule = function.__name__.removeprefix("check_"), (function.__doc__ or "").split("\n")[0]

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            __tracebackhide__ = True  # pytest shows the message, not the kit
            try:
                function(*args, **kwargs)
            except Finding as found:
                raise ConformanceError(message(name, rule, remedy, found.given, found.got)) from found.__cause__
            except (Exception, SystemExit) as error:  # the author's code: whatever it raises is a failed check
                got = error_line(error)
                raise ConformanceError(message(name, rule, remedy, "see the traceback", got)) from error

        made = Check(
            name=name,
            rule=rule,
            remedy=remedy,
            run=run,
            needs=needs,
            unless=unless,
            once=once,
            where=where,
            place=place,
        )
        into.append(made)
        return run

    return add
