"""What is checked: who offers it, with which parameters, and which checks that makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from qlearn import __version__
from qlearn.calibrators.spec import CalibratorSpec, Trait
from qlearn.errors import ConformanceError, PluginError
from qlearn.registry import default_registry
from qlearn.registry.calls import make
from qlearn.registry.records import Kind, Offer, PluginInfo, check_record
from qlearn.schemes.base import SchemeSpec
from qlearn.testing import (
    calibrator_invariance,
    calibrator_layout,
    calibrator_life,
    calibrator_merge,
    calibrator_range,
    scheme_numbers,
    scheme_qparams,
)
from qlearn.testing.report import Report, Result

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qlearn.testing.checks import Check

Params = Mapping[str, Any]
Target = str | CalibratorSpec | SchemeSpec | Callable[..., Any]

_HOMES = {
    "calibrator": (calibrator_life, calibrator_range, calibrator_invariance, calibrator_merge, calibrator_layout),
    "scheme": (scheme_qparams, scheme_numbers),
}
CHECKS: dict[Kind, tuple[Check, ...]] = {
    "calibrator": tuple(check for module in _HOMES["calibrator"] for check in module.CHECKS),
    "scheme": tuple(check for module in _HOMES["scheme"] for check in module.CHECKS),
}
"""All checks of the kit, in the order in which they run."""


@dataclass(frozen=True)
class Maker:
    """What a check calls to get a new calibrator or scheme: the factory with the parameters under test.

    The call goes the way of `qlearn.calibrator` and `qlearn.scheme`: what the factory takes and returns is checked.
    """

    offer: Offer
    params: Params

    def __call__(self, **more: Any) -> Any:
        """Make one; `more` are parameters that a check adds, such as ``channel_axis``."""
        return make(self.offer, {**self.params, **more})


@dataclass(frozen=True)
class Case:
    """One check with one set of parameters.

    Parameters
    ----------
    id : str
        ``"split_invariance"``, with several sets of parameters ``"split_invariance-percent=99.9"``.
    check : Check
    maker : Maker
    expected : str
        Why it is expected to fail; empty if it is not.
    """

    id: str
    check: Check
    maker: Maker
    expected: str = ""

    def run(self) -> None:
        """Run the check; ConformanceError if it fails."""
        __tracebackhide__ = True
        if self.maker.offer.kind == "calibrator":
            self.check.run(self.maker, traits_of(self.maker.offer))
        else:
            self.check.run(self.maker)

    def judge(self) -> Result:
        """Run the check and return its result; an expected failure that passes has failed."""
        outcome: Literal["passed", "failed", "expected"] = "passed"
        message = ""
        try:
            self.run()
        except ConformanceError as error:
            outcome, message = ("expected" if self.expected else "failed"), str(error)
        else:
            if self.expected:
                outcome = "failed"
                message = f"{self.id}: expected to fail ({self.expected}), but it passes.\n"
                message += "  remedy  Take it out of expected_failures."
        return Result(self.id, self.check.name, self.check.rule, outcome, message, self.expected)


def find(kind: Kind, target: Target, traits: Iterable[Trait] | None = None) -> Offer:
    """Return the offer behind a name, a record, or a class or function of one's own.

    Raises
    ------
    PluginError
        If nobody offers the name, if the record has a fault, or if traits are given where a record declares them.
    """
    if isinstance(target, str):
        offer = default_registry().find(kind, target)
    else:
        spec = target if isinstance(target, (CalibratorSpec, SchemeSpec)) else _record(kind, target, traits)
        info = PluginInfo(name="check", provider="session", version="-", origin="session")
        offer = Offer(kind=kind, spec=check_record(spec, kind, __version__), info=info)
    if traits is not None and (isinstance(target, str) or offer.spec is target):
        raise PluginError(f"{offer}: its traits are those of its record; give traits only with a class or a function")
    return offer


def _record(kind: Kind, factory: Callable[..., Any], traits: Iterable[Trait] | None) -> CalibratorSpec | SchemeSpec:
    """Write the record that a class or function of one's own does not have."""
    if not callable(factory):
        raise PluginError(f"a name, a record, a class or a function is needed: got {factory!r}")
    words = "".join(c if c.isalnum() and c.isascii() else "_" for c in getattr(factory, "__name__", kind)).strip("_")
    name = words.lower() if words[:1].isalpha() else f"{kind}_{words}".lower().rstrip("_")
    summary = f"{kind} of this session"
    if kind == "scheme":
        return SchemeSpec(name=name, factory=factory, summary=summary)
    return CalibratorSpec(name=name, factory=factory, summary=summary, traits=frozenset(traits or ()))


def traits_of(offer: Offer) -> frozenset[Trait]:
    """Return what a calibrator declares; nothing for a scheme."""
    return offer.spec.traits if isinstance(offer.spec, CalibratorSpec) else frozenset()


def cases(
    offer: Offer, params: Params | Sequence[Params] = (), expected: Mapping[str, str] | None = None
) -> list[Case]:
    """Return everything that the kit promises to check, in order.

    Parameters
    ----------
    offer : Offer
    params : mapping or sequence of mappings
        Parameters of the factory; each set gets all checks. Evidence for a declared trait is wanted of the first.
    expected : mapping, optional
        Id or name of a check that is to fail -> reason.

    Raises
    ------
    PluginError
        If `expected` names a check that does not run, or `params` holds something else than mappings.
    """
    expected = expected or {}
    sets: Sequence[Params] = [params] if isinstance(params, Mapping) else list(params) or [{}]
    if not all(isinstance(one, Mapping) for one in sets):
        raise PluginError(
            f"params is a mapping, or a sequence of mappings, one for each run of the kit: got {params!r}"
        )
    applying = [check for check in CHECKS[offer.kind] if check.applies(traits_of(offer)) and check.where()]
    found = []
    for number, one in enumerate(sets):
        words = ",".join(f"{key}={value}" for key, value in one.items()) or "default"
        for check in applying:
            if not (check.once and number):
                id_ = check.name if len(sets) == 1 else f"{check.name}-{words}"
                reason = expected.get(id_, expected.get(check.name, ""))
                found.append(Case(id_, check, Maker(offer, dict(one)), reason))
    known = {name for case in found for name in (case.id, case.check.name)}
    unknown = sorted(set(expected) - known)
    if unknown:
        raise PluginError(
            f"expected_failures names {', '.join(unknown)}, "
            f"but the checks of {offer} are {', '.join(sorted({case.check.name for case in found}))}"
        )
    return found


def run(
    kind: Kind,
    target: Target,
    params: Params | Sequence[Params] = (),
    expected: Mapping[str, str] | None = None,
    traits: Iterable[Trait] | None = None,
) -> Report:
    """Run the kit and return the report."""
    offer = find(kind, target, traits)
    return Report(kind, offer.qualified, str(offer), tuple(case.judge() for case in cases(offer, params, expected)))
