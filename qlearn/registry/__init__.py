"""The registry: every calibrator, scheme and engine by name, and who offers it.

Nothing is loaded on import.
The first look-up finds the installed plugins, loads them and keeps the result for the rest of the session.

======================  ============================================================================
environment variable    effect
======================  ============================================================================
QLEARN_LOAD_PLUGINS     unset: all installed plugins; empty: none; ``a,b``: these distributions only
QLEARN_STRICT_PLUGINS   1: a `PluginWarning` becomes a raised `PluginError`
QLEARN_TRACE_PLUGINS    1: one line on stderr for each plugin that is loaded and each hook called
======================  ============================================================================
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from typing import TYPE_CHECKING, Any, cast

from qlearn.errors import PluginError, PluginWarning
from qlearn.registry.calls import make
from qlearn.registry.lookup import Registry, build_registry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qlearn.calibrators.spec import Calibrator
    from qlearn.engines.spec import Engine
    from qlearn.registry.table import PluginTable
    from qlearn.schemes.base import Scheme

__all__ = [
    "Registry",
    "build_registry",
    "calibrator",
    "default_registry",
    "engine",
    "fresh_registry",
    "plugins",
    "register",
    "scheme",
    "unregister",
]


class _Session:
    """The registry of this process, built at the first look-up."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.registry: Registry | None = None
        self.announced = False
        self.building = False


_session = _Session()


def calibrator(name: str, /, **params: Any) -> Calibrator:
    """Make a calibrator by name.

    Parameters
    ----------
    name : str
        ``"minmax"``, ``"percentile"``, … or ``"distribution:name"`` of a plugin; `plugins` lists them.
    **params
        Parameters of that calibrator. All take ``channel_axis=None``.

    Returns
    -------
    Calibrator

    Raises
    ------
    UnknownCalibratorError
        If nobody offers the name.
    PluginConflictError
        If two plugins offer it.
    PluginError
        If the calibrator does not take the parameters.

    Examples
    --------
    >>> calibrator("percentile", percent=99.9).percent
    99.9
    """
    return cast("Calibrator", make(default_registry().find("calibrator", name), params))


def scheme(name: str, /, *, bits: int = 8, signed: bool = True, **params: Any) -> Scheme:
    """Make a scheme by name.

    Parameters
    ----------
    name : str
        ``"affine"``, ``"symmetric"``, ``"symmetric_restricted"``, or a plugin's; `plugins` lists them.
    bits : int
    signed : bool
    **params
        Further parameters of that scheme.

    Returns
    -------
    Scheme

    Raises
    ------
    UnknownSchemeError
        If nobody offers the name.
    PluginConflictError
        If two plugins offer it.
    PluginError
        If the scheme does not take the parameters.

    Examples
    --------
    >>> scheme("symmetric_restricted", bits=4).qmin
    -7
    """
    offer = default_registry().find("scheme", name)
    return cast("Scheme", make(offer, {"bits": bits, "signed": signed, **params}))


def engine(name: str, /, **params: Any) -> Engine:
    """Make an engine by name.

    Parameters
    ----------
    name : str
        ``"reference"``, ``"torch"``, or a plugin's; `plugins` lists them.
    **params
        Parameters of that engine.

    Returns
    -------
    Engine
        What ``IntegerModel.with_engine`` takes.

    Raises
    ------
    UnknownEngineError
        If nobody offers the name.
    PluginConflictError
        If two plugins offer it.
    PluginError
        If the engine does not take the parameters.

    Examples
    --------
    >>> engine("reference")
    ReferenceEngine()
    """
    return cast("Engine", make(default_registry().find("engine", name), params))


def register(plugin: object, /) -> None:
    """Add a calibrator, a scheme, an engine or a plugin for the rest of this session: no package, no installation.

    A cell may run again: what has the same name, or is the same plugin, takes the place of the former.

    Parameters
    ----------
    plugin : CalibratorSpec, SchemeSpec, EngineSpec, or an object or module with hook implementations

    Raises
    ------
    PluginError
        If it is none of these, or has a fault. The registry is then as it was before.

    Warns
    -----
    PluginWarning
        If a built-in has the name. The built-in keeps it; ``"session:name"`` reaches the new one.

    Examples
    --------
    >>> from qlearn.schemes.affine import AffineScheme
    >>> from qlearn.schemes.base import SchemeSpec
    >>> register(SchemeSpec(name="mine", factory=AffineScheme, summary="affine under another name"))
    >>> scheme("mine", bits=4).qmax
    7
    >>> unregister("mine")
    """
    with _session.lock:
        former = default_registry()
        new = former.with_session(plugin)
        known = former.warnings()
        _announce(new, [text for text in new.warnings() if text not in known])
        _session.registry = new


def unregister(name: str, /) -> None:
    """Take back what `register` added under a name: a calibrator, a scheme, an engine, or a whole plugin.

    Raises
    ------
    PluginError
        If this session registered nothing of that name.
    """
    with _session.lock:
        _session.registry = default_registry().without_session(name)


def plugins() -> PluginTable:
    """Return the table of all calibrators, schemes, engines and failed plugins. Never raises for a plugin's fault.

    Examples
    --------
    >>> [row.name for row in plugins().select(kind="scheme", builtin=True).rows]
    ['affine', 'symmetric', 'symmetric_restricted']
    """
    return _registry().table()


def default_registry() -> Registry:
    """Return the registry of this process; the first call loads the plugins and warns of those that failed.

    Raises
    ------
    PluginError
        If a plugin failed and ``QLEARN_STRICT_PLUGINS=1``; if a plugin calls this while it is being loaded.
    """
    with _session.lock:
        registry = _registry()
        if not _session.announced:
            _announce(registry, registry.warnings())
            _session.announced = True
        return registry


@contextlib.contextmanager
def fresh_registry(environ: Mapping[str, str] | None = None) -> Iterator[Registry]:
    """Let the functions of this module use a newly built registry inside a ``with`` block. For tests.

    What the block registers is gone after it.

    Parameters
    ----------
    environ : mapping, optional
        Where the ``QLEARN_…`` variables are read; ``os.environ`` unless told.

    Examples
    --------
    >>> with fresh_registry({"QLEARN_LOAD_PLUGINS": ""}) as registry:
    ...     list(registry.schemes)[:2]
    ['affine', 'symmetric']
    """
    with _session.lock:
        former = _session.registry, _session.announced
        registry = _build(environ)
        _session.registry, _session.announced = registry, False
    try:
        yield registry
    finally:
        with _session.lock:
            _session.registry, _session.announced = former


def _registry() -> Registry:
    """Return the registry of this process without a word about failures."""
    with _session.lock:
        if _session.building:
            raise PluginError("a plugin looked something up while being loaded: do this inside the factory")
        if _session.registry is None:
            _session.registry = _build()
        return _session.registry


def _build(environ: Mapping[str, str] | None = None) -> Registry:
    """Build a registry; meanwhile a plugin that looks something up gets an error instead of a recursion."""
    _session.building = True
    try:
        return build_registry(environ)
    finally:
        _session.building = False


def _announce(registry: Registry, texts: list[str]) -> None:
    """Warn, or raise where strictness is asked for."""
    if texts and registry.strict:
        error = PluginError("QLEARN_STRICT_PLUGINS: " + "; ".join(texts))
        for failure in registry.failures:
            error.add_note(failure.traceback)
        raise error
    for text in texts:
        warnings.warn(text, PluginWarning, stacklevel=4)
