"""An engineer's own pictures: a folder, and a CSV file that says what they show."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from qlearn.errors import DataError, DataWarning, MissingDataError
from qlearn.zoo.data import LARGEST_LABEL, Dataset, Files

if TYPE_CHECKING:
    from qlearn.graph.preprocess import Preprocess

PICTURE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""File name endings, in lower case, that count as pictures where no CSV file lists them."""

COLUMNS = ("file", "label")
"""The columns that the CSV file needs; others are ignored."""


def from_folder(
    folder: str | Path,
    labels_csv: str | Path | None,
    preprocess: Preprocess,
    *,
    name: str | None = None,
    batch_size: int = 50,
) -> Dataset:
    r"""Use the pictures of a folder.

    Names and labels are checked now. The pictures are decoded when a batch needs them, and a damaged one is
    named then.

    Parameters
    ----------
    folder : str or Path
        Where the pictures are.
    labels_csv : str or Path, optional
        A comma-separated file in UTF-8 with the header ``file,label``: a path inside the folder, and a class
        index. Its order is the order of the data set. None takes every picture of the folder, sorted by name
        and without labels, which is enough to calibrate on.
    preprocess : Preprocess
        What turns the files into the network's input.
    name : str, optional
        What messages call it; the folder's name if not given.
    batch_size : int
        Pictures in a batch.

    Returns
    -------
    Dataset

    Warns
    -----
    DataWarning
        If pictures beside those that the CSV file lists have no row in it.

    Raises
    ------
    MissingDataError
        If the folder, the CSV file, or a picture that it names is not there.
    DataError
        If there is no picture, a column is missing, or a label is not a whole number >= 0.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> from qlearn.graph.preprocess import Preprocess
    >>> rule = Preprocess(size=(8, 8), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), resize=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (12, 10)).save(f"{folder}/cat.png")
    ...     _ = Path(folder, "labels.csv").write_text("file,label\ncat.png,3\n")
    ...     data = from_folder(folder, f"{folder}/labels.csv", rule, name="pets")
    ...     [(tuple(images.shape), labels.tolist()) for images, labels in data]
    [((1, 3, 8, 8), [3])]
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingDataError(f"no folder of pictures at {folder}; give the folder that holds them")
    name = name if name is not None else folder.resolve().name
    if labels_csv is None:
        return Dataset(name, Files(_all_pictures(folder), preprocess), preprocess, None, batch_size)
    paths, labels = [], []
    for where, file, label in _rows(Path(labels_csv)):
        path = folder / file
        if not path.is_file():
            raise MissingDataError(f"{where}: there is no picture {file!r} in the folder {folder}")
        paths.append(path)
        labels.append(_class_index(where, label))
    if not paths:
        raise DataError(f"{labels_csv}: no pictures at all; add lines such as photo.jpg,3 below the header")
    _tell_left_out(folder, paths, labels_csv)
    return Dataset(name, Files(tuple(paths), preprocess), preprocess, labels, batch_size)


def _tell_left_out(folder: Path, listed: list[Path], labels_csv: str | Path) -> None:
    """Warn of pictures beside listed ones that have no row."""
    beside = {path.parent for path in listed}
    known = set(listed)
    missing = [path for one in sorted(beside) for path in _pictures_in(one) if path not in known]
    if missing:
        shown = ", ".join(str(path.relative_to(folder)) for path in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        warnings.warn(
            f"{labels_csv} has no row for {len(missing)} of the pictures in {folder}; left out: {shown}{more}",
            DataWarning,
            stacklevel=3,
        )


def _all_pictures(folder: Path) -> tuple[Path, ...]:
    """List the pictures of a folder, sorted by name; hidden files and subfolders are left out."""
    found = _pictures_in(folder)
    if not found:
        raise DataError(f"no pictures at all in {folder}; looked for {', '.join(sorted(PICTURE_SUFFIXES))}")
    return tuple(found)


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _rows(path: Path) -> list[tuple[str, str, str]]:
    """Read (where, file, label) from every line of the CSV file."""
    if not path.is_file():
        raise MissingDataError(f"no CSV file of labels at {path}; it needs the header {','.join(COLUMNS)}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:  # Excel starts its files with a mark
            reader = csv.DictReader(stream)
            header = reader.fieldnames or []
            rows = [(f"{path}, line {reader.line_num}", row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error}); save it as such") from error
    for column in COLUMNS:
        if column not in header:
            raise DataError(
                f"{path}: no column {column!r} in the header {list(header)}; "
                f"the first line must be {','.join(COLUMNS)}, with commas"
            )
    return [(where, row["file"] or "", row["label"] or "") for where, row in rows]


def _class_index(where: str, text: str) -> int:
    """Read a class index, or say where it is wrong."""
    try:
        label = int(text)
    except ValueError:
        raise DataError(
            f"{where}: the label {text!r} is not a whole number; labels are class indices, counted from 0"
        ) from None
    if not 0 <= label <= LARGEST_LABEL:
        raise DataError(f"{where}: the label {label} is not a class index; they start at 0")
    return label
