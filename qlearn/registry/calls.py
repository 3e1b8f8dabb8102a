"""Call a plugin's factory, and say whose it was when the call or what it returns is wrong."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any

from qlearn.errors import PluginError
from qlearn.registry.records import error_line

if TYPE_CHECKING:
    from qlearn.registry.records import Kind, Offer

METHODS: dict[Kind, tuple[str, ...]] = {
    "calibrator": ("observe", "compute_range", "merge", "reset"),
    "scheme": ("qparams",),
    "engine": ("prepare",),
}
ATTRIBUTES: dict[Kind, tuple[str, ...]] = {
    "calibrator": (),
    "scheme": ("bits", "signed", "symmetric", "qmin", "qmax"),
    "engine": (),
}


def make(offer: Offer, params: dict[str, Any]) -> Any:
    """Return what the factory makes of the parameters.

    Raises
    ------
    PluginError
        If the factory does not take them, if it tries to end the program,
        or if what it returns lacks something of the protocol.
        Every other error of the factory passes, with a note that names the provider.
    """
    try:
        signature = _signature(offer)
        _check_params(offer, signature, params)
        made = offer.spec.factory(**params)
    except PluginError:
        raise
    except SystemExit as error:
        raise PluginError(f"{offer}: the factory tried to end the program ({error_line(error)})") from error
    except TypeError as error:
        raise PluginError(f"{offer}: {error_line(error)} (it takes {_takes(offer)})") from error
    except Exception as error:
        error.add_note(f"raised by the factory of {offer}")
        raise
    _check_protocol(offer, made)
    return made


def _signature(offer: Offer) -> inspect.Signature | None:
    """Return the factory's parameters, or None where Python cannot tell them (some C functions)."""
    try:
        return inspect.signature(offer.spec.factory)
    except (TypeError, ValueError):
        return None


def _check_params(offer: Offer, signature: inspect.Signature | None, params: dict[str, Any]) -> None:
    """Refuse what the factory's signature refuses, before the factory runs."""
    if signature is None:
        return
    try:
        signature.bind(**params)
    except TypeError as error:
        unknown = [name for name in params if name not in signature.parameters]
        close = difflib.get_close_matches(unknown[0], signature.parameters, n=1) if unknown else []
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise PluginError(f"{offer} takes {_takes(offer)}: {error}{hint}") from None


def _takes(offer: Offer) -> str:
    """Return the parameters in words."""
    signature = _signature(offer)
    if signature is None:
        return "parameters that Python cannot tell"
    shown = [str(p.replace(annotation=inspect.Parameter.empty)) for p in signature.parameters.values()]
    return ", ".join(shown) or "no parameters"


def _check_protocol(offer: Offer, made: object) -> None:
    """Refuse what is no calibrator, no scheme or no engine, and name what it lacks."""
    kind = offer.kind
    missing = [f"{name}()" for name in METHODS[kind] if not callable(getattr(made, name, None))]
    missing += [name for name in ATTRIBUTES[kind] if not hasattr(made, name)]
    if isinstance(made, type):
        raise PluginError(f"{offer}: the factory returned the class {made.__name__}, not an instance of it")
    if missing:
        raise PluginError(
            f"{offer}: the factory returned a {type(made).__name__}, no {kind}: it lacks {', '.join(missing)}"
        )
