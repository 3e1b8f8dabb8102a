"""Clip ranges: what calibrators choose, what a threshold costs, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import QLearnError
from qlearn.viz.style import ERROR, FLOAT, LIMIT, LOOKS, QUANTIZED, SIZE, axes_for, checked_lengths, styled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    from qlearn.numbers.qparams import ClipRange

_ROWS_OF_HISTOGRAM = 3.2
"""Height of the histogram, in rows of the ranges below it."""


@styled
def clip_ranges(
    values: ArrayLike, ranges: Mapping[str, ClipRange], *, title: str = "", bins: int = 120, ax: Axes | None = None
) -> Axes:
    """Draw a histogram, and below it one bar for each clip range.

    The heights are logarithms of the counts, so that single values can be seen.

    Parameters
    ----------
    values : array_like, any shape
    ranges : mapping of label to ClipRange, per tensor
        Drawn from top to bottom. What a range clips is hatched orange beside its blue bar.
    title : str
    bins : int
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If a range is per channel.
    """
    if any(clip_range.channels is not None for clip_range in ranges.values()):
        raise QLearnError("clip_ranges draws ranges of a whole tensor, but one of these is per channel")
    rows = _ROWS_OF_HISTOGRAM + len(ranges)
    ax = axes_for(ax, title, size=(SIZE[0], 0.8 + 0.29 * rows))
    flat = np.ravel(np.asarray(values, float))
    counts, edges = np.histogram(flat, bins=bins)
    tallest = np.log1p(max(counts.max(initial=0), 1))
    heights = np.log1p(counts) / tallest * (_ROWS_OF_HISTOGRAM - 0.4)
    ax.bar(edges[:-1], heights, np.diff(edges), bottom=0.1, align="edge", color=FLOAT, lw=0)
    ax.axhline(0.1, color="black", lw=0.8)
    ends = (flat.min(initial=0.0), flat.max(initial=0.0))
    for row, clip_range in enumerate(ranges.values()):
        _range_bar(ax, -0.5 - row, clip_range, ends)
    ax.set_yticks([-0.5 - row for row in range(len(ranges))], list(ranges))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_ylim(-len(ranges) - 0.2, _ROWS_OF_HISTOGRAM)
    ax.text(ends[0], _ROWS_OF_HISTOGRAM - 0.5, "counts (logarithmic)", va="top", color=FLOAT, fontsize=8.5)
    ax.set_xlabel("value (blue: clip range, orange and hatched: clipped)")
    return ax


def _range_bar(ax: Axes, height: float, clip_range: ClipRange, ends: tuple[float, float]) -> None:
    """One row: what is kept, and what is clipped on both sides."""
    lo, hi = float(clip_range.lo), float(clip_range.hi)
    look: Any = {"height": 0.34, "facecolor": "none", "edgecolor": ERROR, "hatch": "////", "lw": 0.6}
    if ends[0] < lo:
        ax.barh(height, lo - ends[0], left=ends[0], **look)
    if hi < ends[1]:
        ax.barh(height, ends[1] - hi, left=hi, **look)
    ax.barh(height, hi - lo, left=lo, height=0.62, color=QUANTIZED)
    ax.plot([0, 0], [height - 0.31, height + 0.31], color="white", lw=0.8)


@styled
def tradeoff(
    thresholds: Sequence[float],
    rounding: Sequence[float],
    clipping: Sequence[float],
    marks: Mapping[str, float] | None = None,
    *,
    title: str = "",
    ylabel: str = "noise power",
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the noise over the clip threshold: rounding grows, clipping shrinks, and their sum has a valley.

    Parameters
    ----------
    thresholds : sequence of float
    rounding, clipping : sequence of float
        Noise power of each threshold; the sum is drawn as well.
    marks : mapping of label to threshold, optional
        Dashed black lines, labelled at the top.
    title, ylabel : str
    limits : tuple of float, optional
        Of the vertical axis, which is logarithmic; for frames that are to be compared.
    ax : Axes, optional
    """
    ax = axes_for(ax, title, size=(SIZE[0], 3.0))
    parts = np.asarray(rounding, float), np.asarray(clipping, float)
    ax.plot(thresholds, parts[0], color=QUANTIZED, ls=":", lw=1.6, label="rounding")
    ax.plot(thresholds, parts[1], color=ERROR, ls="--", lw=1.6, label="clipping")
    ax.plot(thresholds, parts[0] + parts[1], color="black", lw=2.0, label="both")
    ax.set_yscale("log")
    if limits is not None:
        ax.set_ylim(*limits)
    for label, place in (marks or {}).items():
        ax.axvline(place, color=LIMIT, ls="--", lw=0.9)
        white = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.9}
        top = ax.get_xaxis_transform()
        ax.text(place, 0.98, label, rotation=90, ha="center", va="top", fontsize=8, bbox=white, transform=top)
    ax.set_xlabel("threshold t: everything beyond −t and t is clipped")
    ax.set_ylabel(ylabel)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
    return ax


@styled
def dots(
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    title: str = "",
    xlabel: str = "accuracy (%)",
    ax: Axes | None = None,
) -> Axes:
    """Draw one row per label and one dot per series: a table to look at.

    Parameters
    ----------
    labels : sequence of str
        From top to bottom.
    series : mapping of name to values
        At most four, told apart by colour and marker; one value per label.
    title, xlabel : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If a series has not one value for each label, or there are more than four.
    """
    checked_lengths("dots", len(labels), series)
    ax = axes_for(ax, title, size=(SIZE[0], 1.1 + 0.26 * max(len(labels), 3)))
    rows = range(len(labels))
    for row in rows:
        ax.axhline(row, color="#e4e4e4", lw=0.8, zorder=0)
    for place, ((name, values), (colour, marker, _)) in enumerate(zip(series.items(), LOOKS, strict=False)):
        aside = 0.18 * (place - (len(series) - 1) / 2)  # equal values stay visible beside each other
        ax.plot(values, np.arange(len(labels)) + aside, ls="none", marker=marker, ms=6.5, color=colour, label=name)
    ax.set_yticks(rows, labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(xlabel)
    if series:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, handletextpad=0.3)
    return ax


@styled
def spread(
    x: Sequence[float],
    series: Mapping[str, Sequence[Sequence[float]]],
    *,
    title: str = "",
    xlabel: str = "pictures in the calibration set",
    ylabel: str = "SQNR (dB)",
    ax: Axes | None = None,
) -> Axes:
    """Draw measurements that were repeated: a line through the means, a band from the smallest to the largest.

    Parameters
    ----------
    x : sequence of float
        Each twice the one before: the axis is logarithmic, with a label at each.
    series : mapping of label to three sequences
        Mean, smallest and largest value at each x. At most four series.
    title, xlabel, ylabel : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If a series is not three sequences as long as x, or there are more than four.
    """
    for label, triple in series.items():
        if len(triple) != 3:
            raise QLearnError(f"spread: {label!r} has {len(triple)} rows; mean, smallest and largest are expected")
        checked_lengths("spread", len(x), dict(zip(("mean", "smallest", "largest"), triple, strict=True)))
    checked_lengths("spread", None, series)
    ax = axes_for(ax, title)
    for (label, triple), (colour, marker, dash) in zip(series.items(), LOOKS, strict=False):
        mean, smallest, largest = (_array(values) for values in triple)
        ax.fill_between(x, smallest, largest, color=colour, alpha=0.18, lw=0)
        ax.plot(x, mean, color=colour, ls=dash, marker=marker, ms=5, label=label)
    if len(x):
        ax.set_xscale("log", base=2)
        ax.set_xticks(list(x), [f"{value:g}" for value in x], minor=False)
        ax.minorticks_off()
    ax.grid(axis="y", color="#dddddd")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    if len(series) > 1:
        ax.legend(frameon=True, framealpha=0.9, edgecolor="none")
    return ax


def _array(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)
