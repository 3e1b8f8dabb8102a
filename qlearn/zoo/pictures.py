"""The pictures of the zoo: shipped digits, and photographs from the folder that ``QLEARN_DATA`` names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qlearn.errors import DataError, MissingDataError
from qlearn.graph.preprocess import Preprocess
from qlearn.zoo.bundled import read_asset
from qlearn.zoo.data import Dataset, Files, Splits, draw
from qlearn.zoo.folder import from_folder
from qlearn.zoo.weights import data_folder

if TYPE_CHECKING:
    from pathlib import Path

SEED = 0
"""Seed of every draw of calibration pictures."""

IMAGENET_CALIBRATION = 200
"""Photos that are drawn for calibration from the thousand of the sample."""

CIFAR_CALIBRATION = 500
"""Pictures that are drawn for calibration from the training mosaics."""

_ROWS, _COLUMNS, _SIDE = 25, 40, 32  # tiles of a mosaic, pixels of a tile
_TILES = _ROWS * _COLUMNS
_OWN = "bring your own pictures with --data FOLDER --labels CSV"

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""The classes of CIFAR-10, in order."""


def digits(preprocess: Preprocess) -> Splits:
    """Return the house-number digits that ship with qlearn: 256 to calibrate on, 2000 to evaluate on."""
    sets = {}
    for part in ("calibration", "evaluation"):
        arrays = read_asset(f"digits_{part}.npz")
        sets[part] = Dataset(f"digits {part}", arrays["images"], preprocess, arrays["labels"], batch_size=100)
    return Splits(**sets)


def imagenet(preprocess: Preprocess) -> Splits:
    """Return photographs of ImageNet.

    Calibration: `IMAGENET_CALIBRATION` of the thousand photos in ``imagenet_sample_256``, one for each class,
    drawn by ``numpy.random.default_rng(SEED).choice`` and sorted. Sorted by file name, a photo's place is its
    class. Most have a short side of 256 pixels already; about one in ten is smaller, and is scaled up.
    Selection: the other 800.
    Evaluation: the 650 validation photos in ``imagenet_val650_227``. They have 227 x 227 pixels already, so
    they are cropped, never scaled.

    Raises
    ------
    MissingDataError
        If ``QLEARN_DATA`` is not set, or a folder is missing in it.
    DataError
        If the sample is not of a thousand photos.
    """
    sample, validation = _need("imagenet_sample_256"), _need("imagenet_val650_227")
    paths = sorted(path for path in sample.iterdir() if path.suffix.upper() == ".JPEG")
    classes = 1000
    if len(paths) != classes:
        raise DataError(f"{sample}: {classes} photos expected, one for each class, but there are {len(paths)}")
    chosen = draw(classes, IMAGENET_CALIBRATION, SEED)
    others = np.setdiff1d(np.arange(classes), chosen)
    files = Files(tuple(paths), preprocess)
    evaluation = from_folder(
        validation, validation / "labels.csv", replace(preprocess, resize=None), name="imagenet validation"
    )
    return Splits(
        calibration=Dataset("imagenet sample", files.take(chosen), preprocess, chosen),
        selection=Dataset("rest of the imagenet sample", files.take(others), preprocess, others),
        evaluation=replace(evaluation, preprocess=preprocess),  # arrays are treated alike
    )


def cifar10(preprocess: Preprocess) -> Splits:
    """Return pictures of CIFAR-10.

    Calibration: `CIFAR_CALIBRATION` of the training pictures that are there, drawn by
    ``numpy.random.default_rng(SEED).choice`` and sorted. Evaluation: the 10 000 test pictures.

    Raises
    ------
    MissingDataError
        If ``QLEARN_DATA`` is not set, or the mosaics are missing in it.
    DataError
        If a mosaic is damaged, or there are not as many labels as tiles.
    """
    folder = _need("cifar10")
    train, test = _labels(folder, "train"), _labels(folder, "test")
    chosen = draw(len(train), CIFAR_CALIBRATION, SEED)
    return Splits(
        Dataset("cifar10 train", _tiles(folder, "train", chosen), preprocess, train[chosen], 100),
        Dataset("cifar10 test", _tiles(folder, "test", np.arange(len(test))), preprocess, test, 100),
    )


def cifar10_training(preprocess: Preprocess) -> Dataset:
    """Return all training pictures of CIFAR-10 that are there, those for calibration among them.

    Raises
    ------
    MissingDataError, DataError
        As for `cifar10`.
    """
    folder = _need("cifar10")
    labels = _labels(folder, "train")
    return Dataset("cifar10 train", _tiles(folder, "train", np.arange(len(labels))), preprocess, labels, 100)


def imagenet_classes() -> tuple[str, ...]:
    """Return the first name of each of the thousand classes of ImageNet, in order.

    Raises
    ------
    MissingDataError
        If ``QLEARN_DATA`` is not set, or the list is missing in it.
    """
    lines = _need("imagenet_synset_words.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line.split(maxsplit=1)[1].split(",")[0] for line in lines if line.strip())


def _need(name: str) -> Path:
    """Return a file or folder of ``QLEARN_DATA``, or say how to do without."""
    root = data_folder()
    if root is None:
        raise MissingDataError(
            f"the pictures ({name}) are not part of qlearn: set QLEARN_DATA to a folder with them, or {_OWN}"
        )
    if not (root / name).exists():
        raise MissingDataError(f"there is no {name} in {root}, which QLEARN_DATA names; add it, or {_OWN}")
    return root / name


def _labels(folder: Path, part: str) -> npt.NDArray[np.int64]:
    """Read the labels of the test or the training mosaics."""
    path = folder / f"{part}_labels.npy"
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.int64)
    except FileNotFoundError as error:
        raise MissingDataError(f"there are no labels at {path}") from error
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: not a NumPy array of labels ({error})") from error


def _tiles(folder: Path, part: str, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Cut the chosen pictures, in rising order, out of the mosaics, one mosaic after the other."""
    height, width = _ROWS * _SIDE, _COLUMNS * _SIDE
    whole = Preprocess((height, width), (0.0,) * 3, (1.0,) * 3)
    cut = []
    for number in np.unique(chosen // _TILES):
        mosaic = whole.load_picture(folder / f"{part}_{number:02}.png")
        tiles = mosaic.reshape(_ROWS, _SIDE, _COLUMNS, _SIDE, 3).transpose(0, 2, 1, 3, 4)
        inside = chosen[chosen // _TILES == number] % _TILES
        cut.append(tiles[inside // _COLUMNS, inside % _COLUMNS])
    return np.concatenate(cut)
