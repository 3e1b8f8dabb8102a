"""Tables as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], *, left: int = 2) -> str:
    """Return rows of cells as lines in which the columns stand below each other; the first `left` are left-aligned.

    Examples
    --------
    >>> print(aligned([["layer", "dB"], ["conv1", "7.1"]], left=1))
    layer   dB
    conv1  7.1
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def db_text(value: float) -> str:
    """Return decibels as text: ``exact`` where there is no error.

    Examples
    --------
    >>> db_text(31.26), db_text(math.inf), db_text(-math.inf)
    ('31.3', 'exact', '-inf')
    """
    return "exact" if value == math.inf else f"{value:.1f}"
