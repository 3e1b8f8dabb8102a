"""The figure that opens every chapter: the pipeline, and where we are in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.patches import FancyBboxPatch

from qlearn.errors import QLearnError
from qlearn.viz.style import FLOAT, QUANTIZED, axes_for, styled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

STAGES = {
    "float": "trained\nnetwork",
    "fold": "batch norm\ninto conv",
    "calibrate": "pictures\n→ ranges",
    "quantize": "ranges\n→ S and Z",
    "simulate": "integers,\nin torch",
    "integer": "int8 and\nint32 only",
    "evaluate": "accuracy,\nSQNR",
}
"""The stages in their order, and what happens there."""


@styled
def pipeline_strip(
    current: str | Sequence[str] = (), *, title: str = "The way of a network to integers", ax: Axes | None = None
) -> Axes:
    """Draw the pipeline as a row of boxes; the current stages are filled and marked "here".

    Parameters
    ----------
    current : str or sequence of str
        Keys of `STAGES`; none for the map alone.
    title : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If there is no stage of that name.

    Examples
    --------
    >>> [text.get_text() for text in pipeline_strip("quantize").texts if "here" in text.get_text()]
    ['▲ here']
    """
    chosen = {current} if isinstance(current, str) else set(current)
    if unknown := chosen - set(STAGES):
        raise QLearnError(f"no stage {min(unknown)!r} in the pipeline; there are {', '.join(STAGES)}")
    ax = axes_for(ax, title, size=(6.4, 1.5))
    for place, (stage, text) in enumerate(STAGES.items()):
        _box(ax, place, stage, text, here=stage in chosen)
        if place:
            ax.annotate("", (place - 0.43, 0.5), (place - 0.57, 0.5), arrowprops={"arrowstyle": "-|>", "color": FLOAT})
    ax.set_xlim(-0.5, len(STAGES) - 0.5)
    ax.set_ylim(-0.32, 1.02)
    ax.set_axis_off()
    return ax


def _box(ax: Axes, place: int, stage: str, text: str, *, here: bool) -> None:
    """One stage: filled and marked if we are there."""
    ink = "white" if here else "black"
    ax.add_patch(
        FancyBboxPatch(
            (place - 0.40, 0.06),
            0.80,
            0.88,
            boxstyle="round,pad=0.0,rounding_size=0.08",
            facecolor=QUANTIZED if here else "#f2f2f2",
            edgecolor=QUANTIZED if here else FLOAT,
            linewidth=1.5 if here else 0.8,
        )
    )
    ax.text(place, 0.74, stage, ha="center", va="center", color=ink, weight="bold", fontsize=9.5)
    ax.text(place, 0.36, text, ha="center", va="center", color=ink, fontsize=8, linespacing=1.1)
    if here:
        ax.text(place, -0.14, "▲ here", ha="center", va="center", color=QUANTIZED, fontsize=9)
