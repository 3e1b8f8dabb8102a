"""Progress bars for long work: on a terminal, with tqdm if it is installed; silent everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Sized
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")


def progress(items: Iterable[T], what: str, *, unit: str = "it", total: int | None = None) -> Iterable[T]:
    """Yield the items, and show a bar on stderr while someone watches.

    Notebooks and log files get no bar: its output would differ from run to run.

    Parameters
    ----------
    items : iterable
    what : str
        Shown before the bar.
    unit : str
        What one item is called.
    total : int, optional
        Number of items; see `batch_count` if not given.

    Examples
    --------
    >>> list(progress([1, 2, 3], "count"))
    [1, 2, 3]
    """
    if not sys.stderr.isatty():
        return items
    try:
        from tqdm import tqdm
    except ImportError:
        return items
    return tqdm(iter(items), desc=what, unit=unit, total=total or batch_count(items), leave=False)  # type: ignore[no-any-return]


def batch_count(items: Iterable[object]) -> int | None:
    """Return how many items iterating gives, where that is known: a Dataset's length counts pictures, not batches.

    Examples
    --------
    >>> batch_count([1, 2, 3]), batch_count(iter([1]))
    (3, None)
    """
    count = getattr(items, "batch_count", None)
    return count if count is not None else (len(items) if isinstance(items, Sized) else None)
