"""Networks beside each other: accuracy by scheme, differences that can be told apart, and what int8 gains in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import Rectangle

from qlearn.errors import QLearnError
from qlearn.viz.style import ERROR, LIMIT, QUANTIZED, SIZE, axes_for, signed, styled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

_GREAT_LOSS = 20.0
"""Points at which a cell has its full colour."""


@styled
def scheme_table(
    networks: Sequence[str],
    schemes: Sequence[str],
    accuracy: ArrayLike,
    *,
    reference: int = -1,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw the accuracy of networks under several schemes, one cell each (paper Fig. 8 and Table 1).

    The more a scheme loses against the reference, the more orange its cell; a loss of more than one point is bold.

    Parameters
    ----------
    networks, schemes : sequence of str, lengths N and S
        Labels of rows and columns; a column's may have several lines.
    accuracy : array_like, shape (N, S), float
        In percent; NaN leaves a cell empty.
    reference : int
        The column that the others are compared with, float as a rule.
    title : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If the shape does not fit the labels, or there is no such column.

    Examples
    --------
    >>> ax = scheme_table(["net"], ["per tensor", "float"], [[0.2, 65.1]])
    >>> [text.get_text() for text in ax.texts]
    ['per tensor', 'float', '0.2', '65.1']
    """
    cells = np.asarray(accuracy, float)
    if cells.shape != (len(networks), len(schemes)) or not -len(schemes) <= reference < len(schemes):
        raise QLearnError(
            f"scheme_table: {len(networks)} networks, {len(schemes)} schemes, reference {reference} and "
            f"accuracies of shape {cells.shape} do not fit each other"
        )
    lines = max(label.count("\n") + 1 for label in schemes)
    ax = axes_for(ax, title, size=(SIZE[0], 0.6 + 0.17 * lines + 0.27 * max(len(networks), 2)))
    for column, label in enumerate(schemes):
        ax.text(column + 0.5, -0.12, label, ha="center", va="bottom", fontsize=9)
    for row, column in np.ndindex(cells.shape):
        lost = cells[row, reference] - cells[row, column]
        strength = float(np.clip(np.nan_to_num(lost) / _GREAT_LOSS, 0, 1))
        look: Any = {"facecolor": ERROR if strength else "white", "alpha": strength or None}
        ax.add_patch(Rectangle((column + 0.03, row + 0.06), 0.94, 0.88, lw=0, **look))
        number = "" if np.isnan(cells[row, column]) else f"{cells[row, column]:.1f}"
        weight = "bold" if lost > 1 else "normal"
        ax.text(column + 0.5, row + 0.5, number, ha="center", va="center", weight=weight)
    ax.set_xlim(0, len(schemes))
    ax.set_ylim(max(len(networks), 1), 0)
    ax.set_yticks(np.arange(len(networks)) + 0.5, networks)
    ax.set_xticks([])
    ax.tick_params(axis="y", length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    return ax


@styled
def differences(
    labels: Sequence[str],
    intervals: Sequence[Sequence[float]],
    *,
    lowest: float = -10.0,
    limit: float | None = None,
    numbers: bool = True,
    title: str = "",
    xlabel: str = "difference to float in points of accuracy, and its 95 % interval",
    ax: Axes | None = None,
) -> Axes:
    """Draw differences with their intervals, one row each.

    A blue dot has an interval that holds zero; an orange square can be told apart from it.
    With a limit, blue is good enough: the whole interval lies above the limit.

    Parameters
    ----------
    labels : sequence of str
    intervals : sequence of three numbers
        Difference, lower and upper end for each label.
    lowest : float
        Left end of the axis; what lies beyond is an arrow there.
    limit : float, optional
        A dotted line: the lowest end of an interval that is good enough.
    numbers : bool
        Write each difference and its interval at the right.
    title, xlabel : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If there is not one interval of three numbers for each label.

    Examples
    --------
    >>> ax = differences(["per channel", "per tensor"], [(-2.9, -5.0, -0.8), (-64.9, -68.4, -61.0)])
    >>> ax.texts[1].get_text()
    '−64.9 [−68.4, −61.0]'
    >>> differences(["told apart"], [(-2.3, -4.6, -0.02)]).texts[0].get_text()
    '−2.3 [−4.6, −0.02]'
    """
    if len(labels) != len(intervals) or any(len(one) != 3 for one in intervals):
        raise QLearnError(f"differences: {len(labels)} labels want as many triples of numbers, got {list(intervals)}")
    ax = axes_for(ax, title, size=(SIZE[0], 1.05 + 0.26 * max(len(labels), 3)))
    ax.axvline(0, color=LIMIT, ls="--", lw=1)
    if limit is not None:
        ax.axvline(limit, color=LIMIT, ls=":", lw=1.4)
    ends = np.asarray(intervals, float).reshape(-1, 3)
    for row, (middle, low, high) in enumerate(ends):
        good = low <= 0 <= high if limit is None else low >= limit
        colour, marker = (QUANTIZED, "o") if good else (ERROR, "s")
        if middle < lowest:
            ax.plot(lowest * 0.985, row, ls="none", marker="<", ms=8, color=colour)
        else:
            ax.plot([max(low, lowest), high], [row, row], color=colour, lw=2)
            ax.plot(middle, row, ls="none", marker=marker, ms=6.5, color=colour)
        text = f"{signed(middle)} [{_end(low)}, {_end(high)}]" if numbers else ""
        ax.text(1.02, row, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8.5)
    ax.set_xlim(lowest, max(1.0, float(ends[:, 2].max(initial=0.0)) * 1.1))
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(max(len(labels), 1) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(xlabel)
    return ax


def _end(value: float) -> str:
    """An end of an interval: one that rounds to zero keeps a second digit, since its sign is the verdict."""
    return signed(value) if value == 0 or round(value, 1) else f"{value:+.2f}".replace("-", "−")


@styled
def speed_ratios(
    networks: Sequence[str], ratios: Mapping[str, Sequence[float]], *, title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw how many times as fast as float each network is in int8, one bar for each tool (paper Fig. 6).

    Bars that end before the dashed line at 1 are orange and hatched: slower than float.

    Parameters
    ----------
    networks : sequence of str
    ratios : mapping of tool to values
        Time in float divided by time in int8, one for each network.
    title : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If a tool has not one value for each network.

    Examples
    --------
    >>> ax = speed_ratios(["wide", "narrow"], {"a tool": [3.1, 0.8]})
    >>> [text.get_text() for text in ax.texts]
    ['3.1 ×  a tool', '0.8 ×  a tool']
    """
    if any(len(values) != len(networks) for values in ratios.values()):
        lengths = {tool: len(values) for tool, values in ratios.items()}
        raise QLearnError(f"speed_ratios: {len(networks)} networks, but the tools have {lengths} values")
    ax = axes_for(ax, title, size=(SIZE[0], 0.9 + 0.24 * max(len(networks) * (len(ratios) + 0.6), 3)))
    pitch = len(ratios) + 0.6
    for place, (tool, values) in enumerate(ratios.items()):
        for group, value in enumerate(values):
            row = group * pitch + place
            colour, hatch = (QUANTIZED, "") if value >= 1 else (ERROR, "////")
            edge = "black" if hatch else "white"
            ax.barh(row, value, color=colour, hatch=hatch, edgecolor=edge, height=0.8)
            ax.text(max(value, 1) + 0.06, row, f"{value:.1f} ×  {tool}", va="center", fontsize=8.5)
    ax.axvline(1, color=LIMIT, ls="--", lw=1)
    ax.set_yticks([group * pitch + (len(ratios) - 1) / 2 for group in range(len(networks))], networks)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.25)
    ax.set_xlim(left=0)
    ax.set_xlabel("time in float32 / time in int8 (dashed: equally fast)")
    return ax
