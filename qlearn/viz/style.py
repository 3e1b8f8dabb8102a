"""One visual language: fixed colours for fixed meanings, one size, one font, and no pyplot state."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib.figure import Figure

from qlearn.errors import QLearnError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes

FLOAT = "#6b6b6b"
"""Grey: float values."""

QUANTIZED = "#0072b2"
"""Blue: quantized values and the integer grid."""

ERROR = "#e08a00"
"""Orange, always hatched or labelled as well: error and clipping."""

ZERO_POINT = "#c00000"
"""Red tick: the zero point."""

LIMIT = "black"
"""Dashed: the limits of the clip range."""

LOOKS = ((QUANTIZED, "o", "-"), (ERROR, "s", "--"), (FLOAT, "^", ":"), (LIMIT, "D", "-."))
"""Colour, marker and dash of the first to the fourth series of a figure: as many as can be told apart."""

SIZE = (6.4, 2.6)
"""Width and height of a figure in inches."""

DPI = 100

STYLE: Any = {
    "axes.axisbelow": True,
    "axes.grid": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.labelsize": 9.5,
    "figure.dpi": DPI,
    "figure.figsize": SIZE,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "savefig.dpi": DPI,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}
"""What every figure has in common."""

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Let a function draw in `STYLE`, whatever the caller has set, and leave the caller's settings alone."""

    @functools.wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return inside


def axes_for(ax: Axes | None, title: str, *, size: tuple[float, float] = SIZE) -> Axes:
    """Return the caller's axes, or those of a new figure that pyplot does not know of, with the title set.

    A new figure has its title at its left edge, where it is not cut however wide the labels are.

    Examples
    --------
    >>> title_of(axes_for(None, "8 bits are enough"))
    '8 bits are enough'
    """
    if ax is not None:
        ax.set_title(title, loc="left")
        return ax
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    if title:
        figure.suptitle(title, x=0.008, ha="left", fontsize=STYLE["axes.titlesize"])
    return figure.subplots()


def title_of(ax: Axes) -> str:
    """Return the title of an Axes, or of its figure."""
    figure = ax.get_figure(root=True)
    return ax.get_title(loc="left") or ax.get_title() or ("" if figure is None else figure.get_suptitle())


def signed(value: float) -> str:
    """Return a difference with its sign and one digit, as figures write it.

    Examples
    --------
    >>> signed(0.25), signed(-64.92), signed(-0.04)
    ('+0.2', '−64.9', '+0.0')
    """
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−")


def checked_lengths(figure: str, length: int | None, series: Mapping[str, Sequence[Any]]) -> None:
    """Refuse more series than there are `LOOKS`, and one that has not `length` values."""
    if len(series) > len(LOOKS):
        raise QLearnError(f"{figure}: at most {len(LOOKS)} series can be told apart, got {len(series)}")
    for name, values in series.items():
        if length is not None and len(values) != length:
            raise QLearnError(f"{figure}: {name!r} has {len(values)} values, {length} are expected")
