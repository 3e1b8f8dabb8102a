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
        Number of items; ``items.batch_count`` or ``len(items)`` if not given.

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
    if total is None:
        total = getattr(items, "batch_count", None) or (len(items) if isinstance(items, Sized) else None)
    return tqdm(iter(items), desc=what, unit=unit, total=total, leave=False)  # type: ignore[no-any-return]
