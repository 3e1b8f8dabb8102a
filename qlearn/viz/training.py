"""Quantization-aware training: the slope that is pretended, the gradient of a step size, one layer of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qlearn.errors import QLearnError
from qlearn.viz.flows import _ARROW, _box
from qlearn.viz.style import ERROR, FLOAT, LIMIT, QUANTIZED, SIZE, axes_for, styled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    from qlearn.numbers.qparams import QParams


@styled
def straight_through(
    x: ArrayLike, x_hat: ArrayLike, pretended: ArrayLike, qparams: QParams, *, title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw fake quantization as it goes forward, in stairs, and the line whose slope goes backward.

    Where the value is clipped, and no gradient passes, the figure is hatched.

    Parameters
    ----------
    x, x_hat : array_like, shape (N,)
        Real numbers in ascending order, and their reconstruction.
    pretended : array_like, shape (N,)
        The function whose derivative the straight-through estimator takes.
    qparams : QParams, per tensor
    title : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If the three arrays differ in length.
    """
    before, after, line = _same_length("straight_through", x, x_hat, pretended)
    ax = axes_for(ax, title, size=(SIZE[0], 3.0))
    ax.plot(before, after, color=QUANTIZED, lw=1.8, label="forward: stairs")
    ax.plot(before, line, color=FLOAT, lw=1.8, ls="--", label="backward: the slope of this line")
    _clipped_sides(ax, before, qparams)
    ax.set_xlabel("x (hatched: clipped, the slope is 0)")
    ax.set_ylabel("after fake quantization")
    ax.legend(loc="lower right", bbox_to_anchor=(0.74, 0.0), frameon=True, framealpha=1.0, edgecolor="none")
    return ax


@styled
def step_gradient(
    x: ArrayLike,
    gradient: ArrayLike,
    qparams: QParams,
    *,
    points: Sequence[tuple[float, float]] = (),
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw what one value adds to the gradient of a learned step size.

    Parameters
    ----------
    x, gradient : array_like, shape (N,)
        Real numbers in ascending order, and the derivative of their reconstruction with respect to the step size.
    qparams : QParams, per tensor
    points : sequence of (x, gradient), optional
        Marked with a diamond.
    title : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If the two arrays differ in length.
    """
    values, slopes = _same_length("step_gradient", x, gradient)
    ax = axes_for(ax, title, size=(SIZE[0], 3.0))
    ax.axhline(0, color="black", lw=0.6)
    ax.plot(values, slopes, color=QUANTIZED, lw=1.5)
    if len(points):
        ax.plot(*zip(*points, strict=True), "D", color=LIMIT, ms=5, ls="none")
    _clipped_sides(ax, values, qparams)
    ax.set_xlabel("x (hatched: clipped)")
    ax.set_ylabel("gradient of the step size")
    return ax


@styled
def fake_quantized_layer(*, title: str = "", ax: Axes | None = None) -> Axes:
    r"""Draw one layer during quantization-aware training (the paper's figure of §8, which has no number).

    Grey boxes are float, blue ones fake-quantize. Gradients go back along every arrow, in float.

    Examples
    --------
    >>> [text.get_text() for text in fake_quantized_layer().texts].count("fake\nquantize")
    2
    """
    ax = axes_for(ax, title, size=(SIZE[0], 2.7))
    row, top = 0.4, 2.35
    boxes = (
        ((0.0, row), "input\non its grid", QUANTIZED, False),
        ((3.9, row), "convolution", FLOAT, False),
        ((5.85, row), "bias, ReLU", FLOAT, False),
        ((7.8, row), "fake\nquantize", QUANTIZED, True),
        ((0.0, top), "weights\nfloat", FLOAT, False),
        ((1.95, top), "fold the\nbatch norm", FLOAT, False),
        ((3.9, top), "fake\nquantize", QUANTIZED, True),
    )
    for corner, text, colour, filled in boxes:
        _box(ax, corner, (1.5, 0.85), text, colour, filled=filled)
    middle, high = row + 0.42, top + 0.42
    ways = (
        *(((1.5, middle), (3.9, middle)), ((5.4, middle), (5.85, middle)), ((7.35, middle), (7.8, middle))),
        *(((9.3, middle), (9.85, middle)), ((1.5, high), (1.95, high)), ((3.45, high), (3.9, high))),
        ((4.65, top), (4.65, row + 0.85)),
    )
    for begin, end in ways:
        ax.annotate("", end, begin, arrowprops=_ARROW)
    back = _ARROW | {"color": ERROR, "ls": "--", "lw": 1.4}
    ax.annotate("", (0.1, 0.0), (9.85, 0.0), arrowprops=back)
    ax.text(4.95, -0.08, "gradients, in float: straight through every fake quantization", ha="center", va="top")
    ax.set_xlim(-0.1, 10.0)
    ax.set_ylim(-0.6, 3.3)
    ax.set_axis_off()
    return ax


def _clipped_sides(ax: Axes, values: NDArray[np.float64], qparams: QParams) -> None:
    """Dashed limits of the clip range; hatched where a value rounds to no code, half a step beyond them."""
    lo, hi, half = float(qparams.range.lo), float(qparams.range.hi), float(qparams.scale) / 2
    for limit in (lo, hi):
        ax.axvline(limit, color=LIMIT, ls="--", lw=0.9)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return
    for begin, end in ((finite.min(), lo - half), (hi + half, finite.max())):
        if begin < end:
            ax.axvspan(begin, end, facecolor="none", edgecolor=ERROR, hatch="////", lw=0, alpha=0.5)


def _same_length(figure: str, *arrays: ArrayLike) -> list[NDArray[np.float64]]:
    flat = [np.ravel(np.asarray(values, float)) for values in arrays]
    if len({len(values) for values in flat}) > 1:
        raise QLearnError(f"{figure}: arrays of one length expected, got {', '.join(str(len(v)) for v in flat)}")
    return flat
