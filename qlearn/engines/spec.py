"""What an engine is: the protocol that all follow, and the record by which a plugin offers one.

An engine computes what the reference kernels compute, in another way: with other instructions, on another device.
Imports no torch, so that plugins can be listed without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Watch = Callable[[Any, NDArray[Any]], None]  # called with an IntegerLayer and its codes


class Runner(Protocol):
    """A prepared model: input codes in, output codes out."""

    def __call__(self, codes: NDArray[Any], watch: Watch | None = None) -> NDArray[Any]:
        """Return the output codes for input codes, shape (N, *input_shape); `watch` sees every layer in order."""
        ...


@runtime_checkable
class Engine(Protocol):
    """A way to compute integer models.

    It returns the integers of the reference kernels, at every site, for every profile, or raises `KernelError`.
    """

    def prepare(self, model: Any) -> Runner:
        """Do once what need not be done for every input, such as packing weights.

        Parameters
        ----------
        model : IntegerModel

        Raises
        ------
        KernelError
            If the engine cannot compute a layer; it is named.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """The record by which a plugin offers an engine.

    Parameters
    ----------
    name : str
        Lower-case letters, digits and underscores, starting with a letter: ``"torch"``.
    factory : callable
        ``factory(**params) -> Engine``.
    summary : str
        One line, shown by ``qlearn plugins``.
    reference : str
        Citation or address.
    api_version : int
        The plugin interface it was written for.
    """

    name: str
    factory: Callable[..., Engine]
    summary: str
    reference: str = ""
    api_version: int = 1
