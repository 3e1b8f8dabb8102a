"""The figure of a decision: at which step each network stops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.patches import Rectangle

from qlearn.errors import QLearnError
from qlearn.viz.style import ERROR, QUANTIZED, SIZE, axes_for, signed, styled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes


@styled
def decision_ladder(
    rungs: Sequence[str],
    cases: Mapping[str, Sequence[tuple[float, bool]]],
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw which steps each network took, what was left after each, and where it stopped (paper §9).

    Parameters
    ----------
    rungs : sequence of str
        The steps, the cheapest first, drawn from top to bottom.
    cases : mapping of name to sequence of (difference, good enough)
        For each network the difference to float in points after the first step, the second, …;
        fewer than rungs where it stopped. Good enough is blue and filled, not good enough orange and hatched.
    title : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If a network took more steps than there are.

    Examples
    --------
    >>> ax = decision_ladder(["8 bits", "repair"], {"easy": [(0.1, True)], "hard": [(-60.0, False), (-0.2, True)]})
    >>> [text.get_text() for text in ax.texts]
    ['+0.1', '−60.0', '−0.2']
    """
    for name, steps in cases.items():
        if len(steps) > len(rungs):
            raise QLearnError(f"decision_ladder: {name!r} took {len(steps)} steps of {len(rungs)}")
    ax = axes_for(ax, title, size=(SIZE[0], 0.9 + 0.42 * max(len(rungs), 2)))
    for column, steps in enumerate(cases.values()):
        for row in range(len(rungs)):
            _rung(ax, column, row, steps[row] if row < len(steps) else None)
    ax.set_xlim(-0.5, max(len(cases), 1) - 0.5)
    ax.set_ylim(max(len(rungs), 1) - 0.5, -0.5)
    ax.set_xticks(range(len(cases)), list(cases))
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(rungs)), rungs)
    ax.tick_params(length=0)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    return ax


def _rung(ax: Axes, column: int, row: int, step: tuple[float, bool] | None) -> None:
    """One step of one network: a box with the difference in it, or a pale one where nobody had to go."""
    corner, width, height = (column - 0.42, row - 0.38), 0.84, 0.76
    if step is None:
        ax.add_patch(Rectangle(corner, width, height, fill=False, edgecolor="#cccccc", linestyle=":"))
        return
    difference, good = step
    look: Any = {"facecolor": QUANTIZED} if good else {"facecolor": "white", "edgecolor": ERROR, "hatch": "///"}
    ax.add_patch(Rectangle(corner, width, height, **look))
    plate = None if good else {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    ax.text(column, row, signed(difference), ha="center", va="center", color="white" if good else "black", bbox=plate)
