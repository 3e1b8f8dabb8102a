"""Figures of mixed precision: what bits cost, which are chosen, and what every budget buys (paper §7.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qlearn.errors import QLearnError
from qlearn.viz.style import ERROR, FLOAT, LIMIT, QUANTIZED, SIZE, axes_for, styled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

_MARKERS = ("o", "s", "^", "D", "v")


@styled
def pareto_front(
    usage: Sequence[float],
    cost: Sequence[float],
    *,
    marks: Mapping[str, tuple[float, float]] | None = None,
    title: str = "",
    xlabel: str = "weights (bytes)",
    ylabel: str = "cost",
    ax: Axes | None = None,
) -> Axes:
    """Draw the least cost that each budget allows, and some networks beside it.

    Parameters
    ----------
    usage, cost : sequence of float, equal lengths
        The points of the front, usage rising.
    marks : mapping of label to (usage, cost), optional
        Networks to compare with: uniform bits, what a greedy search found.
    title, xlabel, ylabel : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If the lengths differ.

    Examples
    --------
    >>> ax = pareto_front([100, 200, 400], [1.0, 0.1, 0.01], marks={"uniform": (220, 0.3)})
    >>> ax.get_yscale()
    'log'
    """
    if len(usage) != len(cost):
        raise QLearnError(f"pareto_front: {len(usage)} numbers for usage, {len(cost)} for cost")
    ax = axes_for(ax, title, size=(SIZE[0], 3.2))
    ax.plot(usage, cost, ".-", color=QUANTIZED, linewidth=1.2, markersize=4, label="Pareto front")
    for place, (label, point) in enumerate((marks or {}).items()):
        ax.plot(*point, _MARKERS[place % len(_MARKERS)], color=ERROR, markeredgecolor="black", label=label)
    if any(value > 0 for value in [*cost, *(point[1] for point in (marks or {}).values())]):
        ax.set_yscale("log", nonpositive="clip")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.legend(loc="upper right")
    return ax


@styled
def cost_bars(
    layers: Sequence[str],
    costs: Mapping[int, Sequence[float]],
    *,
    title: str = "",
    xlabel: str = "cost",
    ax: Axes | None = None,
) -> Axes:
    """Draw what each layer costs at each number of bits: one group of bars per layer, fewest bits darkest.

    Parameters
    ----------
    layers : sequence of str
    costs : mapping of bits to one cost per layer
        NaN where a layer was not tried with that many bits.
    title, xlabel : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If there is not one cost for each layer.

    Examples
    --------
    >>> ax = cost_bars(["conv1", "fc"], {2: [0.3, 0.1], 4: [0.02, 0.01]})
    >>> [text.get_text() for text in ax.get_legend().texts]
    ['2 bits', '4 bits']
    """
    for bits, mine in costs.items():
        if len(mine) != len(layers):
            raise QLearnError(f"cost_bars: {len(layers)} layers, but {len(mine)} costs at {bits} bits")
    rows, groups = len(layers), max(len(costs), 1)
    ax = axes_for(ax, title, size=(SIZE[0], 1.0 + 0.105 * max(rows, 3) * (groups + 1)))
    height = 0.86 / groups
    for place, bits in enumerate(sorted(costs)):
        middle = np.arange(rows) + (place - (groups - 1) / 2) * height
        shade = 1.0 - 0.75 * place / max(groups - 1, 1)
        ax.barh(middle, costs[bits], height=height * 0.92, color=QUANTIZED, alpha=shade, label=f"{bits} bits")
    if any(value > 0 for mine in costs.values() for value in mine):
        ax.set_xscale("log", nonpositive="clip")
    ax.set_yticks(range(rows), layers)
    ax.set_ylim(max(rows, 1) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(xlabel)
    if costs:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


@styled
def allocation_strip(
    layers: Sequence[str],
    bits: Sequence[int],
    *,
    widths: Sequence[float] | None = None,
    width_label: str = "weights",
    average: float | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw the bits of every layer as bars in the order of the network.

    Parameters
    ----------
    layers : sequence of str
    bits : sequence of int
        The height of each bar.
    widths : sequence of float, optional
        The width of each bar, for instance the number of weights: the areas are then bytes. Equal if not given.
    width_label : str
        What the widths are.
    average : float, optional
        A dashed line, for instance at the bits of the uniform network of that size.
    title : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If the lengths differ, or a width is not above 0.

    Examples
    --------
    >>> ax = allocation_strip(["conv1", "conv2"], [8, 3], average=4)
    >>> [int(patch.get_height()) for patch in ax.patches]
    [8, 3]
    """
    sizes = np.ones(len(layers)) if widths is None else np.asarray(widths, float)
    if not len(layers) == len(bits) == len(sizes) or not (sizes > 0).all():
        raise QLearnError(f"allocation_strip: {len(layers)} layers, {len(bits)} bits, {len(sizes)} widths above 0")
    ax = axes_for(ax, title, size=(SIZE[0], 2.9 if widths is None else 2.4))
    left = np.cumsum(sizes) - sizes
    ax.bar(left, bits, width=sizes, align="edge", color=QUANTIZED, edgecolor="white", linewidth=0.6)
    for start, size, number in zip(left, sizes, bits, strict=True):
        if size > 0.015 * sizes.sum():  # a number would not fit in a narrower bar
            ax.text(start + size / 2, number, str(number), ha="center", va="bottom", fontsize=8)
    if average is not None:
        ax.axhline(average, color=LIMIT, linestyle="--", linewidth=1)
        ax.text(1.005, average, f"{average:g}", transform=ax.get_yaxis_transform(), va="center", fontsize=8.5)
    if widths is None:
        ax.set_xticks(left + sizes / 2, layers, rotation=90, fontsize=8)
        ax.tick_params(axis="x", length=0)
    else:
        ax.set_xticks([])
        ax.set_xlabel(f"{layers[0]} … {layers[-1]}; width: {width_label}" if len(layers) else "", color=FLOAT)
    ax.set_xlim(0, sizes.sum() or 1)
    ax.set_ylim(0, max([*bits, average or 0, 1]) * 1.15)
    ax.set_ylabel("bits")
    return ax
