"""Some pictures of a set, in memory, always the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qlearn.errors import DataError
from qlearn.pipeline.calibrate import input_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from qlearn.graph.preprocess import Preprocess

BATCH = 32
"""Pictures that run at once."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Some pictures of a set, in memory.

    Parameters
    ----------
    x : Tensor, shape (N, *input_shape), float32
    labels : Tensor or None, shape (N,), int64
    count : int
        Pictures in the whole set, as far as it was read.
    preprocess : Preprocess or None
        What the set says about itself.
    indices : ndarray, shape (N,)
        Their places in the set.
    """

    x: Tensor
    labels: Tensor | None
    count: int
    preprocess: Preprocess | None
    indices: NDArray[np.int64]

    def batches(self) -> list[Tensor]:
        """Return the pictures in batches of `BATCH`."""
        return list(torch.split(self.x, BATCH))


def sample(batches: Any, images: int, what: str) -> Sample:
    """Draw some pictures of a set, always the same ones; of a Dataset, only those are read.

    Raises
    ------
    DataError
        If there are no pictures, they hold NaN or Inf, or there is not one label for each.
    """
    if images < 1:
        raise DataError(f"images must be at least 1, got {images}")
    count = len(batches) if hasattr(batches, "subset") else None
    chosen = None if count is None else _drawn(count, images)
    inputs, labels = _read(batches if chosen is None else batches.subset(chosen), what)
    x, truth = torch.cat(inputs), torch.cat(labels) if labels else None
    if truth is not None and truth.shape != (len(x),):
        raise DataError(f"{what}: {len(x)} pictures, but labels of shape {tuple(truth.shape)}")
    if chosen is None:
        chosen, count = _drawn(len(x), images), len(x)
        x, truth = x[chosen], None if truth is None else truth[chosen]
    bad = int((~torch.isfinite(x)).flatten(1).any(dim=1).sum())
    if bad:
        raise DataError(f"{what}: {bad} of {len(x)} hold NaN or Inf; leave them out, or mend what prepares them")
    return Sample(x, truth, count or len(x), getattr(batches, "preprocess", None), chosen)


def _drawn(total: int, count: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(0).choice(total, min(count, total), replace=False)).astype(np.int64)


def _read(batches: Any, what: str) -> tuple[list[Tensor], list[Tensor]]:
    if isinstance(batches, torch.Tensor | np.ndarray):
        batches = [batches]
    inputs: list[Tensor] = []
    labels: list[Tensor] = []
    for batch in batches:
        inputs.append(input_of(batch).float())
        if isinstance(batch, tuple | list) and len(batch) > 1 and batch[1] is not None:
            labels.append(torch.as_tensor(np.asarray(batch[1])).long().reshape(-1))
    if not inputs or not sum(map(len, inputs)):
        raise DataError(f"{what}: there are none (an iterator that was already used up?)")
    return inputs, labels
