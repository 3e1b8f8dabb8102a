"""Real numbers and their integers: the number line, the staircase, the error, the histogram."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import QLearnError
from qlearn.viz.style import (
    ERROR,
    FLOAT,
    LIMIT,
    LOOKS,
    QUANTIZED,
    ZERO_POINT,
    axes_for,
    checked_lengths,
    styled,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    from qlearn.numbers.qparams import ClipRange, QParams

MOST_LABELS = 9
"""Integer grids with more levels than this get fewer labels."""


@styled
def number_line(
    qparams: QParams,
    values: ArrayLike = (),
    reconstructed: ArrayLike = (),
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw the real line with the integer grid on it: codes above, real numbers below.

    Each value is a grey dot; an arrow leads to where its code stands, orange and dashed where it was clipped.

    Parameters
    ----------
    qparams : QParams, per tensor
    values, reconstructed : array_like, shape (N,)
        Real numbers, and what is left of them after quantize and dequantize. Both may be empty.
    title : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If qparams are per channel, or the two arrays differ in length.
    """
    ax = axes_for(ax, title)
    before, after = np.ravel(np.asarray(values, float)), np.ravel(np.asarray(reconstructed, float))
    if len(before) != len(after):
        raise QLearnError(f"number_line: {len(before)} values, but {len(after)} reconstructed ones")
    codes, grid = _grid(qparams)
    _draw_grid(ax, qparams, codes, grid)
    lo, hi = float(qparams.range.lo), float(qparams.range.hi)
    reach = float(qparams.scale) / 2 * (1 - 1e-6)  # half a step beyond the last code is clipped, less is rounded
    for value, target in zip(before, after, strict=True):
        outside = not lo - reach < value < hi + reach
        arrow = {"arrowstyle": "-|>", "color": ERROR if outside else QUANTIZED, "lw": 1.2, "shrinkA": 4, "shrinkB": 1}
        ax.annotate("", (target, 0.12), (value, 0.78), arrowprops=arrow | ({"ls": "--"} if outside else {}))
        if outside:
            ax.text(value, 0.90, "clipped", ha="center", fontsize=8.5, color="black", style="italic")
    ax.plot(before, np.full(len(before), 0.78), "o", color=FLOAT, ms=6)
    ax.set_ylim(-0.62, 1.05)
    _margins(ax, np.concatenate([before, grid]))
    ax.set_axis_off()
    return ax


def _draw_grid(ax: Axes, qparams: QParams, codes: NDArray[Any], grid: NDArray[Any]) -> None:
    """The line itself: ticks, codes, real numbers, limits and the zero point."""
    zero = int(qparams.zero_point)
    stride = max(1, -(-len(codes) // MOST_LABELS))
    ax.axhline(0, color="black", lw=0.8)
    ax.vlines(grid, -0.07, 0.10, color=QUANTIZED, lw=1.6 if stride == 1 else 0.6)
    for limit in (grid[0], grid[-1]):
        ax.plot([limit, limit], [-0.2, 0.95], color=LIMIT, ls="--", lw=0.9)
    ax.plot([0, 0], [-0.14, 0.16], color=ZERO_POINT, lw=3)
    for code, real in zip(codes, grid, strict=True):
        if (code - zero) % stride == 0:
            bold = "bold" if code == zero else "normal"
            ink = ZERO_POINT if code == zero else QUANTIZED
            ax.text(real, -0.20, f"{code}", ha="center", va="top", color=ink, weight=bold)
            ax.text(real, -0.38, _short(real), ha="center", va="top", color=FLOAT, fontsize=8)
    ax.text(0, -0.54, "Z", ha="center", va="top", color=ZERO_POINT, weight="bold", fontsize=9)


@styled
def rounding_staircase(
    x: ArrayLike, x_hat: ArrayLike, qparams: QParams, *, title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw what comes back (blue stairs) against what went in (grey line).

    Parameters
    ----------
    x, x_hat : array_like, shape (N,)
        Real numbers in ascending order, and their reconstruction.
    qparams : QParams, per tensor
    title : str
    ax : Axes, optional
    """
    ax = axes_for(ax, title)
    before, after = np.asarray(x, float), np.asarray(x_hat, float)
    ax.plot(before, before, color=FLOAT, lw=1.2, ls=":", label="float")
    ax.plot(before, after, color=QUANTIZED, lw=1.8, label="quantized")
    _limits(ax, qparams.range)
    ax.plot([0], [0], "|", color=ZERO_POINT, ms=12, mew=3, label="zero point")
    ax.set_xlabel("x")
    ax.set_ylabel("x after quantization")
    ax.legend(loc="upper left", frameon=True, framealpha=1.0, edgecolor="none")
    return ax


@styled
def error_curve(x: ArrayLike, error: ArrayLike, qparams: QParams, *, title: str = "", ax: Axes | None = None) -> Axes:
    """Draw the quantization error over x: bounded by half a step inside the range, growing outside (hatched).

    Parameters
    ----------
    x, error : array_like, shape (N,)
        Real numbers in ascending order, and reconstruction minus x.
    qparams : QParams, per tensor
    title : str
    ax : Axes, optional
    """
    ax = axes_for(ax, title)
    values, errors = np.asarray(x, float), np.asarray(error, float)
    half = float(qparams.scale) / 2
    ax.plot(values, errors, color=ERROR, lw=1.4)
    outside = (values < float(qparams.range.lo)) | (values > float(qparams.range.hi))
    ax.fill_between(values, 0, errors, where=list(outside), facecolor="none", edgecolor=ERROR, hatch="////", lw=0)
    for side in (-half, half):
        ax.axhline(side, color=QUANTIZED, lw=0.9, ls="-.")
    if len(values):
        for side, text in ((half, "S/2"), (-half, "−S/2")):
            white = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            ax.text(values.min(), side, text, va="center", ha="left", color=QUANTIZED, bbox=white)
    _limits(ax, qparams.range)
    ax.set_xlabel("x")
    ax.set_ylabel("error")
    return ax


@styled
def histogram_with_range(
    values: ArrayLike,
    clip_range: ClipRange,
    qparams: QParams | None = None,
    *,
    title: str = "",
    bins: int = 100,
    log: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw a histogram with the clip range; with qparams also the levels that the integers stand on.

    Parameters
    ----------
    values : array_like, any shape
    clip_range : ClipRange, per tensor
        Dashed; what lies outside is orange and hatched.
    qparams : QParams, per tensor, optional
        Blue ticks under the axis, one per level; the zero point is red.
    title : str
    bins : int
    log : bool
        Logarithmic counts.
    ax : Axes, optional
    """
    ax = axes_for(ax, title)
    flat = np.ravel(np.asarray(values, float))
    counts, edges = np.histogram(flat, bins=bins)
    lo, hi = float(clip_range.lo), float(clip_range.hi)
    outside = (edges[1:] < lo) | (edges[:-1] > hi)
    widths = np.diff(edges)
    ax.bar(edges[:-1][~outside], counts[~outside], widths[~outside], align="edge", color=FLOAT, lw=0)
    ax.bar(
        *(edges[:-1][outside], counts[outside], widths[outside]), align="edge", color=ERROR, hatch="////", edgecolor="k"
    )
    if log:
        ax.set_yscale("symlog", linthresh=1)
        ax.set_ylim(bottom=0)
    _limits(ax, clip_range)
    if qparams is not None:
        _level_ticks(ax, qparams)
    ax.set_xlabel("value" if qparams is None else "value (blue ticks: levels, red: zero point)")
    ax.set_ylabel("count")
    return ax


def _level_ticks(ax: Axes, qparams: QParams) -> None:
    """Blue ticks at the foot of the axes, one per level, and the red one."""
    foot = ax.get_xaxis_transform()
    _, grid = _grid(qparams)
    ax.vlines(grid, -0.05, 0.0, color=QUANTIZED, lw=1.2 if len(grid) <= 64 else 0.4, transform=foot, clip_on=False)
    ax.vlines([0.0], -0.07, 0.06, color=ZERO_POINT, lw=2.5, transform=foot, clip_on=False)
    ax.tick_params(axis="x", pad=8, length=0)


@styled
def curves(
    x: Sequence[float],
    series: Mapping[str, Sequence[float]],
    *,
    title: str = "",
    xlabel: str = "bits",
    ylabel: str = "SQNR (dB)",
    ax: Axes | None = None,
) -> Axes:
    """Draw measurements over the number of bits: one line per series, told apart by colour, dash and marker.

    Parameters
    ----------
    x : sequence of float
    series : mapping of label to values
        At most four; the first is blue.
    title, xlabel, ylabel : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If there are more than four series, or one has not one value for each x.
    """
    checked_lengths("curves", len(x), series)
    ax = axes_for(ax, title)
    for (label, values), (colour, marker, dash) in zip(series.items(), LOOKS, strict=False):
        ax.plot(x, values, color=colour, ls=dash, marker=marker, ms=5, label=label)
    ax.set_xticks(list(x))
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(axis="y", color="#dddddd")
    if len(series) > 1:
        ax.legend()
    return ax


def _grid(qparams: QParams) -> tuple[NDArray[Any], NDArray[Any]]:
    """The codes of a format and the real numbers where they stand."""
    if qparams.axis is not None:
        raise QLearnError(f"one number line shows one scale, but qparams are per channel (axis {qparams.axis})")
    codes = np.arange(qparams.qmin, qparams.qmax + 1)
    return codes, float(qparams.scale) * (codes - int(qparams.zero_point))


def _short(real: float) -> str:
    """A real number in at most two decimals, as a label."""
    return f"{real:.2f}".rstrip("0").rstrip(".") if 0.01 <= abs(real) < 1000 or real == 0 else f"{real:.0e}"


def _limits(ax: Axes, clip_range: ClipRange) -> None:
    for limit in (float(clip_range.lo), float(clip_range.hi)):
        ax.axvline(limit, color=LIMIT, ls="--", lw=0.9)


def _margins(ax: Axes, values: NDArray[Any]) -> None:
    finite = values[np.isfinite(values)]
    width = float(np.ptp(finite)) or 1.0
    ax.set_xlim(finite.min() - 0.06 * width, finite.max() + 0.06 * width)
