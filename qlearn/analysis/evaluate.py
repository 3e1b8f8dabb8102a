"""Accuracy, agreement with float and SQNR of a network on labelled pictures (paper §6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import DataError
from qlearn.progress import batch_count, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured.

    Parameters
    ----------
    name : str
    images : int
    accuracy : float or None
        Share of pictures whose largest logit is the label's; None without labels.
    agreement : float or None
        Share of pictures on which network and reference choose the same class; None without reference.
    sqnr_db : float or None
        SQNR of the logits against the reference's, in dB.
    weight_bytes : int or None
    """

    name: str
    images: int
    accuracy: float | None
    agreement: float | None = None
    sqnr_db: float | None = None
    weight_bytes: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON: an infinite SQNR becomes None."""
        fields = dict(vars(self))
        if self.sqnr_db is not None and not math.isfinite(self.sqnr_db):
            fields["sqnr_db"] = None
        return fields

    def __str__(self) -> str:
        parts = [f"{self.name} on {self.images} pictures:"]
        if self.accuracy is not None:
            parts.append(f"accuracy {self.accuracy:.1%}")
        if self.agreement is not None:
            parts.append(f"agreement with float {self.agreement:.1%}")
        if self.sqnr_db is not None:
            parts.append(f"SQNR {self.sqnr_db:.1f} dB")
        if self.weight_bytes is not None:
            parts.append(f"{self.weight_bytes / 1024:.0f} KiB")
        return parts[0] + " " + ", ".join(parts[1:])


def logits_of(
    model: Callable[[Any], Any], dataset: Iterable[Any], what: str = "evaluate", *, batches: int | None = None
) -> NDArray[np.float32]:
    """Return the outputs of a network for every input of a data set, float32, shape (N, classes).

    `what` and `batches` (their number, where ``len(dataset)`` does not tell) are for the progress bar.
    """
    watched = progress(dataset, what, unit="batch", total=batches)
    outputs = [np.asarray(model(_inputs(batch)), np.float32) for batch in watched]
    if not outputs:
        raise DataError("no pictures to evaluate on (an iterator that was already used up?)")
    return np.concatenate(outputs)


def evaluate(
    model: Callable[[Any], Any],
    dataset: Iterable[Any],
    *,
    reference: Callable[[Any], Any] | NDArray[np.float32] | None = None,
    name: str | None = None,
) -> Evaluation:
    """Run a network over labelled pictures and measure how good it is.

    Parameters
    ----------
    model : callable
        FloatModel, QuantizedModel or IntegerModel: inputs (N, C, H, W) to logits (N, classes).
    dataset : iterable of (images, labels)
        Anything that can be iterated over once for each network: a Dataset, a DataLoader, a list. Labels may be None.
    reference : callable or array, optional
        The float network, or its logits from `logits_of`; agreement and SQNR are measured against it.
    name : str, optional
        Shown in the result; the model's own name if not given.

    Returns
    -------
    Evaluation

    Raises
    ------
    DataError
        If there are no pictures, or the labels do not fit.

    References
    ----------
    Paper §6.
    """
    from qlearn.analysis.metrics import sqnr_db

    labels: list[NDArray[Any]] = []

    def remembering() -> Iterable[Any]:
        for batch in dataset:
            if isinstance(batch, tuple | list) and len(batch) > 1 and batch[1] is not None:
                labels.append(np.asarray(batch[1]))
            yield batch

    what = name or str(getattr(model, "name", "evaluate"))
    logits = logits_of(model, remembering(), what, batches=batch_count(dataset))
    if logits.ndim != 2:
        raise DataError(f"{what}: logits of shape (N, classes) expected, got {logits.shape}: flatten the output")
    expected = reference if isinstance(reference, np.ndarray) or reference is None else logits_of(reference, dataset)
    if expected is not None and expected.shape != logits.shape:
        raise DataError(f"the reference has logits of shape {expected.shape}, the network {logits.shape}")
    return Evaluation(
        name=name or str(getattr(model, "name", type(model).__name__)),
        images=len(logits),
        accuracy=_accuracy(logits, labels),
        agreement=None if expected is None else float((logits.argmax(1) == expected.argmax(1)).mean()),
        sqnr_db=None if expected is None else sqnr_db(expected, logits),
        weight_bytes=getattr(model, "weight_bytes", None),
    )


def _accuracy(logits: NDArray[np.float32], labels: list[NDArray[Any]]) -> float | None:
    if not labels:
        return None
    truth = np.concatenate(labels)
    if truth.shape != (len(logits),):
        raise DataError(f"{len(logits)} pictures, but labels of shape {truth.shape}")
    return float((logits.argmax(axis=1) == truth).mean())


def _inputs(batch: Any) -> Any:
    return batch[0] if isinstance(batch, tuple | list) else batch
