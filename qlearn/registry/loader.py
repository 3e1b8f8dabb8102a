"""Find the installed plugins and load them one by one; whatever one of them does, the others still come in.

pluggy checks each plugin against the hooks.
Each gets a plugin manager of its own: a plugin that is refused leaves nothing behind to unregister,
and its implementations are called alone, so that an exception has a name on it.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

from qlearn import __version__, builtins
from qlearn.errors import PluginError
from qlearn.hookspecs import QlearnSpecs
from qlearn.registry.records import (
    HOOKS,
    RECORD_TYPES,
    Loaded,
    Offer,
    PluginFailure,
    PluginInfo,
    SilentPlugin,
    canonical,
    check_record,
    error_line,
    one_line,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "qlearn"


class Implementation(NamedTuple):
    """One implementation of one hook in one plugin."""

    hook: str
    impl: pluggy.HookImpl


def flag(environ: Mapping[str, str], name: str) -> bool:
    """Return True if an environment variable is set to something other than nothing and 0."""
    return environ.get(name, "") not in ("", "0")


def load_all(environ: Mapping[str, str]) -> Loaded:
    """Load the built-ins and every installed plugin that ``QLEARN_LOAD_PLUGINS`` lets in.

    Never raises for a plugin's fault: what went wrong is in ``.failures``.
    """
    trace = flag(environ, "QLEARN_TRACE_PLUGINS")
    info = PluginInfo(name="builtins", provider="qlearn", version=__version__, origin="builtin")
    results = [Loaded(offers=offers_of(builtins, info, trace=trace)), *_load_installed(environ, trace=trace)]
    return Loaded(
        offers=tuple(offer for result in results for offer in result.offers),
        failures=tuple(failure for result in results for failure in result.failures),
        silent=tuple(plugin for result in results for plugin in result.silent),
    )


def offers_of(plugin: object, info: PluginInfo, *, trace: bool = False) -> tuple[Offer, ...]:
    """Return everything one plugin object offers; the first fault is raised."""
    return tuple(o for found in implementations(plugin) for o in call_hook(found, info, trace=trace))


def implementations(plugin: object) -> list[Implementation]:
    """Return the hook implementations of a plugin object.

    Raises
    ------
    PluginError
        If it implements no hook, an unknown one, one with the wrong arguments, or a wrapper.
    """
    if isinstance(plugin, type):
        raise PluginError(f"{plugin.__name__} is a class: give an instance of it, or a module")
    manager = pluggy.PluginManager("qlearn")
    manager.add_hookspecs(QlearnSpecs)
    try:
        manager.register(plugin, name="it")
    except pluggy.PluginValidationError as error:
        raise PluginError(f"{one_line(str(error))} (the hooks are {_hook_list()})") from error
    except Exception as error:  # its attributes cannot even be listed
        raise PluginError(f"it cannot be searched for hooks: {error_line(error)}") from error
    callers = manager.get_hookcallers(plugin) or []
    found = [Implementation(caller.name, impl) for caller in callers for impl in caller.get_hookimpls()]
    for hook, impl in found:
        _check_implementation(hook, impl)
    unmarked = [n for n in HOOKS if n in dir(plugin) and manager.parse_hookimpl_opts(plugin, n) is None]
    if unmarked:
        raise PluginError(f"{', '.join(unmarked)} is there, but @qlearn.hookimpl is missing above it")
    if not found:
        raise PluginError(f"it implements no hook: @qlearn.hookimpl marks one (the hooks are {_hook_list()})")
    return sorted((f for f in found if f.hook in HOOKS), key=lambda f: list(HOOKS).index(f.hook))


def call_hook(found: Implementation, info: PluginInfo, *, trace: bool = False) -> tuple[Offer, ...]:
    """Call one implementation and return what it offers: all of its records, or none and an error."""
    hook, kind = found.hook, HOOKS[found.hook]
    started = time.perf_counter()
    try:
        records = _materialise(found.impl.function(), RECORD_TYPES[kind].__name__)
        specs = []
        for number, record in enumerate(records, start=1):
            try:
                specs.append(check_record(record, kind, __version__))
            except PluginError as error:
                raise PluginError(f"record {number}: {error}") from error
        names = [spec.name for spec in specs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise PluginError(f"{', '.join(map(repr, twice))} is there twice")
    except (Exception, SystemExit) as error:
        _trace(trace, info, f"{hook}() -> {error_line(error)}", started)
        raise PluginError(f"hook {hook}: {error_line(error)}") from error
    _trace(trace, info, f"{hook}() -> {', '.join(names) or 'nothing'}", started)
    return tuple(Offer(kind=kind, spec=spec, info=info) for spec in specs)


def _load_installed(environ: Mapping[str, str], *, trace: bool) -> Iterator[Loaded]:
    """Load the installed plugins, sorted by name, each on its own."""
    setting = environ.get("QLEARN_LOAD_PLUGINS")
    wanted = None if setting is None else {canonical(n): n.strip() for n in setting.split(",") if n.strip()}
    found, failures = discover()
    for info, entry_point in found:
        if wanted is not None and canonical(info.provider) not in wanted:
            yield Loaded(silent=(SilentPlugin(info=info, status="off"),))
        else:
            yield _load_entry_point(info, entry_point, trace=trace)
    if wanted is None:
        yield Loaded(failures=failures)
        return
    yield Loaded(failures=tuple(f for f in failures if canonical(f.info.provider) in wanted))
    present = {canonical(info.provider) for info, _ in found} | {canonical(f.info.provider) for f in failures}
    for name in sorted(set(wanted) - present):
        missing = PluginError("QLEARN_LOAD_PLUGINS asks for it, but no such qlearn plugin is installed")
        info = PluginInfo(name=wanted[name], provider=wanted[name], version="-")
        yield Loaded(failures=(PluginFailure.of(info, missing),))


def discover() -> tuple[list[tuple[PluginInfo, EntryPoint]], tuple[PluginFailure, ...]]:
    """Return the installed plugins, sorted by distribution and entry point, and what is damaged.

    Where a distribution is on the path twice, the first counts, as it does for ``import``.
    """
    found: dict[tuple[str, str], tuple[PluginInfo, EntryPoint]] = {}
    failures = []
    for name in sorted(_distributions_with_plugins(), key=canonical):
        try:
            active = importlib.metadata.distribution(name)
            points = [point for point in active.entry_points if point.group == ENTRY_POINT_GROUP]
            version = active.version or "-"
        except Exception as error:  # damaged metadata are the fault of one distribution
            failures.append(PluginFailure.of(PluginInfo(name=name, provider=name, version="-"), error))
            continue
        for point in sorted(points, key=lambda p: (p.name, p.value)):
            info = PluginInfo(name=point.name, provider=name, version=version)
            _, first = found.setdefault((canonical(name), point.name), (info, point))
            if first.value != point.value:
                twice = PluginError(f"the entry point is there twice: {first.value} and {point.value}")
                failures.append(PluginFailure.of(info, twice))
    return list(found.values()), tuple(failures)


def _distributions_with_plugins() -> list[str]:
    """Return the names of the distributions that have entry points of ours, or unreadable ones."""
    names: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        try:
            ours = any(point.group == ENTRY_POINT_GROUP for point in distribution.entry_points)
        except Exception:  # unreadable entry points: `discover` reports them
            ours = True
        if ours:
            name = _name_of(distribution)
            names.setdefault(canonical(name), name)
    return list(names.values())


def _name_of(distribution: importlib.metadata.Distribution) -> str:
    """Return a distribution's name, or the name of its folder where the metadata are damaged."""
    with contextlib.suppress(Exception):
        if name := distribution.metadata["Name"]:
            return str(name)
    return getattr(getattr(distribution, "_path", None), "stem", "unknown")


def _load_entry_point(info: PluginInfo, entry_point: EntryPoint, *, trace: bool) -> Loaded:
    """Import one plugin and call its hooks; a hook that fails does not take the others along."""
    started = time.perf_counter()
    offers: list[Offer] = []
    failures: list[PluginFailure] = []
    try:
        found = implementations(entry_point.load())
    except (Exception, SystemExit) as error:  # a plugin must not end the program
        _trace(trace, info, f"load {entry_point.value} -> {error_line(error)}", started)
        return Loaded(failures=(PluginFailure.of(info, error),))
    _trace(trace, info, f"load {entry_point.value}", started)
    for implementation in found:
        try:
            offers += call_hook(implementation, info, trace=trace)
        except PluginError as error:
            failures.append(PluginFailure.of(info, error))
    silent = () if offers or failures else (SilentPlugin(info=info, status="empty"),)
    return Loaded(offers=tuple(offers), failures=tuple(failures), silent=silent)


def _check_implementation(hook: str, impl: pluggy.HookImpl) -> None:
    """Refuse unknown hooks and wrappers."""
    if hook not in HOOKS and not impl.optionalhook:
        close = difflib.get_close_matches(hook, HOOKS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise PluginError(f"there is no hook {hook}: {hint}The hooks are {_hook_list()}")
    if impl.wrapper or impl.hookwrapper:
        raise PluginError(f"hook {hook} is a wrapper: qlearn calls hooks one by one, so return a list instead")


def _materialise(result: Any, record_type: str) -> list[object]:
    """Return a hook's answer as a list."""
    if isinstance(result, (str, bytes, Mapping)) or not isinstance(result, Iterable):
        got = "None" if result is None else f"a {type(result).__name__}"
        raise PluginError(f"it returned {got}; a list of {record_type} is expected (an empty one is fine)")
    return list(result)


def _hook_list() -> str:
    return ", ".join(f"{hook}()" for hook in HOOKS)


def _trace(trace: bool, info: PluginInfo, event: str, started: float) -> None:
    """Print one line per event under ``QLEARN_TRACE_PLUGINS=1``."""
    if trace:
        milliseconds = 1e3 * (time.perf_counter() - started)
        print(f"qlearn: {info.provider}:{info.name} {event} ({milliseconds:.1f} ms)", file=sys.stderr)  # noqa: T201
