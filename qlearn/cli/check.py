"""``qlearn plugins check``: run the conformance kit on what a name stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qlearn import __version__
from qlearn.cli.document import print_json
from qlearn.errors import PluginError, UnknownCalibratorError, UnknownSchemeError
from qlearn.registry import default_registry
from qlearn.testing import check_calibrator, check_scheme

if TYPE_CHECKING:
    import argparse

    from qlearn.registry.records import Kind
    from qlearn.testing import Report

SCHEMA_VERSION = 1
"""Version of the JSON. New keys may come within a version; none goes away or changes its meaning."""


def run(arguments: argparse.Namespace) -> int:
    """Print one line for each check, and the number of checks. 1 if one failed."""
    reports = [_check(kind, arguments.name) for kind in _kinds(arguments.name)]
    ok = all(report.ok for report in reports)
    if arguments.json:
        found = [report.to_dict() for report in reports]
        print_json({"schema": SCHEMA_VERSION, "qlearn": __version__, "ok": ok, "reports": found})
    else:
        print("\n\n".join(str(report) for report in reports))
    return 0 if ok else 1


def _check(kind: Kind, name: str) -> Report:
    return check_calibrator(name) if kind == "calibrator" else check_scheme(name)


def _kinds(name: str) -> list[Kind]:
    """Return what the name stands for: a calibrator, a scheme, or both."""
    kinds: tuple[Kind, ...] = ("calibrator", "scheme")
    found: list[Kind] = []
    unknown = []
    for kind in kinds:
        try:
            default_registry().find(kind, name)
            found.append(kind)
        except (UnknownCalibratorError, UnknownSchemeError) as error:
            unknown.append(str(error))
    if not found:
        raise PluginError(" ".join(unknown))
    return found
