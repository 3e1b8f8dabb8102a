"""The hooks that a plugin may implement, and the two markers.

A hook is a function with an agreed name.
The host calls it by that name in every installed plugin; the plugin answers with records::

    from qlearn.calibrators.spec import CalibratorSpec
    from qlearn.hookspecs import hookimpl

    @hookimpl
    def qlearn_calibrators():
        return [CalibratorSpec(name="mine", factory=MyCalibrator, summary="one line")]

Every plugin contributes and their order means nothing.
The host calls implementations one by one, so wrappers (``wrapper=True``) are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qlearn.calibrators.spec import CalibratorSpec
    from qlearn.engines.spec import EngineSpec
    from qlearn.schemes.base import SchemeSpec

API_VERSION = 1
"""The plugin interface of this qlearn. A record that asks for a newer one is refused with both numbers."""

hookspec = pluggy.HookspecMarker("qlearn")
hookimpl = pluggy.HookimplMarker("qlearn")


class QlearnSpecs:
    """Hooks a plugin may implement.

    Public API: a hook may gain arguments, it never loses one without a warning.
    """

    @hookspec
    def qlearn_calibrators(self) -> Iterable[CalibratorSpec]:  # type: ignore[empty-body]  # a declaration
        """Return the calibrators this plugin provides.

        Called with no arguments, at most once for each registry that is built, in any order.
        Must be quick, must not touch global state, must not import heavy modules
        (import them inside the factory). Returning an empty list is fine.

        Returns
        -------
        iterable of CalibratorSpec
        """

    @hookspec
    def qlearn_schemes(self) -> Iterable[SchemeSpec]:  # type: ignore[empty-body]  # a declaration
        """Return the quantization schemes (rules: clip range -> QParams) this plugin provides.

        The same rules as for `qlearn_calibrators`.

        Returns
        -------
        iterable of SchemeSpec
        """

    @hookspec
    def qlearn_engines(self) -> Iterable[EngineSpec]:  # type: ignore[empty-body]  # a declaration
        """Return the engines (ways to compute integer models) this plugin provides.

        The same rules as for `qlearn_calibrators`.

        Returns
        -------
        iterable of EngineSpec
        """
