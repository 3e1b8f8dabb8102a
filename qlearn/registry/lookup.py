"""Names: which calibrator, scheme or engine a name means, who offers it, and what to say when it means nothing."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from qlearn import __version__
from qlearn.calibrators.spec import CalibratorSpec
from qlearn.engines.spec import EngineSpec
from qlearn.errors import (
    PluginConflictError,
    PluginError,
    UnknownCalibratorError,
    UnknownEngineError,
    UnknownSchemeError,
)
from qlearn.registry.loader import flag, load_all, offers_of
from qlearn.registry.records import (
    RECORD_TYPES,
    Kind,
    Offer,
    PluginFailure,
    PluginInfo,
    SilentPlugin,
    canonical,
    check_record,
)
from qlearn.registry.table import PluginTable, Status, offer_row, plugin_row
from qlearn.schemes.base import SchemeSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNKNOWN: dict[Kind, type[UnknownCalibratorError | UnknownSchemeError | UnknownEngineError]] = {
    "calibrator": UnknownCalibratorError,
    "scheme": UnknownSchemeError,
    "engine": UnknownEngineError,
}

SINGLE_RECORD = "register"
"""Plugin name of a record that was registered by itself."""


@dataclass(frozen=True)
class Registry:
    """All names, frozen. `register` makes a new registry and leaves this one as it is.

    Parameters
    ----------
    offers : tuple of Offer
        Built-ins first, then plugins sorted by distribution and entry point, then this session's.
    failures : tuple of PluginFailure
    silent : tuple of SilentPlugin
        Installed, but empty or switched off.
    strict : bool
        Raise where otherwise a warning would do.

    Examples
    --------
    >>> registry = build_registry({"QLEARN_LOAD_PLUGINS": ""})
    >>> registry.calibrators["minmax"].spec.summary
    'full observed range'
    >>> registry.find("scheme", "qlearn:affine").name
    'affine'
    """

    offers: tuple[Offer, ...]
    failures: tuple[PluginFailure, ...] = ()
    silent: tuple[SilentPlugin, ...] = ()
    strict: bool = False

    @cached_property
    def calibrators(self) -> Mapping[str, Offer]:
        """Bare name -> what is offered, for every calibrator that a bare name reaches. Read-only."""
        return self._names("calibrator")

    @cached_property
    def schemes(self) -> Mapping[str, Offer]:
        """Bare name -> what is offered, for every scheme that a bare name reaches. Read-only."""
        return self._names("scheme")

    @cached_property
    def engines(self) -> Mapping[str, Offer]:
        """Bare name -> what is offered, for every engine that a bare name reaches. Read-only."""
        return self._names("engine")

    def find(self, kind: Kind, name: str) -> Offer:
        """Return who offers a name.

        Parameters
        ----------
        kind : {"calibrator", "scheme", "engine"}
        name : str
            Bare (``"aciq"``) or qualified by the distribution (``"qlearn-aciq:aciq"``).

        Raises
        ------
        UnknownCalibratorError, UnknownSchemeError, UnknownEngineError
            If nobody offers it. The message has close matches and the plugins that failed to load.
        PluginConflictError
            If two plugins offer it.
        """
        if not isinstance(name, str):
            raise _UNKNOWN[kind](f"the name of a {kind} is text: got {name!r}")
        provider, colon, bare = name.rpartition(":")
        matches = [o for o in self.offers if o.kind == kind and o.name == bare]
        if colon:
            matches = [o for o in matches if canonical(o.info.provider) == canonical(provider)]
        builtin = [o for o in matches if o.info.origin == "builtin"]
        if builtin or len(matches) == 1:
            return (builtin or matches)[0]
        if matches:
            raise PluginConflictError(_conflict(kind, name, matches))
        raise _UNKNOWN[kind](self._unknown(kind, name))

    def status(self, offer: Offer) -> Status:
        """Return ``"ok"``, ``"shadowed"`` (a built-in has the name) or ``"conflict"`` (a plugin has it)."""
        rivals = [o for o in self.offers if (o.kind, o.name) == (offer.kind, offer.name) and o is not offer]
        if not rivals or offer.info.origin == "builtin":
            return "ok"
        return "shadowed" if any(o.info.origin == "builtin" for o in rivals) else "conflict"

    def warnings(self) -> list[str]:
        """Return what the user should know: plugins that failed, and names that a built-in keeps."""
        shadowed = [
            f"{offer} has the name of a built-in of qlearn {__version__}: write {offer.qualified!r}"
            for offer in self.offers
            if self.status(offer) == "shadowed"
        ]
        return [f"left out: {failure}" for failure in self.failures] + shadowed

    def table(self) -> PluginTable:
        """Return the table that ``qlearn plugins`` prints."""
        rows = [offer_row(o, self.status(o)) for kind in RECORD_TYPES for o in self.offers if o.kind == kind]
        notes = {"empty": "offers nothing", "off": "left out by QLEARN_LOAD_PLUGINS"}
        rows += [plugin_row(s.info, s.status, notes[s.status]) for s in self.silent]
        rows += [plugin_row(f.info, "FAILED", f.error) for f in self.failures]
        return PluginTable(tuple(rows), self.failures, __version__)

    def with_session(self, plugin: object) -> Registry:
        """Return a registry that has a record or a plugin object of this session, instead of a former one."""
        if isinstance(plugin, (CalibratorSpec, SchemeSpec, EngineSpec)):
            kind = next(kind for kind, record in RECORD_TYPES.items() if isinstance(plugin, record))
            info = _session_info(SINGLE_RECORD)
            spec = check_record(plugin, kind, __version__)
            offers: tuple[Offer, ...] = (Offer(kind=kind, spec=spec, info=info),)
        else:
            of = type(plugin)
            info = _session_info(str(getattr(plugin, "__name__", f"{of.__module__}.{of.__qualname__}")))
            offers = offers_of(plugin, info, trace=flag(os.environ, "QLEARN_TRACE_PLUGINS"))
        names = {(o.kind, o.name) for o in offers}
        kept = [o for o in self.offers if not (o.info.origin == "session" and _replaced(o, info, names))]
        return replace(self, offers=(*kept, *offers))

    def without_session(self, name: str) -> Registry:
        """Return a registry without what this session registered under a name."""
        session = [o for o in self.offers if o.info.origin == "session"]
        gone = [o for o in session if name in (o.name, o.qualified, o.info.name)]
        if not gone:
            names = ", ".join(sorted({o.name for o in session})) or "nothing"
            raise PluginError(
                f"{name!r} was not registered in this session (registered: {names}); "
                "installed plugins are left out with QLEARN_LOAD_PLUGINS"
            )
        return replace(self, offers=tuple(o for o in self.offers if o not in gone))

    def _names(self, kind: Kind) -> Mapping[str, Offer]:
        return MappingProxyType({o.name: o for o in self.offers if o.kind == kind and self.status(o) == "ok"})

    def _unknown(self, kind: Kind, name: str) -> str:
        """Return the message for a name that nobody offers."""
        available = list(self._names(kind))
        available += [o.qualified for o in self.offers if o.kind == kind and self.status(o) != "ok"]
        close = difflib.get_close_matches(name, available, n=3)
        parts = [f"no {kind} {name!r}."]
        if close:
            parts.append(f"Did you mean {' or '.join(map(repr, close))}?")
        parts += [f"{name!r} is {'an' if o == 'engine' else 'a'} {o}." for o in RECORD_TYPES if name in self._names(o)]
        parts.append(f"Available: {', '.join(available)}.")
        if self.failures:
            parts.append("Failed to load: " + "; ".join(str(failure) for failure in self.failures) + ".")
        off = [s.info.provider for s in self.silent if s.status == "off"]
        if off:
            parts.append(f"Left out by QLEARN_LOAD_PLUGINS: {', '.join(off)}.")
        return " ".join(parts)


def build_registry(environ: Mapping[str, str] | None = None) -> Registry:
    """Load the built-ins and the installed plugins into a new registry; the default registry stays as it is.

    Parameters
    ----------
    environ : mapping, optional
        Where the ``QLEARN_…`` variables are read; ``os.environ`` unless told.

    Examples
    --------
    >>> list(build_registry({"QLEARN_LOAD_PLUGINS": ""}).schemes)
    ['affine', 'symmetric', 'symmetric_restricted']
    """
    environ = os.environ if environ is None else environ
    loaded = load_all(environ)
    strict = flag(environ, "QLEARN_STRICT_PLUGINS")
    return Registry(loaded.offers, loaded.failures, loaded.silent, strict)


def _conflict(kind: Kind, name: str, matches: list[Offer]) -> str:
    """Return the message for a name that more than one plugin offers."""
    providers = " and ".join(str(o.info) for o in matches)
    qualified = list(dict.fromkeys(o.qualified for o in matches))
    if len(qualified) == 1:
        return f"{kind} {name!r} is offered by {providers}: one of them has to be renamed by its author"
    return f"{kind} {name!r} is offered by {providers}: write {' or '.join(map(repr, qualified))}"


def _session_info(name: str) -> PluginInfo:
    return PluginInfo(name=name, provider="session", version="-", origin="session")


def _replaced(former: Offer, info: PluginInfo, names: set[tuple[Kind, str]]) -> bool:
    """Return True if a newly registered plugin takes the place of a former offer of this session."""
    same_plugin = info.name != SINGLE_RECORD and former.info.name == info.name
    return same_plugin or (former.kind, former.name) in names
