"""What turns uint8 pictures into a network's input; it is stored with the model.

NumPy does the arithmetic, so that an integer model runs without torch.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qlearn.errors import DataError, MissingDataError, ModelFileError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image
    from torch import Tensor

CHANNELS = 3
"""Pictures are RGB."""

_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # Pillow's modes with more than 8 bits per value


@dataclass(frozen=True)
class Preprocess:
    """Centre crop, then ``(x / 255 - mean) / std`` for each colour channel.

    Every step is one float32 operation per value, in the order in which the formula is read: divide by 255,
    subtract the mean, divide by the standard deviation. None of them depends on neighbours, batch size or
    threads, so the same picture always gives the same bits.

    Parameters
    ----------
    size : tuple of int
        Height and width of the network's input, in pixels.
    mean, std : tuple of float
        Three numbers each, for R, G and B, on the scale 0 to 1. All finite, std > 0.
    resize : int, optional
        Picture *files* are first scaled until their short side has this many pixels, at least ``min(size)``.
        None leaves them as they are. Arrays of pictures are never scaled.

    Raises
    ------
    DataError
        If one of the conditions above does not hold.

    Examples
    --------
    >>> half = Preprocess(size=(2, 2), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    >>> white = np.full((1, 4, 4, 3), 255, np.uint8)
    >>> half.normalize(white).shape              # the middle 2 x 2 pixels, channels first
    (1, 3, 2, 2)
    >>> float(half.normalize(white).max())
    1.0
    >>> half(white).dtype
    torch.float32
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None

    def __post_init__(self) -> None:
        size = _numbers("size", self.size, 2)
        if any(side < 1 or side != int(side) for side in size):
            raise DataError(f"size must be two whole numbers >= 1 (height, width): got {self.size}")
        mean, std = _numbers("mean", self.mean, CHANNELS), _numbers("std", self.std, CHANNELS)
        if min(std) <= 0:
            raise DataError(f"std must be > 0: got {self.std}")
        if self.resize is not None:
            (resize,) = _numbers("resize", (self.resize,), 1)
            if resize != int(resize) or resize < min(size):
                raise DataError(
                    f"resize must be None or a whole number >= {min(self.size)}, the shorter side of "
                    f"size={self.size}: got {self.resize}"
                )
            object.__setattr__(self, "resize", int(resize))
        object.__setattr__(self, "size", (int(size[0]), int(size[1])))
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)

    def __call__(self, pictures: npt.NDArray[np.uint8]) -> Tensor:
        """Return `normalize` as a torch tensor, shape (N, 3, h, w), float32."""
        import torch  # integer models use this module without torch

        return torch.from_numpy(self.normalize(pictures))

    def normalize(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Crop and normalise pictures; the rule stands at the top of the class.

        Parameters
        ----------
        pictures : ndarray, shape (N, H, W, 3), uint8
            RGB, with H and W at least as large as ``size``.

        Returns
        -------
        ndarray, shape (N, 3, h, w), float32
            A new array, contiguous.

        Raises
        ------
        DataError
            If the type or the shape is another, or if the pictures are smaller than ``size``.
        """
        cropped = self.crop(pictures)
        planes = np.ascontiguousarray(cropped.transpose(0, 3, 1, 2)).astype(np.float32)
        planes /= np.float32(255)
        planes -= np.asarray(self.mean, np.float32).reshape(1, CHANNELS, 1, 1)
        planes /= np.asarray(self.std, np.float32).reshape(1, CHANNELS, 1, 1)
        return planes

    def crop(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the middle of each picture, shape (N, h, w, 3), uint8, as a view.

        Where an odd number of pixels is left over, the extra one goes at the right or at the bottom.

        Raises
        ------
        DataError
            If the type or the shape is another, or if the pictures are smaller than ``size``.

        Examples
        --------
        >>> rule = Preprocess(size=(2, 2), mean=(0, 0, 0), std=(1, 1, 1))
        >>> rule.crop(np.zeros((5, 3, 7, 3), np.uint8)).shape
        (5, 2, 2, 3)
        """
        pictures = np.asarray(pictures)
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != CHANNELS:
            raise DataError(
                "pictures must be uint8 RGB of shape (N, H, W, 3): "
                f"got {pictures.dtype} of shape {pictures.shape}; a single picture p is p[None]"
            )
        (height, width), (h, w) = pictures.shape[1:3], self.size
        if height < h or width < w:
            raise DataError(
                f"pictures of {height} x {width} pixels are smaller than the network's input {h} x {w} "
                f"(array of shape {pictures.shape}); scale them up, or for files set resize in Preprocess"
            )
        top, left = (height - h) // 2, (width - w) // 2
        return pictures[:, top : top + h, left : left + w]

    def load_picture(self, path: str | Path) -> npt.NDArray[np.uint8]:
        """Read one picture file: to RGB, scaled if ``resize`` is set, cropped to ``size``.

        Scaling is Pillow's bilinear filter, which averages over the covered area when it shrinks.
        The long side becomes ``long * resize // short`` pixels.
        The orientation tag of cameras is ignored, as the usual training loaders do.

        Parameters
        ----------
        path : str or Path
            Any format that Pillow reads, with 8 bits per value.

        Returns
        -------
        ndarray, shape (h, w, 3), uint8

        Raises
        ------
        MissingDataError
            If there is no such file.
        DataError
            If Pillow is missing, or the picture is damaged, too small, or has more than 8 bits per value.
        """
        try:
            from PIL import Image  # only picture files need Pillow
        except ImportError as error:
            raise DataError("reading picture files needs Pillow: pip install qlearn[zoo]") from error
        try:
            with Image.open(path) as image:
                if image.mode in _DEEP_MODES:
                    raise DataError(
                        f"{path}: {image.mode} pictures have more than 8 bits per value; save it with 8 bits"
                    )
                rgb = self._scaled(image.convert("RGB"))
        except FileNotFoundError as error:
            raise MissingDataError(f"no picture at {path}") from error
        except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: not a readable picture ({error}); replace it or leave it out") from error
        try:
            cropped: npt.NDArray[np.uint8] = self.crop(np.asarray(rgb)[None])[0]
        except DataError as error:
            error.add_note(f"in the file {path}")
            raise
        return cropped

    def _scaled(self, image: Image) -> Image:
        """Scale the short side to ``resize``."""
        if self.resize is None:
            return image
        short = min(image.size)
        width, height = (side * self.resize // short for side in image.size)
        return image.resize((width, height), 2)  # 2 is Pillow's number for bilinear

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists, ready for JSON.

        Examples
        --------
        >>> Preprocess(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)).to_dict()
        {'size': [32, 32], 'mean': [0.5, 0.5, 0.5], 'std': [0.25, 0.25, 0.25], 'resize': None}
        """
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Undo `to_dict`.

        Raises
        ------
        ModelFileError
            If a key is missing or unknown, or a value is not what the class asks for.

        Examples
        --------
        >>> rule = Preprocess(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        >>> Preprocess.from_dict(rule.to_dict()) == rule
        True
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or set(values) != names:
            raise ModelFileError(f"preprocessing must be a table with the keys {sorted(names)}: got {values!r:.200}")
        if not all(isinstance(values[key], list | tuple) for key in ("size", "mean", "std")):
            raise ModelFileError(f"size, mean and std of the preprocessing must be lists: got {values!r:.200}")
        try:
            return cls(tuple(values["size"]), tuple(values["mean"]), tuple(values["std"]), values["resize"])
        except DataError as error:
            raise ModelFileError(f"preprocessing: {error}") from error


def _numbers(name: str, values: tuple[float, ...], count: int) -> tuple[float, ...]:
    """Check for `count` finite numbers (no bools, no strings) and return them as floats."""
    good = [v for v in values if isinstance(v, int | float | np.number) and not isinstance(v, bool)]
    if len(values) != count or len(good) != count or not all(math.isfinite(v) for v in good):
        raise DataError(f"{name} needs {count} finite number{'s' * (count > 1)}: got {values!r:.100}")
    return tuple(float(v) for v in values)
