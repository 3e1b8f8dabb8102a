"""Pictures and labels, one batch at a time.

A `Dataset` is what `calibrate` and `evaluate` iterate over. Its pictures lie in memory, or in files that are
decoded one batch at a time, so that memory does not grow with the number of files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qlearn.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from qlearn.graph.preprocess import Preprocess

Indices = npt.NDArray[np.int64]

LARGEST_LABEL = 2**31 - 1
"""Class indices fit in 31 bits."""


class Batch(NamedTuple):
    """One batch; take it apart by ``images, labels = batch``.

    ``images`` is a Tensor of shape (n, 3, h, w), float32.
    ``labels`` is a Tensor of shape (n,), int64, or None where the data set has no labels.
    """

    images: Tensor
    labels: Tensor | None


class Source(Protocol):
    """Where pictures come from."""

    def __len__(self) -> int:
        """Return the number of pictures."""

    def read(self, indices: Indices) -> npt.NDArray[np.uint8]:
        """Return the named pictures, shape (n, H, W, 3), uint8."""

    def take(self, indices: Indices) -> Source:
        """Return a source of only the named pictures, in that order."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """Pictures in one array.

    Parameters
    ----------
    array : ndarray, shape (N, H, W, 3), uint8
    """

    array: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.array)

    def read(self, indices: Indices) -> npt.NDArray[np.uint8]:
        """Return the named pictures, shape (n, H, W, 3), uint8."""
        return self.array[indices]

    def take(self, indices: Indices) -> InMemory:
        """Return a source of only the named pictures, in that order."""
        return InMemory(self.array[indices])


@dataclass(frozen=True, eq=False)
class Files:
    """Picture files, decoded when they are read.

    Parameters
    ----------
    paths : tuple of Path
    preprocess : Preprocess
        Its `load_picture` reads the files, so all pictures come out in one size.
    """

    paths: tuple[Path, ...]
    preprocess: Preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, indices: Indices) -> npt.NDArray[np.uint8]:
        """Decode the named pictures, shape (n, h, w, 3), uint8."""
        return np.stack([self.preprocess.load_picture(self.paths[i]) for i in indices])

    def take(self, indices: Indices) -> Files:
        """Return a source of only the named files, in that order."""
        return Files(tuple(self.paths[i] for i in indices), self.preprocess)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Pictures with their preprocessing, and labels if there are any.

    Iterating gives a `Batch` at a time. It can be iterated again and again, always in the same order.

    Parameters
    ----------
    name : str
        What messages call it.
    source : Source or ndarray, shape (N, H, W, 3), uint8
        At least one picture. An array becomes `InMemory`.
    preprocess : Preprocess
        What turns the pictures into the network's input.
    labels : ndarray, shape (N,), int64, optional
        Class indices, each at least 0.
    batch_size : int
        Pictures in a batch; the last one may have fewer.

    Raises
    ------
    DataError
        If there is no picture, or the labels do not fit.

    Examples
    --------
    >>> from qlearn.graph.preprocess import Preprocess
    >>> rule = Preprocess(size=(4, 4), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    >>> pictures = np.zeros((5, 4, 4, 3), np.uint8)
    >>> data = Dataset("black", pictures, rule, labels=np.arange(5), batch_size=2)
    >>> len(data), [len(images) for images, labels in data]
    (5, [2, 2, 1])
    >>> data.subset([4, 0]).labels.tolist()
    [4, 0]
    """

    name: str
    source: Source
    preprocess: Preprocess
    labels: npt.NDArray[np.int64] | None = None
    batch_size: int = 50

    def __init__(
        self,
        name: str,
        source: Source | npt.NDArray[np.uint8],
        preprocess: Preprocess,
        labels: npt.ArrayLike | None = None,
        batch_size: int = 50,
    ) -> None:
        if isinstance(source, np.ndarray):
            if len(source):
                preprocess.crop(source[:1])  # refuses a wrong type or shape
            source = InMemory(source)
        if len(source) == 0:
            raise DataError(f"{name}: no pictures at all; a data set needs at least one")
        if batch_size < 1:
            raise DataError(f"{name}: batch_size must be at least 1, got {batch_size}")
        checked = None if labels is None else _checked_labels(name, labels, len(source))
        for key, value in (("name", name), ("source", source), ("preprocess", preprocess)):
            object.__setattr__(self, key, value)
        object.__setattr__(self, "labels", checked)
        object.__setattr__(self, "batch_size", int(batch_size))

    def __len__(self) -> int:
        """Return the number of pictures, not of batches."""
        return len(self.source)

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches of ``batch_size``."""
        return self.batches(self.batch_size)

    @property
    def batch_count(self) -> int:
        """Number of batches that iterating gives."""
        return -(-len(self) // self.batch_size)

    def __repr__(self) -> str:
        labels = "labels" if self.labels is not None else "no labels"
        return f"Dataset({self.name!r}, {len(self)} pictures, {labels}, batch_size={self.batch_size})"

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield batches of another size; only one is in memory at a time.

        Raises
        ------
        DataError
            If ``batch_size`` is below 1, or a picture cannot be read.
        """
        if batch_size < 1:
            raise DataError(f"{self.name}: batch_size must be at least 1, got {batch_size}")
        return self._batches(batch_size)

    def _batches(self, batch_size: int) -> Iterator[Batch]:
        for start in range(0, len(self), batch_size):
            chosen = np.arange(start, min(start + batch_size, len(self)))
            labels = None if self.labels is None else torch.from_numpy(self.labels[chosen])
            yield Batch(self.preprocess(self.source.read(chosen)), labels)

    def pictures(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """Return the named pictures as people look at them: cropped, shape (n, h, w, 3), uint8.

        Raises
        ------
        DataError
            If an index is out of range, or a picture cannot be read.
        """
        return self.preprocess.crop(self.source.read(self._checked_indices(indices)))

    def subset(self, chosen: int | Sequence[int] | npt.NDArray[np.integer], *, seed: int | None = 0) -> Dataset:
        """Return a new data set of some of the pictures.

        Parameters
        ----------
        chosen : int or sequence of int
            How many to draw without replacement, kept in their order; or exactly which, in the order given.
        seed : int, optional
            Seed of ``numpy.random.default_rng`` for the draw. None takes the first ones instead.

        Raises
        ------
        DataError
            If there are not that many pictures, or an index is out of range.

        Examples
        --------
        >>> from qlearn.graph.preprocess import Preprocess
        >>> rule = Preprocess(size=(1, 1), mean=(0, 0, 0), std=(1, 1, 1))
        >>> data = Dataset("points", np.zeros((100, 1, 1, 3), np.uint8), rule, labels=np.arange(100))
        >>> data.subset(3, seed=None).labels.tolist(), len(data.subset(10))
        ([0, 1, 2], 10)
        """
        if isinstance(chosen, int | np.integer):
            if not 1 <= chosen <= len(self):
                raise DataError(f"{self.name}: cannot choose {chosen} of {len(self)} pictures")
            indices = draw(len(self), int(chosen), seed) if seed is not None else np.arange(int(chosen))
        else:
            indices = self._checked_indices(chosen)
        labels = None if self.labels is None else self.labels[indices]
        return Dataset(self.name, self.source.take(indices), self.preprocess, labels, self.batch_size)

    def _checked_indices(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> Indices:
        array = np.asarray(indices)
        if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
            raise DataError(f"{self.name}: indices must be a list of whole numbers, got {indices!r:.100}")
        if array.min() < 0 or array.max() >= len(self):
            raise DataError(
                f"{self.name}: indices must lie in [0, {len(self) - 1}], got {array.min()} to {array.max()}"
            )
        return array.astype(np.int64)


@dataclass(frozen=True)
class Splits:
    """The pictures to calibrate on, and the others to evaluate on.

    Parameters
    ----------
    calibration, evaluation : Dataset
    selection : Dataset, optional
        Labelled pictures to make choices on, such as which calibrator to use: neither of the other two,
        so that the evaluation stays unseen until the choice is made.
    """

    calibration: Dataset
    evaluation: Dataset
    selection: Dataset | None = None


def draw(total: int, count: int, seed: int) -> Indices:
    """Draw `count` of `total` indices without replacement, sorted.

    Examples
    --------
    >>> draw(5, 5, seed=0).tolist()
    [0, 1, 2, 3, 4]
    """
    return np.sort(np.random.default_rng(seed).choice(total, count, replace=False)).astype(np.int64)


def _checked_labels(name: str, labels: npt.ArrayLike, count: int) -> npt.NDArray[np.int64]:
    """Copy to a read-only int64 array, or refuse."""
    given = np.asarray(labels)
    if given.shape != (count,) or not np.issubdtype(given.dtype, np.integer):
        raise DataError(
            f"{name}: labels must be whole numbers, one for each of {count} pictures: "
            f"got {given.dtype} of shape {given.shape}"
        )
    if given.min() < 0 or given.max() > LARGEST_LABEL:
        raise DataError(f"{name}: labels must be class indices >= 0, got {given.min()} to {given.max()}")
    array = given.astype(np.int64)
    array.setflags(write=False)
    return array
