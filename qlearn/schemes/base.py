"""What a scheme is: the protocol that all schemes follow, and the record by which a plugin offers one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from qlearn.errors import NumbersError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qlearn.numbers.qparams import ClipRange, QParams

FEWEST_BITS, MOST_BITS = 2, 16


@runtime_checkable
class Scheme(Protocol):
    """A rule that turns a clip range into scale and zero point.

    A scheme stays inside the affine family r = S (q - Z), so that the integer kernels can run whatever it returns.
    """

    @property
    def bits(self) -> int:
        """Bits of the integers."""
        ...

    @property
    def signed(self) -> bool:
        """Whether the integers reach below zero."""
        ...

    @property
    def symmetric(self) -> bool:
        """Whether the zero point is always 0."""
        ...

    @property
    def qmin(self) -> int:
        """Return the smallest integer."""
        ...

    @property
    def qmax(self) -> int:
        """Return the largest integer."""
        ...

    def qparams(self, clip_range: ClipRange, axis: int = 0) -> QParams:
        """Return QParams for the range; `axis` is the channel axis where the range is per channel."""
        ...


@dataclass(frozen=True, kw_only=True)
class SchemeSpec:
    """The record by which a plugin offers a scheme.

    Parameters
    ----------
    name : str
        Lower-case letters, digits and underscores, starting with a letter: ``"affine"``.
    factory : callable
        ``factory(*, bits=8, signed=True, **params) -> Scheme``.
    summary : str
        One line, shown by ``qlearn plugins``.
    reference : str
        Citation or address.
    api_version : int
        The plugin interface it was written for.
    """

    name: str
    factory: Callable[..., Scheme]
    summary: str
    reference: str = ""
    api_version: int = 1


def integer_limits(bits: int, signed: bool) -> tuple[int, int]:
    """Return (qmin, qmax) of an integer format.

    Raises
    ------
    NumbersError
        If bits is not an integer from 2 to 16, or signed is not a bool.

    Examples
    --------
    >>> integer_limits(8, signed=True), integer_limits(3, signed=False)
    ((-128, 127), (0, 7))
    """
    whole = hasattr(bits, "__index__") and not isinstance(bits, bool)  # NumPy's integers too
    if not whole or not FEWEST_BITS <= bits <= MOST_BITS:
        raise NumbersError(f"bits must be an integer from {FEWEST_BITS} to {MOST_BITS}: got {bits!r}")
    if signed not in (True, False):
        raise NumbersError(f"signed must be True or False: got {signed!r}")
    bits = int(bits)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
