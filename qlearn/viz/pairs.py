"""Two layers and the channels between them: what equalization moves from one to the other (paper Fig. 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qlearn.errors import QLearnError
from qlearn.viz.style import SIZE, axes_for, styled
from qlearn.viz.tables import matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray


@styled
def scaled_channels(
    before: tuple[ArrayLike, ArrayLike],
    after: tuple[ArrayLike, ArrayLike],
    factors: Sequence[float],
    *,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw the weights of two layers with a ReLU between them, before and after channels are scaled (paper Fig. 11).

    Each channel is a row of the first layer, which writes it, and a column of the second, which reads it.

    Parameters
    ----------
    before, after : pair of array_like, shapes (C, I) and (O, C)
        Weights of the first and of the second layer.
    factors : sequence of float, length C
        What each row of the first layer was divided by, and each column of the second multiplied by.
    title : str
    ax : Axes, optional

    Raises
    ------
    QLearnError
        If the shapes do not fit each other.

    Examples
    --------
    >>> ax = scaled_channels(([[4.0]], [[1.0]]), ([[2.0]], [[2.0]]), [2.0])
    >>> "÷ 2" in [text.get_text() for text in ax.texts]
    True
    """
    pairs = [[np.asarray(weight, float) for weight in pair] for pair in (before, after)]
    shapes = [[weight.shape for weight in pair] for pair in pairs]
    channels = len(factors)
    fits = all(weight.ndim == 2 for pair in pairs for weight in pair) and shapes[0] == shapes[1]
    if not fits or shapes[0][0][0] != channels or shapes[0][1][1] != channels:
        raise QLearnError(f"scaled_channels: {channels} factors do not fit weights of shapes {shapes}")
    rows = max(channels, len(pairs[0][1]))
    ax = axes_for(ax, title, size=(SIZE[0], 1.6 + 0.72 * rows))
    second = pairs[0][0].shape[1] + 2.6
    right = second + channels
    for place, (name, (first, reader)) in enumerate(zip(("before", "after"), pairs, strict=True)):
        top = place * (rows + 1.3)
        _shifted(ax, first, 0.0, top)
        _shifted(ax, reader, second, top)
        ax.text(-0.35, top + channels / 2, name, ha="right", va="center", weight="bold")
        ax.text(second - 1.3, top + channels / 2, "ReLU →", ha="center", va="center")
    for channel, factor in enumerate(factors):
        ax.text(second - 2.5, rows + 1.3 + channel + 0.5, f"÷ {factor:g}", ha="left", va="center", fontsize=9)
        ax.text(second + channel + 0.5, 2 * rows + 1.55, f"× {factor:g}", ha="center", va="top", fontsize=9)
    ax.text(pairs[0][0].shape[1] / 2, -0.15, "first layer:\na row writes a channel", ha="center", va="bottom")
    ax.text(second + channels / 2, -0.15, "second layer:\na column reads it", ha="center", va="bottom")
    ax.set_xlim(-1.6, right + 0.2)
    ax.set_ylim(2 * rows + 2.1, -1.2)
    ax.set_axis_off()
    return ax


def _shifted(ax: Axes, panel: NDArray[np.float64], left: float, top: float) -> None:
    """One coloured matrix with its upper edge elsewhere."""
    texts, images = len(ax.texts), len(ax.images)
    matrix(ax, panel, left, "Blues")
    for text in ax.texts[texts:]:
        x, y = text.get_position()
        text.set_position((x, y + top))
    for image in ax.images[images:]:
        image.set_extent((left, left + panel.shape[1], top + panel.shape[0], top))
