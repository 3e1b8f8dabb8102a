"""The table of plugins: as text, as HTML, as JSON, and the story behind a failure."""

from __future__ import annotations

import dataclasses
import html
import json
from dataclasses import dataclass
from typing import Any, Literal

from qlearn.errors import PluginError
from qlearn.hookspecs import API_VERSION
from qlearn.registry.records import Offer, PluginFailure, PluginInfo, canonical, one_line

Status = Literal["ok", "shadowed", "conflict", "empty", "off", "FAILED"]

SCHEMA_VERSION = 1
"""Version of the JSON. New keys may come within a version; none goes away or changes its meaning."""

_COLUMNS = ("kind", "name", "provider", "version", "status", "summary")
_WIDEST_SUMMARY = 100


@dataclass(frozen=True, kw_only=True)
class PluginRow:
    """One row: a calibrator, a scheme, an engine, or a plugin that offers nothing.

    Parameters
    ----------
    kind : {"calibrator", "scheme", "engine", "-"}
    name : str
        Name of the calibrator, scheme or engine; name of the plugin where the kind is ``"-"``.
    qualified_name : str
        ``"provider:name"``.
    provider, version : str
        Distribution and its version.
    plugin : str
        Name of the entry point.
    builtin : bool
        True for what qlearn itself brings.
    status : {"ok", "shadowed", "conflict", "empty", "off", "FAILED"}
        shadowed: a built-in has the name. conflict: two plugins have it. The qualified name works for both.
        empty: the plugin offers nothing. off: ``QLEARN_LOAD_PLUGINS`` leaves it out.
    summary : str
        What it does, or what went wrong, in one line.
    reference : str
    traits : tuple of str
    api_version : int or None
    """

    kind: Literal["calibrator", "scheme", "engine", "-"]
    name: str
    qualified_name: str
    provider: str
    version: str
    plugin: str
    builtin: bool
    status: Status
    summary: str
    reference: str = ""
    traits: tuple[str, ...] = ()
    api_version: int | None = None


@dataclass(frozen=True, repr=False)
class PluginTable:
    """What is installed, what it offers and what failed. ``print(table)`` shows it.

    Parameters
    ----------
    rows : tuple of PluginRow
    failures : tuple of PluginFailure
    host_version : str
    """

    rows: tuple[PluginRow, ...]
    failures: tuple[PluginFailure, ...]
    host_version: str

    def select(self, *, kind: str | None = None, builtin: bool | None = None) -> PluginTable:
        """Return the rows of one kind, or only the built-in (or only the third-party) ones.

        Failures are third-party and of no kind: they stay unless ``builtin=True``.
        """
        rows = [r for r in self.rows if kind is None or r.kind in (kind, "-")]
        rows = [r for r in rows if builtin is None or r.builtin == builtin]
        return dataclasses.replace(self, rows=tuple(rows), failures=() if builtin else self.failures)

    def records(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries, ready for JSON or a data frame."""
        return [{**dataclasses.asdict(row), "traits": list(row.traits)} for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON: ``schema``, ``qlearn``, ``api_version``, ``plugins``.

        Holds no tracebacks, hence no paths of this machine.
        """
        return {
            "schema": SCHEMA_VERSION,
            "qlearn": self.host_version,
            "api_version": API_VERSION,
            "plugins": self.records(),
        }

    def to_json(self) -> str:
        """Return `to_dict` as text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)

    def traceback(self, name: str) -> str:
        """Return the traceback of a plugin that failed.

        Parameters
        ----------
        name : str
            Name of the plugin or of its distribution, or ``"distribution:plugin"``.

        Raises
        ------
        PluginError
            If nothing of that name failed.
        """
        wanted = canonical(name)
        told = [f for f in self.failures if wanted in _names_of(f)]
        if told:
            return "\n".join(f"{f.info}\n{f.traceback.rstrip()}\n" for f in told)
        failed = ", ".join(f.info.name for f in self.failures) or "none"
        raise PluginError(f"no plugin {name!r} among those that failed: {failed}")

    def __repr__(self) -> str:
        cells = [tuple(c.upper() for c in _COLUMNS), *(_cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(_COLUMNS))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]
        return "\n".join([*lines, *self._footnotes()])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{c}</th>" for c in _COLUMNS)
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(c)}</td>' for c in _cells(row))}</tr>" for row in self.rows)
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self._footnotes())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"

    def _footnotes(self) -> list[str]:
        """Return what the status column needs to be understood."""
        notes = [
            f"{row.status}: {reason}. Write {row.qualified_name!r}."
            for row in self.rows
            if (reason := _REASONS.get(row.status))
        ]
        failed = list(dict.fromkeys(f.info.name for f in self.failures))
        if failed:
            counted = "1 plugin failed." if len(failed) == 1 else f"{len(failed)} plugins failed."
            notes.append(f"{counted} Details: qlearn plugins --traceback {failed[0]}   Disable: QLEARN_LOAD_PLUGINS=''")
        return notes


def offer_row(offer: Offer, status: Status) -> PluginRow:
    """Return the row of a calibrator, a scheme or an engine."""
    return PluginRow(
        kind=offer.kind,
        name=offer.name,
        qualified_name=offer.qualified,
        provider=offer.info.provider,
        version=offer.info.version,
        plugin=offer.info.name,
        builtin=offer.info.origin == "builtin",
        status=status,
        summary=offer.spec.summary,
        reference=offer.spec.reference,
        traits=tuple(sorted(trait.name for trait in getattr(offer.spec, "traits", ()))),
        api_version=offer.spec.api_version,
    )


def plugin_row(info: PluginInfo, status: Status, summary: str) -> PluginRow:
    """Return the row of a plugin that offers nothing, or of one of its hooks that failed."""
    return PluginRow(
        kind="-",
        name=info.name,
        qualified_name=f"{info.provider}:{info.name}",
        provider=info.provider,
        version=info.version,
        plugin=info.name,
        builtin=False,
        status=status,
        summary=summary,
    )


_REASONS: dict[str, str] = {
    "shadowed": "a built-in has this name",
    "conflict": "more than one plugin has this name",
}


def _names_of(failure: PluginFailure) -> set[str]:
    name, provider = failure.info.name, failure.info.provider
    return {canonical(n) for n in (name, provider, f"{provider}:{name}")}


def _cells(row: PluginRow) -> tuple[str, ...]:
    texts = [one_line(getattr(row, column)) for column in _COLUMNS]
    if len(texts[-1]) > _WIDEST_SUMMARY:
        texts[-1] = texts[-1][: _WIDEST_SUMMARY - 1] + "…"
    return tuple(texts)
