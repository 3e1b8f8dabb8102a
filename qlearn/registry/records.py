"""What the plugin loader passes around: who offers what, what failed, and the check of each record."""

from __future__ import annotations

import re
import reprlib
import traceback
from dataclasses import dataclass
from typing import Any, Literal

from qlearn.calibrators.spec import CalibratorSpec, Trait
from qlearn.engines.spec import EngineSpec
from qlearn.errors import PluginError
from qlearn.hookspecs import API_VERSION
from qlearn.schemes.base import SchemeSpec

Kind = Literal["calibrator", "scheme", "engine"]
Spec = CalibratorSpec | SchemeSpec | EngineSpec

RECORD_TYPES: dict[Kind, type[Spec]] = {
    "calibrator": CalibratorSpec,
    "scheme": SchemeSpec,
    "engine": EngineSpec,
}
HOOKS: dict[str, Kind] = {
    "qlearn_calibrators": "calibrator",
    "qlearn_schemes": "scheme",
    "qlearn_engines": "engine",
}
"""Hook name -> the kind of record that it returns."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class PluginInfo:
    """Who a plugin is.

    Parameters
    ----------
    name : str
        Name of the entry point, ``"aciq"``.
    provider : str
        Distribution that it comes in, ``"qlearn-aciq"``; ``"session"`` for `qlearn.registry.register`.
    version : str
        Version of the distribution, ``"-"`` where there is none.
    origin : {"builtin", "installed", "session"}
    """

    name: str
    provider: str
    version: str
    origin: Literal["builtin", "installed", "session"] = "installed"

    def __str__(self) -> str:
        return f"plugin {self.name!r} of {self.distribution}"

    @property
    def distribution(self) -> str:
        """Provider and version in words."""
        if self.origin == "session":
            return "this session"
        return self.provider if self.version == "-" else f"{self.provider} {self.version}"


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One calibrator, scheme or engine, and who offers it."""

    kind: Kind
    spec: Spec
    info: PluginInfo

    @property
    def name(self) -> str:
        """The bare name, ``"aciq"``."""
        return self.spec.name

    @property
    def qualified(self) -> str:
        """The name that is never ambiguous between distributions, ``"qlearn-aciq:aciq"``."""
        return f"{self.info.provider}:{self.spec.name}"

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} of {self.info.distribution}"


@dataclass(frozen=True, kw_only=True)
class PluginFailure:
    """What went wrong with one plugin, or with one of its hooks.

    Parameters
    ----------
    info : PluginInfo
    error : str
        One line.
    traceback : str
        The whole story, for ``qlearn plugins --traceback NAME``.
    """

    info: PluginInfo
    error: str
    traceback: str

    @classmethod
    def of(cls, info: PluginInfo, error: BaseException) -> PluginFailure:
        """Return the record of an exception that was caught."""
        text = "".join(traceback.format_exception(error))
        return cls(info=info, error=error_line(error), traceback=text)

    def __str__(self) -> str:
        return f"{self.info}: {self.error}. Details: qlearn plugins --traceback {self.info.name}"


@dataclass(frozen=True, kw_only=True)
class SilentPlugin:
    """A plugin that is installed and offers nothing: it returned empty lists, or was switched off."""

    info: PluginInfo
    status: Literal["empty", "off"]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What came of loading plugins."""

    offers: tuple[Offer, ...] = ()
    failures: tuple[PluginFailure, ...] = ()
    silent: tuple[SilentPlugin, ...] = ()


def check_record(record: object, kind: Kind, host_version: str) -> Spec:
    """Return the record if a host of this API version can use it.

    Raises
    ------
    PluginError
        If the type is wrong, the API is newer than the host's, or a field is not what it should be.

    Examples
    --------
    >>> check_record(SchemeSpec(name="Mine", factory=print, summary="s"), "scheme", "0.1.0")
    Traceback (most recent call last):
    ...
    qlearn.errors.PluginError: name 'Mine' must be a letter, then letters, digits and _, all lower-case
    """
    expected = RECORD_TYPES[kind]
    if not isinstance(record, expected):
        raise PluginError(
            f"expected {_article(expected.__name__)}, got a {type(record).__name__}: {reprlib.repr(record)}"
        )
    version = record.api_version
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise PluginError(f"{record.name!r}: api_version must be 1 or more: got {reprlib.repr(version)}")
    if version > API_VERSION:
        raise PluginError(
            f"{record.name!r} is written for plugin API {version}, "
            f"qlearn {host_version} has plugin API {API_VERSION}: upgrade qlearn"
        )
    check_name(record.name)
    _check_fields(record)
    return record


def check_name(name: object) -> None:
    """Raise a PluginError unless this can be the name of a calibrator, scheme or engine."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise PluginError(f"name {reprlib.repr(name)} must be a letter, then letters, digits and _, all lower-case")


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "AEIOU" else f"a {noun}"


def _check_fields(record: Spec) -> None:
    """Check the fields that are only shown or called."""
    if not callable(record.factory):
        raise PluginError(f"{record.name!r}: factory {reprlib.repr(record.factory)} cannot be called")
    if not isinstance(record.summary, str) or not record.summary.strip() or "\n" in record.summary:
        raise PluginError(f"{record.name!r}: summary must be one line: got {reprlib.repr(record.summary)}")
    if not isinstance(record.reference, str):
        raise PluginError(f"{record.name!r}: reference must be text: got {reprlib.repr(record.reference)}")
    traits: Any = getattr(record, "traits", frozenset())
    if not isinstance(traits, frozenset) or not all(isinstance(trait, Trait) for trait in traits):
        raise PluginError(f"{record.name!r}: traits must be a frozenset of Trait: got {reprlib.repr(traits)}")


def error_line(error: BaseException) -> str:
    r"""Return an exception as one line; qlearn's own plugin errors speak for themselves.

    Examples
    --------
    >>> error_line(ValueError("two\nlines"))
    'ValueError: two lines'
    """
    try:
        text = one_line(str(error))
    except Exception:  # somebody's __str__ is broken: the plugin is at fault, not the host
        text = "(its message cannot be printed)"
    if isinstance(error, PluginError) and text:
        return text.rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def one_line(text: str) -> str:
    r"""Return the text without line breaks and control characters.

    Examples
    --------
    >>> one_line("a\n\tb")
    'a b'
    """
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def canonical(distribution: str) -> str:
    """Return a distribution's name as package indexes compare them.

    Examples
    --------
    >>> canonical(" Acme_Quant ")
    'acme-quant'
    """
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()
