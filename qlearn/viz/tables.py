"""Numbers in boxes: matrices, pictures and bars of results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qlearn.errors import QLearnError
from qlearn.viz.style import ERROR, FLOAT, QUANTIZED, SIZE, axes_for, styled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

_LOOKS = {"float": (FLOAT, ""), "quantized": (QUANTIZED, ""), "error": (ERROR, "////")}


@styled
def integer_grid(
    original: ArrayLike, codes: ArrayLike, reconstruction: ArrayLike, *, title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw a matrix three times with its numbers: real, as integers, and what comes back.

    Parameters
    ----------
    original, codes, reconstruction : array_like, shape (R, C)
        codes are integers.
    title : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If the three are not matrices of one shape.
    """
    panels = [np.asarray(values) for values in (original, codes, reconstruction)]
    if len({panel.shape for panel in panels}) != 1 or panels[0].ndim != 2:
        raise QLearnError(f"integer_grid takes three matrices of one shape, got {[p.shape for p in panels]}")
    rows, columns = panels[0].shape
    ax = axes_for(ax, title, size=(SIZE[0], max(1.3, 0.34 * rows + 0.9)))
    for place, (label, panel) in enumerate(zip(("float", "codes", "comes back"), panels, strict=True)):
        left = place * (columns + 1)
        matrix(ax, panel, left, "Greys" if place == 0 else "Blues")
        ax.text(left + columns / 2, rows + 0.15, label, ha="center", va="top", weight="bold")
        if place:
            ax.annotate("", (left - 0.15, rows / 2), (left - 0.85, rows / 2), arrowprops={"arrowstyle": "-|>"})
    ax.set_xlim(-0.1, 3 * columns + 2.1)
    ax.set_ylim(rows + 0.7, -0.1)
    ax.set_axis_off()
    return ax


def matrix(ax: Axes, panel: NDArray[np.generic], left: float, colours: str) -> None:
    """One coloured matrix with its numbers."""
    rows, columns = panel.shape
    strength = np.abs(panel.astype(float))
    top = float(strength.max(initial=0.0)) or 1.0
    ax.imshow(strength / top, cmap=colours, vmin=0, vmax=1.6, extent=(left, left + columns, rows, 0), aspect="auto")
    style = "d" if np.issubdtype(panel.dtype, np.integer) else ".2f"
    for row, column in np.ndindex(rows, columns):
        ink = "white" if strength[row, column] > 0.85 * top else "black"
        number = format(panel[row, column].item(), style)
        ax.text(
            left + column + 0.5,
            row + 0.5,
            number,
            ha="center",
            va="center",
            color=ink,
            fontsize=9 if columns < 5 else 7.5,
        )


@styled
def results_bars(
    labels: Sequence[str],
    values: Sequence[float],
    *,
    kinds: Sequence[str] | None = None,
    title: str = "",
    xlabel: str = "accuracy (%)",
    ax: Axes | None = None,
) -> Axes:
    """Draw rows of a results table as horizontal bars with their numbers.

    Parameters
    ----------
    labels : sequence of str
    values : sequence of float
    kinds : sequence of str, optional
        ``"float"`` (grey), ``"quantized"`` (blue) or ``"error"`` (orange, hatched) for each row.
    title, xlabel : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If the lengths differ, or a kind is unknown.
    """
    kinds = ["quantized"] * len(labels) if kinds is None else list(kinds)
    if not len(labels) == len(values) == len(kinds):
        raise QLearnError(f"results_bars: {len(labels)} labels, {len(values)} values, {len(kinds)} kinds")
    if unknown := set(kinds) - set(_LOOKS):
        raise QLearnError(f"no kind {min(unknown)!r}; there are {', '.join(_LOOKS)}")
    ax = axes_for(ax, title, size=(SIZE[0], 0.7 + 0.27 * max(len(labels), 3)))
    for row, (value, kind) in enumerate(zip(values, kinds, strict=True)):
        colour, hatch = _LOOKS[kind]
        ax.barh(row, value, color=colour, hatch=hatch, edgecolor="white" if not hatch else "black", height=0.72)
        ax.text(max(value, 0), row, f"  {value:.1f}", va="center")
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(xlabel)
    return ax


@styled
def pictures(
    images: ArrayLike, captions: Sequence[str], *, columns: int = 8, title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw small pictures in rows, each with a caption below.

    Parameters
    ----------
    images : array_like, shape (N, H, W, 3), uint8
    captions : sequence of str, length N
    columns : int
    title : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If there is not one caption for each picture.
    """
    stack = np.asarray(images)
    if stack.ndim != 4 or len(stack) != len(captions) or len(stack) == 0:
        raise QLearnError(f"pictures: shape {stack.shape} with {len(captions)} captions; (N, H, W, 3) and N expected")
    rows = -(-len(stack) // columns)
    ax = axes_for(ax, title, size=(SIZE[0], 0.4 + 0.98 * rows))
    for index, (image, caption) in enumerate(zip(stack, captions, strict=True)):
        row, column = divmod(index, columns)
        top, left = row * 1.32, column * 1.08
        ax.imshow(image, extent=(left, left + 1, top + 1, top), interpolation="nearest")
        ax.text(left + 0.5, top + 1.04, caption, ha="center", va="top", fontsize=9)
    ax.set_xlim(0, columns * 1.08 - 0.08)
    ax.set_ylim(rows * 1.32 - 0.05, -0.02)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax
