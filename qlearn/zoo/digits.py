"""House-number pictures that the project draws itself: small RGB digits that need no download.

Each picture starts as a digit from one of matplotlib's bundled fonts. It gets neighbours at its sides, a
plate behind it, an affine warp, blur, colours, uneven light and noise. Picture ``i`` depends on
``(seed, i)`` alone, so pictures can be drawn in any order, in parallel, and a short set is a prefix of a
longer one.

The pixel values are multiples of `COLOUR_STEP`. That is part of the definition of the data set: it keeps the
shipped files small, and training sees the same pictures as evaluation.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = 32
"""Height and width of a picture in pixels."""

COLOUR_STEP = 8
"""Stored colours are multiples of this."""

FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmr10", "cmb10", "cmss10", "cmtt10", "cmti10"),
)
"""The bundled fonts that have all ten digits."""

_FONT_SIZE = 72  # pixels; digits are then about 52 pixels high on the canvas
_DIGIT_HEIGHT = 52.0
_CANVAS = 256  # pixels; room for three digits
_OVERSAMPLE = 2  # the warped picture is drawn this much larger, then averaged down

Mask = npt.NDArray[np.float64]
Colour = npt.NDArray[np.float64]


def render_digits(count: int, seed: int, start: int = 0) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Draw the pictures ``start`` to ``start + count - 1`` of the set that ``seed`` names.

    Parameters
    ----------
    count : int
        Number of pictures N, at least 0.
    seed : int
        Name of the set, at least 0. Different seeds give unrelated pictures.
    start : int
        Index of the first picture, at least 0. Several workers can each draw a slice.

    Returns
    -------
    images : ndarray, shape (N, 32, 32, 3), uint8
        RGB pictures; all values are multiples of `COLOUR_STEP`.
    labels : ndarray, shape (N,), int64
        The digit in the middle of each picture, 0 to 9.

    Raises
    ------
    ValueError
        If ``count``, ``seed`` or ``start`` is negative.

    Examples
    --------
    >>> images, labels = render_digits(3, seed=7)
    >>> images.shape, labels.shape
    ((3, 32, 32, 3), (3,))
    >>> tail, _ = render_digits(1, seed=7, start=2)
    >>> bool((tail[0] == images[2]).all())
    True
    """
    if min(count, seed, start) < 0:
        raise ValueError(f"count, seed and start must not be negative, got {count}, {seed}, {start}")
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    labels = np.empty(count, np.int64)
    for row in range(count):
        rng = np.random.default_rng((seed, start + row))
        labels[row] = rng.integers(10)
        images[row] = _render_one(int(labels[row]), rng)
    return images, labels


def _render_one(digit: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw one picture, shape (32, 32, 3), uint8."""
    ink, plate = _draw_masks(digit, rng)
    blur = rng.uniform(0.3, 2.8)  # radius in oversampled pixels
    matrix = _random_affine(rng)
    ink_mask, plate_mask = (_warp(mask, matrix, blur) for mask in (ink, plate))
    picture = _paint(ink_mask, plate_mask, rng)
    picture *= _illumination(rng)
    picture += _noise(rng)
    levels = np.clip(np.rint(picture / COLOUR_STEP), 0, 255 // COLOUR_STEP)
    return (levels * COLOUR_STEP).astype(np.uint8)


def _draw_masks(digit: int, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """Draw the digit with its neighbours, and the plate behind them, as grey masks on the canvas."""
    font = _font(FONTS[rng.integers(len(FONTS))])
    ink = Image.new("L", (_CANVAS, _CANVAS))
    draw = ImageDraw.Draw(ink)
    middle = _CANVAS / 2
    _draw_digit(draw, digit, middle, middle, font)
    spacing = rng.uniform(0.84, 1.12)
    for side in (-1, 1):
        neighbour = int(rng.integers(10))
        if rng.random() < 0.65:
            distance = spacing * (font.getlength(str(digit)) + font.getlength(str(neighbour))) / 2
            _draw_digit(draw, neighbour, middle + side * distance, middle + rng.normal(0, 2), font)
    plate = Image.new("L", (_CANVAS, _CANVAS))
    half_width, half_height = rng.uniform(30, 110), rng.uniform(32, 60)
    box = (middle - half_width, middle - half_height, middle + half_width, middle + half_height)
    ImageDraw.Draw(plate).rounded_rectangle(box, radius=rng.uniform(0, 14), fill=255)
    return ink, plate


@lru_cache(maxsize=len(FONTS))
def _font(name: str) -> ImageFont.FreeTypeFont:
    """Open a bundled font once."""
    import matplotlib as mpl

    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(str(path), _FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)


def _draw_digit(draw: ImageDraw.ImageDraw, digit: int, x: float, y: float, font: ImageFont.FreeTypeFont) -> None:
    """Draw one digit with the centre of its ink at ``(x, y)``, in canvas pixels."""
    left, top, right, bottom = font.getbbox(str(digit))
    draw.text((x - (left + right) / 2, y - (top + bottom) / 2), str(digit), fill=255, font=font)


def _random_affine(rng: np.random.Generator) -> Sequence[float]:
    """Choose rotation, shear, size and shift; return the six numbers that map picture to canvas."""
    angle = math.radians(rng.uniform(-18, 18))
    shear = rng.uniform(-0.3, 0.3)
    height = rng.uniform(14, 25) * _OVERSAMPLE  # of the digit, in oversampled pixels
    aspect = rng.uniform(0.75, 1.25)
    shift = rng.uniform(-3.0, 3.0, size=2) * _OVERSAMPLE
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = np.array([[1, shear], [0, 1]]) @ turn @ np.diag([1 / aspect, 1.0]) * (_DIGIT_HEIGHT / height)
    centre = np.full(2, SIZE * _OVERSAMPLE / 2)
    offset = _CANVAS / 2 - linear @ (centre + shift)
    return (*linear[0], offset[0], *linear[1], offset[1])


def _warp(mask: Image.Image, matrix: Sequence[float], blur: float) -> Mask:
    """Map a canvas mask into the picture, blur it, and return it with shape (32, 32), 0 to 1."""
    side = SIZE * _OVERSAMPLE
    warped = mask.transform((side, side), Image.Transform.AFFINE, tuple(matrix), resample=Image.Resampling.BILINEAR)
    small = warped.filter(ImageFilter.GaussianBlur(blur)).reduce(_OVERSAMPLE)
    return np.asarray(small, np.float64) / 255


def _paint(ink: Mask, plate: Mask, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Colour wall, plate, shadow and ink; return shape (32, 32, 3), values about 0 to 255."""
    wall = np.clip(rng.uniform(50, 215) + rng.normal(0, 25, size=3), 0, 255)
    plate_colour = np.clip(rng.uniform(50, 205) + rng.normal(0, 22, size=3), 0, 255)
    ink_colour = _ink_colour(plate_colour, rng)
    picture = wall + (plate_colour - wall) * plate[..., None]
    if rng.random() < 0.4:  # digits that stand off the wall throw a shadow
        across, down = rng.integers(-2, 3), rng.integers(0, 3)
        shadow = np.roll(ink, (int(down), int(across)), axis=(0, 1))
        picture *= 1 - rng.uniform(0.15, 0.5) * shadow[..., None]
    return picture + (ink_colour - picture) * ink[..., None]


def _ink_colour(background: Colour, rng: np.random.Generator) -> Colour:
    """Choose a colour that differs from the background, sometimes only a little."""
    contrast = rng.uniform(30, 150)
    brighter = background.mean() < rng.uniform(70, 185)
    colour = background + contrast * (1 if brighter else -1) + rng.normal(0, 14, size=3)
    return np.clip(colour, 0, 255)


def _illumination(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return uneven light as a factor, shape (32, 32, 1)."""
    ramp = np.linspace(-1, 1, SIZE)
    across, down = rng.uniform(-0.3, 0.3, size=2)
    plane = 1 + across * ramp[None, :] + down * ramp[:, None]
    return np.asarray(plane[..., None], np.float64)


def _noise(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return additive noise, shape (32, 32, 3): grey blotches of dirt, and fine sensor noise."""
    coarse = Image.fromarray(rng.normal(0, rng.uniform(0, 16), size=(7, 7)).astype(np.float32))
    blotches = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float64)
    grain = rng.normal(0, rng.uniform(1, 11), size=(SIZE, SIZE))
    return np.repeat((blotches + grain)[..., None], 3, axis=2)
