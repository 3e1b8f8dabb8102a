"""Figures of decisions: at which step each network stops, and differences that are, or are not, good enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.patches import Rectangle

from qlearn.errors import QLearnError
from qlearn.viz.style import ERROR, FLOAT, LIMIT, QUANTIZED, SIZE, axes_for, styled

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
    text = f"{difference:+.1f}".replace("-", "−")
    ax.text(column, row, text, ha="center", va="center", color="white" if good else "black", bbox=plate)


@styled
def intervals(
    labels: Sequence[str],
    differences: Sequence[tuple[float, float, float]],
    *,
    limit: float | None = None,
    floor: float = -8.0,
    title: str = "",
    xlabel: str = "difference to float (points)",
    ax: Axes | None = None,
) -> Axes:
    """Draw differences to float with their confidence intervals, one row each.

    Parameters
    ----------
    labels : sequence of str
        From top to bottom.
    differences : sequence of (difference, low, high)
        In points. Blue discs are good enough, orange squares are not: the low end counts.
    limit : float, optional
        The lowest end of an interval that is good enough: a dashed line.
    floor : float
        The axis begins here. What lies below is an arrow at the edge with its number.
    title, xlabel : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If there is not one difference for each label, or one lies outside its interval.

    Examples
    --------
    >>> ax = intervals(["a", "b"], [(0.0, -0.3, 0.3), (-64.9, -68.4, -61.0)], limit=-1.0)
    >>> [text.get_text() for text in ax.texts]
    ['−64.9']
    """
    if len(labels) != len(differences):
        raise QLearnError(f"intervals: {len(labels)} labels, {len(differences)} differences")
    for label, (middle, low, high) in zip(labels, differences, strict=True):
        if not low <= middle <= high:
            raise QLearnError(f"intervals: {label!r}: {middle} is not between {low} and {high}")
    ax = axes_for(ax, title, size=(SIZE[0], 0.9 + 0.24 * max(len(labels), 3)))
    ax.axvline(0, color=FLOAT, linewidth=1)
    if limit is not None:
        ax.axvline(limit, color=LIMIT, linewidth=1, linestyle="--")
    for row, (middle, low, high) in enumerate(differences):
        good = limit is None or low >= limit
        colour, marker = (QUANTIZED, "o") if good else (ERROR, "s")
        if middle < floor:
            ax.plot(floor, row, marker="<", ms=7, color=colour, clip_on=False)
            text = f"{middle:+.1f}".replace("-", "−")
            ax.annotate(text, (floor, row), (9, 0), textcoords="offset points", va="center")
            continue
        ax.plot([max(low, floor), high], [row, row], color=colour, linewidth=1.6)
        ax.plot(middle, row, marker=marker, ms=6, color=colour)
    ax.set_xlim(left=floor)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(xlabel)
    return ax
