"""What a calibrator is: the protocol that all follow, and the record by which a plugin offers one.

Imports no torch, so that plugins can be listed without it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from qlearn.numbers.qparams import ClipRange
    from qlearn.schemes.base import Scheme


class Trait(enum.Enum):
    """What a calibrator declares about itself. The conformance kit checks each declaration."""

    MERGEABLE = "merge() gives exactly the state of one calibrator that saw both data sets"
    ORDER_DEPENDENT = "the order or the split of the batches changes the range"
    APPROXIMATE = "the range is exact only up to a stated resolution"
    MAY_EXCEED_DATA = "the range may reach beyond the values that were seen"
    SCALE_DEPENDENT = "data times c may give another range than c times the range, unless c is a power of two"


@runtime_checkable
class Calibrator(Protocol):
    """An algorithm that looks at data and picks a clip range."""

    def observe(self, x: Tensor) -> None:
        """Take one batch into account. Keeps neither the batch nor a graph."""
        ...

    def compute_range(self, scheme: Scheme) -> ClipRange:
        """Return the clip range for a scheme, shape () or (C,); NotCalibratedError before any data."""
        ...

    def merge(self, other: Self) -> None:
        """Take over what another calibrator saw. Exact with the trait MERGEABLE."""
        ...

    def reset(self) -> None:
        """Forget everything."""
        ...


@dataclass(frozen=True, kw_only=True)
class CalibratorSpec:
    """The record by which a plugin offers a calibrator.

    Parameters
    ----------
    name : str
        Lower-case letters, digits and underscores, starting with a letter: ``"percentile"``.
    factory : callable
        ``factory(*, channel_axis=None, **params) -> Calibrator``.
    summary : str
        One line, shown by ``qlearn plugins``.
    traits : frozenset of Trait
    reference : str
        Citation or address.
    api_version : int
        The plugin interface it was written for.
    """

    name: str
    factory: Callable[..., Calibrator]
    summary: str
    traits: frozenset[Trait] = frozenset()
    reference: str = ""
    api_version: int = 1
