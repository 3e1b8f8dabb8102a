"""The pictures on which a network is repaired, checked before any work begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from qlearn.errors import CalibrationError
from qlearn.pipeline.observe import input_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from qlearn.graph.model import FloatModel


def checked_pictures(model: FloatModel, batches: Iterable[Any], purpose: str) -> list[Tensor]:
    """Return all batches, float32.

    Parameters
    ----------
    model : FloatModel
        Says which shape a batch has.
    batches : iterable
        Of input tensors, or of tuples that start with one.
    purpose : str
        Ends the sentence "no batches ...": "to learn on".

    Raises
    ------
    CalibrationError
        If there are no batches, or a value is NaN or Inf.
    GraphError
        If a batch is empty, of integers, or has the wrong shape.
    """
    pictures = list(each_checked(model, batches))
    if not pictures:
        raise CalibrationError(f"{model.name}: no batches {purpose} (an iterator that was already used up?)")
    return pictures


def each_checked(model: FloatModel, batches: Iterable[Any]) -> Iterator[Tensor]:
    """Yield one batch after the other, as `checked_pictures`, but keep none."""
    for place, batch in enumerate(batches):
        x = input_of(batch)
        model.check_input(x)
        bad = int((~torch.isfinite(x)).sum())
        if bad:
            raise CalibrationError(f"{model.name}: {bad} of {x.numel()} values of batch {place} are NaN or Inf")
        yield x.float()
