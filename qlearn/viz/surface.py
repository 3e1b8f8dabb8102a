"""Figures of the loss around the weights of a network: a plane, and lines through it (paper Fig. 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qlearn.errors import QLearnError
from qlearn.viz.style import ERROR, FLOAT, LIMIT, QUANTIZED, SIZE, axes_for, styled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

_LOOKS = ((FLOAT, "o"), (QUANTIZED, "D"), (ERROR, "s"))


@styled
def loss_surface(
    steps: Sequence[float],
    loss: ArrayLike,
    marks: Mapping[str, tuple[float, float]] | None = None,
    *,
    title: str = "",
    xlabel: str = "second direction",
    ylabel: str = "first direction",
    ax: Axes | None = None,
) -> Axes:
    """Draw the loss on a plane through the weights as contours whose levels double (paper Fig. 9).

    Parameters
    ----------
    steps : sequence of float, length K
        Along both directions.
    loss : array_like, shape (K, K)
        ``loss[i, j]`` at ``steps[i]`` upwards and ``steps[j]`` to the right. Infinite values stay white.
    marks : mapping of label to (first, second), optional
        Points, at most three: where the float and the quantized network lie.
    title, xlabel, ylabel : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If the loss is no square of that length, or there are more than three marks.
    """
    values = np.asarray(loss, float)
    if values.shape != (len(steps), len(steps)) or len(steps) < 2:
        raise QLearnError(f"loss_surface: loss of shape {values.shape}, ({len(steps)}, {len(steps)}) > 1 is expected")
    if len(marks or {}) > len(_LOOKS):
        raise QLearnError(f"loss_surface: at most {len(_LOOKS)} marks can be told apart, got {len(marks or {})}")
    ax = axes_for(ax, title, size=(SIZE[0] * 0.8, SIZE[0] * 0.66))
    finite = values[np.isfinite(values)]
    low, high = (max(float(end), 1e-6) for end in (finite.min(initial=1.0), finite.max(initial=1.0)))
    levels = low * 2.0 ** np.arange(0, max(2, np.ceil(np.log2(max(high / low, 2.0))) + 1))
    masked = np.ma.masked_invalid(np.maximum(values, low))
    filled = ax.contourf(steps, steps, masked, levels=levels, cmap="Blues", norm="log", extend="max")
    lines = ax.contour(steps, steps, masked, levels=levels[1:], colors="black", linewidths=0.5)
    ax.clabel(lines, fmt=_short, fontsize=8)
    for place, (label, (first, second)) in enumerate((marks or {}).items()):
        colour, marker = _LOOKS[place]
        size = (13, 8, 5)[place]  # marks on one spot stay in sight
        ax.plot([second], [first], ls="none", marker=marker, ms=size, color=colour, mec="white", mew=1.0, label=label,
                clip_on=False, zorder=5)  # fmt: skip
    if marks:
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=len(marks), borderaxespad=0.3)
    ax.set_aspect("equal")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.colorbar(
        filled, ax=ax, label="loss (each line: twice as much)", format=lambda value, _: _short(value), ticks=levels
    )
    return ax


@styled
def loss_line(
    steps: Sequence[float],
    losses: Mapping[str, Sequence[float]],
    marks: Mapping[str, tuple[float, float]] | None = None,
    *,
    title: str = "",
    xlabel: str = "step along the direction",
    ax: Axes | None = None,
) -> Axes:
    """Draw the loss on a line through the weights, logarithmic, with points marked on it.

    Parameters
    ----------
    steps : sequence of float
    losses : mapping of label to sequence of float
        At most three lines. Infinite values leave a gap.
    marks : mapping of label to (step, loss), optional
        Points, labelled beside them.
    title, xlabel : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If a line has not one loss for each step, or there are more than three.
    """
    if len(losses) > len(_LOOKS):
        raise QLearnError(f"loss_line: at most {len(_LOOKS)} lines can be told apart, got {len(losses)}")
    ax = axes_for(ax, title)
    for (label, values), (colour, marker), dash in zip(losses.items(), _LOOKS, ("-", "--", ":"), strict=False):
        if len(values) != len(steps):
            raise QLearnError(f"loss_line: {label!r} has {len(values)} values, {len(steps)} are expected")
        drawn = [value if np.isfinite(value) else np.nan for value in values]
        ax.plot(steps, drawn, color=colour, ls=dash, marker=marker, ms=4, label=label)
    for label, (step, value) in (marks or {}).items():
        ax.plot([step], [value], ls="none", marker="*", ms=13, color=LIMIT)
        ax.annotate(label, (step, value), textcoords="offset points", xytext=(6, 8), fontsize=9)
    ax.set_yscale("log")
    ax.grid(axis="y", color="#dddddd")
    ax.set_xlabel(xlabel)
    ax.set_ylabel("loss (nats)")
    if len(losses) > 1:
        ax.legend(frameon=True, framealpha=0.9, edgecolor="none")
    return ax


def _short(loss: float) -> str:
    """Two digits: 0.11, 1.8, 29, 116."""
    return f"{loss:.2g}" if loss < 10 else f"{loss:.0f}" if loss < 1e5 else f"{loss:.0e}"
