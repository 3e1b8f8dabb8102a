"""The conformance kit: what a calibrator or a scheme has to keep to, as checks that its author runs.

Three ways lead to the same checks:

====================================  ==============================================================================
`CalibratorSuite`, `SchemeSuite`      in the tests of a plugin: a pytest class of three lines, one test for each check
`check_calibrator`, `check_scheme`    in a notebook: a report, also for a class defined there; needs no pytest
``qlearn plugins check``              in a shell, with the name of what is installed
====================================  ==============================================================================

A check is never skipped.
What a calibrator declares (`qlearn.Trait`) takes checks away and puts others in their place,
and the declaration itself is checked.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

_pytest = sys.modules.get("pytest")  # there in a test run; elsewhere it need not even be installed
if _pytest is not None:
    _pytest.register_assert_rewrite("qlearn.testing.suites")

from qlearn.testing.plan import run  # noqa: E402  (after the line above)
from qlearn.testing.report import Report, Result  # noqa: E402
from qlearn.testing.suites import CalibratorSuite, SchemeSuite  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from qlearn.calibrators.spec import Calibrator, CalibratorSpec, Trait
    from qlearn.schemes.base import Scheme, SchemeSpec
    from qlearn.testing.plan import Params

__all__ = ["CalibratorSuite", "Report", "Result", "SchemeSuite", "check_calibrator", "check_scheme"]


def check_calibrator(
    calibrator: str | CalibratorSpec | Callable[..., Calibrator],
    /,
    *,
    params: Params | Sequence[Params] = (),
    traits: Iterable[Trait] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Run the conformance kit on a calibrator.

    Parameters
    ----------
    calibrator : str, CalibratorSpec, class or function
        A name as for `qlearn.calibrator`, a record, or what makes one: ``factory(*, channel_axis=None, **params)``.
    params : mapping or sequence of mappings
        Parameters of the factory; each set gets all checks. Evidence for a declared trait is wanted of the first.
    traits : iterable of Trait, optional
        What a class or function declares; a record has its own.
    expected_failures : mapping, optional
        Name of a check -> why it fails. When it passes all the same, that is a failure.

    Returns
    -------
    Report

    Raises
    ------
    PluginError
        If nobody offers the name, if a record has a fault, or if `expected_failures` names no check that runs.

    Examples
    --------
    >>> report = check_calibrator("minmax")
    >>> report.failed
    0
    """
    return run("calibrator", calibrator, params, expected_failures, traits)


def check_scheme(
    scheme: str | SchemeSpec | Callable[..., Scheme],
    /,
    *,
    params: Params | Sequence[Params] = (),
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Run the conformance kit on a scheme.

    Parameters
    ----------
    scheme : str, SchemeSpec, class or function
        A name as for `qlearn.scheme`, a record, or what makes one: ``factory(*, bits=8, signed=True, **params)``.
    params : mapping or sequence of mappings
        Parameters of the factory besides bits and signed; each set gets all checks.
    expected_failures : mapping, optional
        Name of a check -> why it fails. When it passes all the same, that is a failure.

    Returns
    -------
    Report

    Raises
    ------
    PluginError
        If nobody offers the name, if a record has a fault, or if `expected_failures` names no check that runs.

    Examples
    --------
    >>> check_scheme("affine").failed
    0
    """
    return run("scheme", scheme, params, expected_failures)
