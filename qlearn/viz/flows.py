"""Boxes and arrows: two ways to quantize, one output in integers, and where a convolution loses precision."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.patches import FancyBboxPatch

from qlearn.errors import QLearnError
from qlearn.viz.style import ERROR, FLOAT, QUANTIZED, SIZE, axes_for, styled
from qlearn.viz.tables import matrix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

ERROR_SOURCES = ("input", "weight", "bias", "accumulator", "requantization")
"""The places where a fixed-point convolution loses precision (paper Fig. 10a)."""

_WAYS = {
    "QAT": ("trained network", "insert fake quantization", "train on", "quantize", "int8 network"),
    "PTQ": ("trained network", "fold, fuse", "calibrate", "quantize", "int8 network"),
}
_FEEDS = {"QAT": "training data\nwith labels", "PTQ": "a few pictures,\nno labels"}
_ARROW: Any = {"arrowstyle": "-|>", "color": "black", "shrinkA": 0, "shrinkB": 0}


@styled
def ptq_beside_qat(*, title: str = "", ax: Axes | None = None) -> Axes:
    r"""Draw quantization-aware training beside post-training quantization (paper Fig. 5).

    What is done in float is grey, what becomes integers is blue, and what each way wants from you stands beside it.

    Examples
    --------
    >>> "a few pictures,\nno labels" in [text.get_text() for text in ptq_beside_qat().texts]
    True
    """
    ax = axes_for(ax, title, size=(SIZE[0], 3.5))
    for left, (way, steps) in zip((0.0, 5.4), _WAYS.items(), strict=True):
        middle = left + 1.5
        ax.text(middle, 5.25, way, ha="center", va="center", weight="bold", fontsize=11)
        for place, step in enumerate(steps):
            height = 4.4 - 1.05 * place
            done = step in ("quantize", "int8 network")
            _box(ax, (left, height - 0.34), (3.0, 0.68), step, QUANTIZED if done else FLOAT, filled=step == steps[-1])
            if place:
                ax.annotate("", (middle, height + 0.34), (middle, height + 0.71), arrowprops=_ARROW)
        ax.text(left + 3.5, 2.3, _FEEDS[way], ha="left", va="center", fontsize=9)
        ax.annotate("", (left + 3.0, 2.3), (left + 3.42, 2.3), arrowprops=_ARROW)
    _loop(ax, 0.0, 2.3)
    ax.set_xlim(-0.75, 10.6)
    ax.set_ylim(-0.3, 5.55)
    ax.set_axis_off()
    return ax


def _loop(ax: Axes, left: float, height: float) -> None:
    """Training goes round and round: an arrow from a box back into itself."""
    look = _ARROW | {"connectionstyle": "arc3,rad=-1.6"}
    ax.annotate("", (left, height + 0.2), (left, height - 0.2), arrowprops=look)


@styled
def one_output(
    inputs: ArrayLike,
    weights: ArrayLike,
    products: ArrayLike,
    chain: Mapping[str, str],
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw how one output of a convolution is computed in integers: window times weights, and what follows.

    Parameters
    ----------
    inputs, weights, products : int array_like, shape (R, C)
        The window of input codes minus zero point, the filter, and their products, place by place.
    chain : mapping of label to str
        What happens to the sum, from left to right: ``{"sum": "37", "+ bias": "65"}``.
    title : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If the three are not matrices of one shape.
    """
    panels = [np.asarray(values) for values in (inputs, weights, products)]
    if len({values.shape for values in panels}) != 1 or panels[0].ndim != 2:
        raise QLearnError(f"one_output takes three matrices of one shape, got {[p.shape for p in panels]}")
    rows, columns = panels[0].shape
    width = 3 * columns + 2.0
    ax = axes_for(ax, title, size=(SIZE[0], 1.5 + 0.36 * rows))
    names = ("input code − Z", "weight code", "products")
    for place, (values, name, sign) in enumerate(zip(panels, names, "×= ", strict=True)):
        left = place * (columns + 1.0)
        matrix(ax, values, left, "Blues")
        ax.text(left + columns / 2, -0.12, name, ha="center", va="bottom")
        ax.text(left + columns + 0.5, rows / 2, sign, ha="center", va="center", fontsize=14)
    share = width / max(len(chain), 1)
    for place, (label, value) in enumerate(chain.items()):
        corner = (place * share + 0.05 * share, rows + 1.1)
        _box(ax, corner, (0.72 * share, 0.75), value, QUANTIZED, filled=place == len(chain) - 1)
        ax.text(corner[0] + 0.36 * share, rows + 1.0, label, ha="center", va="bottom", fontsize=8.5)
        if place:
            ax.annotate("", (corner[0], rows + 1.48), (corner[0] - 0.28 * share, rows + 1.48), arrowprops=_ARROW)
    ax.set_xlim(-0.1, width + 0.1)
    ax.set_ylim(rows + 2.0, -0.7)
    ax.set_axis_off()
    return ax


@styled
def convolution_errors(sqnr_db: Mapping[str, float], *, title: str = "", ax: Axes | None = None) -> Axes:
    r"""Draw a convolution in integers with its sources of error (paper Fig. 10a), and how strong each is.

    Parameters
    ----------
    sqnr_db : mapping of source to float
        For each of `ERROR_SOURCES` the SQNR of the output in dB, with that source alone; inf where it is exact.
    title : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If a source is missing, or one is unknown.

    Examples
    --------
    >>> ax = convolution_errors(dict.fromkeys(ERROR_SOURCES, 40.0) | {"accumulator": float("inf")})
    >>> [text.get_text() for text in ax.texts if "accumulator" in text.get_text()]
    ['4 accumulator\nexact']
    """
    if set(sqnr_db) != set(ERROR_SOURCES):
        wrong = sorted(set(sqnr_db) ^ set(ERROR_SOURCES))
        raise QLearnError(
            f"convolution_errors takes one number for each of {', '.join(ERROR_SOURCES)}: look at {wrong[0]!r}"
        )
    ax = axes_for(ax, title, size=(SIZE[0], 3.3))
    _box(ax, (0.0, 1.6), (1.25, 0.8), "input\nfloat", FLOAT)
    _box(ax, (2.85, 3.75), (1.5, 0.75), "weights\nfloat", FLOAT)
    _box(ax, (2.85, -0.5), (1.5, 0.75), "bias\nfloat", FLOAT)
    _box(ax, (2.85, 1.6), (1.5, 0.8), "Σ w x + b\nint32", QUANTIZED)
    _box(ax, (8.8, 1.6), (1.25, 0.8), "output\nint8", QUANTIZED, filled=True)
    ways = (((1.25, 2.0), (2.85, 2.0)), ((3.6, 3.75), (3.6, 2.4)), ((3.6, 0.25), (3.6, 1.6)), ((4.35, 2.0), (8.8, 2.0)))
    for begin, end in ways:
        ax.annotate("", end, begin, arrowprops=_ARROW)
    places = ((1.97, 2.0), (3.6, 3.12), (3.6, 0.92), (5.4, 2.0), (7.45, 2.0))
    for number, (source, place) in enumerate(zip(ERROR_SOURCES, places, strict=True), start=1):
        value = sqnr_db[source]
        _mark(ax, place, f"{number} {source}\n{'exact' if math.isinf(value) else f'{value:.1f} dB'}")
    ax.set_xlim(-0.1, 10.1)
    ax.set_ylim(-0.65, 4.65)
    ax.set_axis_off()
    return ax


def _mark(ax: Axes, place: tuple[float, float], text: str) -> None:
    """A source of error: an orange hatched frame around its name and number."""
    wide, high = 0.26 + 0.103 * max(map(len, text.split("\n"))), 0.37
    corner = (place[0] - wide / 2, place[1] - high)
    look: Any = {"boxstyle": "round,pad=0.0,rounding_size=0.12", "edgecolor": ERROR, "zorder": 3}
    ax.add_patch(FancyBboxPatch(corner, wide, 2 * high, facecolor="white", hatch="////", linewidth=1.2, **look))
    white = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
    ax.text(*place, text, ha="center", va="center", fontsize=8.5, bbox=white, zorder=4, linespacing=1.15)


def _box(
    ax: Axes, corner: tuple[float, float], size: tuple[float, float], text: str, colour: str, *, filled: bool = False
) -> None:
    """A rounded box with a text in its middle."""
    ax.add_patch(
        FancyBboxPatch(
            corner,
            *size,
            boxstyle="round,pad=0.0,rounding_size=0.12",
            facecolor=colour if filled else "#f5f5f5",
            edgecolor=colour,
            linewidth=1.3,
        )
    )
    ink = "white" if filled else "black"
    ax.text(corner[0] + size[0] / 2, corner[1] + size[1] / 2, text, ha="center", va="center", color=ink, fontsize=9)
