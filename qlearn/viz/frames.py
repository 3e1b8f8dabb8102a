"""Interactive figures that need no server: all frames are drawn beforehand, a slider chooses which is shown."""

from __future__ import annotations

import base64
import hashlib
import html
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from qlearn.errors import QLearnError
from qlearn.viz.style import DPI

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes


def png(ax: Axes) -> bytes:
    """Return the figure of an Axes as a small PNG of 256 colours, without a word about who wrote it or when.

    Examples
    --------
    >>> from qlearn.viz.strip import pipeline_strip
    >>> png(pipeline_strip())[1:4]
    b'PNG'
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    figure.set_layout_engine("none")  # the layout moves a little at each drawing: the first one stays
    small = io.BytesIO()
    with Image.open(buffer) as picture:
        few = picture.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(small, "PNG", optimize=True)
    return small.getvalue()


@dataclass(frozen=True)
class Slider:
    """Frames behind one range input. A notebook shows it as the result of a cell.

    Parameters
    ----------
    label : str
        What the slider changes: "bits".
    values : sequence of str
        What is written beside the slider at each place.
    frames : sequence of Axes
        One figure per place.
    alt : sequence of str
        What each figure shows, in words.
    start : int
        The place that is shown first.

    Raises
    ------
    QLearnError
        If the lengths differ, or there are no frames.
    """

    label: str
    values: Sequence[str]
    frames: Sequence[Axes]
    alt: Sequence[str]
    start: int = 0

    def __post_init__(self) -> None:
        if not len(self.values) == len(self.frames) == len(self.alt) or not self.frames:
            raise QLearnError(
                f"a slider needs as many values and texts as frames, got "
                f"{len(self.values)}, {len(self.alt)} and {len(self.frames)}"
            )
        if not 0 <= self.start < len(self.frames):
            raise QLearnError(f"start must be one of {len(self.frames)} places, got {self.start}")

    def _repr_html_(self) -> str:
        """HTML with one picture per frame; the slider hides all but one."""
        pictures = [base64.b64encode(png(frame)).decode() for frame in self.frames]
        name = "q" + hashlib.sha256(f"{self.label}{self.values}{self.alt}".encode()).hexdigest()[:10]
        width = round(self.frames[0].get_figure(root=True).get_figwidth() * DPI)  # type: ignore[union-attr]
        shown = "".join(
            f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" width="{width}" '
            f'style="max-width:100%;display:{"block" if place == self.start else "none"}">'
            for place, (data, alt) in enumerate(zip(pictures, self.alt, strict=True))
        )
        values = ",".join(f"'{html.escape(value, quote=True)}'" for value in self.values)
        script = (
            f"var b=document.getElementById('{name}'),i=+this.value;"
            "[].forEach.call(b.querySelectorAll('img'),function(p,k){p.style.display=k===i?'block':'none'});"
            f"b.querySelector('output').textContent=[{values}][i]"
        )
        # At the first arrow key JupyterLab would take the focus back from the slider.
        keys = 'onkeydown="event.stopPropagation()"'
        return (
            f'<div id="{name}">{shown}<label>{html.escape(self.label)} '
            f'<input type="range" min="0" max="{len(self.frames) - 1}" step="1" value="{self.start}" '
            f'aria-label="{html.escape(self.label)}" oninput="{script}" {keys} '
            'style="width:16em;vertical-align:middle"> '
            f"<output>{html.escape(self.values[self.start])}</output></label></div>"
        )

    def __repr__(self) -> str:
        return f"Slider: {self.label} from {self.values[0]} to {self.values[-1]}"
