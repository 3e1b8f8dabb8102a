"""Figures of a network layer by layer: ranges of channels, SQNR, error in steps, budget, sensitivity (Fig. 10, 12)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import QLearnError
from qlearn.viz.style import ERROR, FLOAT, LIMIT, QUANTIZED, SIZE, axes_for, styled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

_COLOURS = (FLOAT, QUANTIZED, ERROR)
_IDEAL = 1 / math.sqrt(12)
_PARTS: dict[str, dict[str, Any]] = {
    "weights": {"facecolor": QUANTIZED},
    "input": {"facecolor": "#d9d9d9"},
    "bias": {"facecolor": "black"},
    "rounding": {"facecolor": "#9ecae9", "hatch": "...."},
    "clipping": {"facecolor": ERROR, "hatch": "////"},
}
_UNKNOWN = ({"facecolor": "white", "hatch": "xxxx"}, {"facecolor": "#7a7a7a", "hatch": "\\\\"})


@styled
def layer_sqnr(
    sites: Sequence[str],
    total: Sequence[float],
    own: Sequence[float] | None = None,
    *,
    title: str = "",
    xlabel: str = "SQNR (dB)",
    ax: Axes | None = None,
) -> Axes:
    """Draw the SQNR at every site as a bar, and that of the layer's own error as a diamond.

    Parameters
    ----------
    sites : sequence of str
        From top to bottom.
    total : sequence of float
        In dB. Infinite values are written, not drawn.
    own : sequence of float, optional
        A diamond far to the left is a layer that does harm itself; infinite ones are left out.
    title, xlabel : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If there is not one value for each site.
    """
    ax = _rows(ax, "layer_sqnr", sites, title, {"total": total, **({} if own is None else {"own": own})})
    _bars(ax, total)
    if own is not None:
        ax.plot(_finite(own), range(len(sites)), ls="none", marker="D", ms=5, color=ERROR, mec="black", mew=0.5)
        handles = [
            ax.barh(0, 0, color=QUANTIZED, label="all layers up to here"),
            *ax.plot([], [], ls="none", marker="D", ms=5, color=ERROR, mec="black", mew=0.5, label="this layer alone"),
        ]
        _legend(ax, handles, 2)
    ax.set_xlabel(xlabel)
    return ax


@styled
def layer_rmse(
    sites: Sequence[str],
    total: Sequence[float],
    own: Sequence[float] | None = None,
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw RMSE / scale at every site; the dashed line is 1/√12, what rounding alone gives (second Fig. 10).

    Parameters
    ----------
    sites : sequence of str
        From top to bottom.
    total : sequence of float
        Root mean square of the error in steps. The axis is logarithmic; zero and NaN are left out.
    own : sequence of float, optional
        The layer's own part, as diamonds.
    title : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If there is not one value for each site.
    """
    ax = _rows(ax, "layer_rmse", sites, title, {"total": total, **({} if own is None else {"own": own})})
    ax.axvline(_IDEAL, color=LIMIT, ls="--", lw=1.0)
    rows = range(len(sites))
    drawn = [value if value > 0 else math.nan for value in _finite(total)]
    ax.hlines(rows, _IDEAL, [_IDEAL if math.isnan(v) else v for v in drawn], color=QUANTIZED, lw=1.6)
    ax.plot(drawn, rows, ls="none", marker="o", ms=5.5, color=QUANTIZED, label="all layers up to here")
    if own is not None:
        mine = [value if value > 0 else math.nan for value in _finite(own)]
        ax.plot(mine, rows, ls="none", marker="D", ms=5, color=ERROR, mec="black", mew=0.5, label="this layer alone")
        _legend(ax, None, 2)
    ax.set_xscale("log")
    ax.set_xlabel("RMSE / scale, in steps (dashed: 1/√12 = 0.289, rounding alone)")
    return ax


@styled
def budget_bars(
    sites: Sequence[str], shares: Mapping[str, Sequence[float]], *, title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw for every site which share of its noise comes from which part, stacked to one bar.

    Parameters
    ----------
    sites : sequence of str
        From top to bottom.
    shares : mapping of part to sequence of float
        ``"weights"``, ``"input"``, ``"bias"``, ``"rounding"``, ``"clipping"``, or at most two others; 0 to 1.
    title : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If a part has not one share for each site, or more than two parts have other names.
    """
    others = [part for part in shares if part not in _PARTS]
    if len(others) > len(_UNKNOWN):
        raise QLearnError(f"budget_bars: {', '.join(others)} cannot be told apart; at most {len(_UNKNOWN)} new parts")
    ax = _rows(ax, "budget_bars", sites, title, shares)
    left = np.zeros(len(sites))
    for part, values in shares.items():
        look = _PARTS.get(part) or _UNKNOWN[others.index(part)]
        widths = 100 * np.nan_to_num(np.asarray(values, float))
        ax.barh(range(len(sites)), widths, left=left, height=0.78, edgecolor="white", lw=0.3, label=part, **look)
        left += widths
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of the noise power (%)")
    if shares:
        _legend(ax, None, len(shares))
    return ax


@styled
def sensitivity_bars(
    sites: Sequence[str],
    alone: Sequence[float],
    *,
    whole: float | None = None,
    title: str = "",
    xlabel: str = "SQNR of the logits (dB)",
    ax: Axes | None = None,
) -> Axes:
    """Draw what quantizing each layer alone does to the output, the most sensitive layer first.

    Parameters
    ----------
    sites : sequence of str
        In the order of the ranking.
    alone : sequence of float
        The measure with only this layer quantized.
    whole : float, optional
        The measure with all layers quantized: a dashed line.
    title, xlabel : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If there is not one value for each site.
    """
    ax = _rows(ax, "sensitivity_bars", sites, title, {"alone": alone})
    _bars(ax, alone)
    if whole is not None and math.isfinite(whole):
        line = ax.axvline(whole, color=LIMIT, ls="--", lw=1.0, label=f"all layers: {whole:.1f}")
        _legend(ax, [line], 1)
    ax.set_xlabel(xlabel)
    return ax


def _rows(
    ax: Axes | None, figure: str, sites: Sequence[str], title: str, series: Mapping[str, Sequence[float]]
) -> Axes:
    """Axes with one row per site, names at the left."""
    for name, values in series.items():
        if len(values) != len(sites):
            raise QLearnError(f"{figure}: {name!r} has {len(values)} values for {len(sites)} sites")
    ax = axes_for(ax, title, size=(SIZE[0], 1.2 + 0.19 * max(len(sites), 4)))
    ax.set_yticks(range(len(sites)), sites)
    ax.set_ylim(max(len(sites), 1) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    return ax


def _bars(ax: Axes, values: Sequence[float]) -> None:
    """Blue bars with their numbers; infinite values are written at the axis."""
    drawn = [0.0 if math.isnan(value) else value for value in _finite(values)]
    ax.barh(range(len(values)), drawn, height=0.78, color=QUANTIZED)
    ax.axvline(0, color="black", lw=0.8)
    widest = max(drawn, default=0.0)
    for row, (value, place) in enumerate(zip(values, drawn, strict=True)):
        text = f"{value:.1f}" if math.isfinite(value) else "exact" if value == math.inf else "none left"
        inside = place > 0.12 * widest
        ax.annotate(
            text,
            (max(place, 0.0), row),
            xytext=(-3 if inside else 4, 0),
            textcoords="offset points",
            ha="right" if inside else "left",
            va="center_baseline",
            fontsize=8,
            color="white" if inside else "black",
        )


@styled
def channel_ranges(
    ranges: Mapping[str, ArrayLike], *, title: str = "", steps: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the range of every channel as an upright bar, in shares of the largest of its tensor (paper Fig. 12).

    Parameters
    ----------
    ranges : mapping of label to array_like, shape (C, 2)
        Smallest and largest weight of each channel; at most three tensors, beside each other ("before", "after").
    title : str
    steps : float, optional
        Steps from zero to the largest weight, such as 127: channels inside the orange band, less than half a step,
        become zero when one scale serves all.
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If an array has another shape, or there are more than three.
    """
    arrays = {label: np.asarray(values, float) for label, values in ranges.items()}
    for label, values in arrays.items():
        if values.ndim != 2 or values.shape[1] != 2:
            raise QLearnError(f"channel_ranges: {label!r} has shape {values.shape}; (channels, 2) is expected")
    if len(arrays) > len(_COLOURS):
        raise QLearnError(f"channel_ranges: at most {len(_COLOURS)} tensors stand beside each other, got {len(arrays)}")
    ax = axes_for(ax, title)
    if steps is not None:
        ax.axhspan(-0.5 / steps, 0.5 / steps, facecolor="none", edgecolor=ERROR, hatch="////", lw=0)
    for place, (label, values) in enumerate(arrays.items()):
        largest = float(np.abs(values).max(initial=0.0)) or 1.0
        x = place * 1.08 + (np.arange(len(values)) + 0.5) / max(len(values), 1)
        width = max(0.7, min(5.0, 220 / max(len(values), 1) / max(len(arrays), 1)))
        ax.vlines(x, values[:, 0] / largest, values[:, 1] / largest, color=_COLOURS[place], lw=width)
        ax.text(place * 1.08 + 0.5, 1.06, f"{label} (largest {largest:.3g})", ha="center", va="bottom", fontsize=9)
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xlim(-0.02, max(len(arrays), 1) * 1.08 - 0.06)
    ax.set_ylim(-1.05, 1.28)
    ax.set_yticks([-1, -0.5, 0, 0.5, 1])
    ax.set_xticks([])
    ax.set_xlabel("channels")
    ax.set_ylabel("weight / largest")
    return ax


def _finite(values: Sequence[float]) -> list[float]:
    return [float(value) if math.isfinite(value) else math.nan for value in values]


def _legend(ax: Axes, handles: Any, columns: int) -> None:
    look = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": columns, "borderaxespad": 0.2}
    look |= {"columnspacing": 1.2, "handlelength": 1.4, "handletextpad": 0.4}
    ax.legend(**({"handles": handles} if handles else {}), **look)
