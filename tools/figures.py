"""Draw the figures of the book that belong to no chapter: ``python tools/figures.py write`` or ``check``."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import paper_map  # the other script of this folder

from qlearn import viz
from qlearn.viz.style import QUANTIZED, axes_for, styled

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

FOLDER = Path(__file__).parents[1] / "book" / "_static"


def laplace_tradeoff() -> Axes:
    """Draw what `plugins/qlearn-aciq` balances: the expected noise of Laplace data in 15 steps."""
    t = np.linspace(1.0, 10.0, 181)
    rounding, clipping = (2 * t / 15) ** 2 / 12, 2 * np.exp(-t)
    best = float(t[(rounding + clipping).argmin()])
    return viz.tradeoff(list(t), list(rounding), list(clipping), {f"{best:.1f}": best}, title="Laplace, 4 bits")


@styled
def paper_grid() -> Axes:
    """Draw which chapter teaches which section of the paper."""
    sections, chapters = paper_map.coverage(), list(paper_map.data()["chapters"])
    chapters = [number for number in chapters if any(number in named for named in sections.values())]
    ax = axes_for(None, "Every section of the paper has its chapters", size=(6.4, 3.0))
    places = [(x, chapters.index(number)) for x, named in enumerate(sections.values()) for number in named]
    ax.scatter(*zip(*places, strict=True), marker="s", s=55, color=QUANTIZED)
    ax.set_xticks(range(len(sections)), list(sections), rotation=90)
    ax.set_yticks(range(len(chapters)), chapters)
    ax.set_xlim(-0.7, len(sections) - 0.3)
    ax.set_ylim(len(chapters) - 0.4, -0.6)
    ax.set_xlabel("section of the paper")
    ax.set_ylabel("chapter")
    ax.grid(alpha=0.25)
    return ax


FIGURES: dict[str, Callable[[], Axes]] = {
    "pipeline.png": viz.pipeline_strip,
    "aciq.png": laplace_tradeoff,
    "paper_map.png": paper_grid,
}
"""File name -> what draws it."""


def drawn(draw: Callable[[], Axes]) -> bytes:
    """Return a figure as PNG: the same bytes each time, with the same matplotlib."""
    buffer = io.BytesIO()
    figure = draw().get_figure()
    assert figure is not None
    figure.savefig(buffer, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def main() -> int:
    """Write the figures, or say which files are not what would be drawn now."""
    parser = argparse.ArgumentParser(description="Draw the figures of the book that belong to no chapter.")
    parser.add_argument("action", choices=["write", "check"])
    action = parser.parse_args().action
    stale = []
    for name, draw in FIGURES.items():
        path, picture = FOLDER / name, drawn(draw)
        if path.exists() and path.read_bytes() == picture:
            continue
        if action == "write":
            path.write_bytes(picture)
        stale.append(name)
        print(f"book/_static/{name}: {'written' if action == 'write' else 'is not what would be drawn now'}")
    if stale and action == "check":
        print("if that is meant: python tools/figures.py write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
