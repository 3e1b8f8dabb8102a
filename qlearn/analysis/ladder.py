"""The repair ladder: what each step of mending a quantized network brings, on the same pictures (paper §5.1, 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.analysis.compare import Interval, paired_difference
from qlearn.analysis.metrics import sqnr_db
from qlearn.errors import DataError
from qlearn.graph.equalize import unscaled_layers
from qlearn.pipeline.observe import input_of
from qlearn.progress import progress
from qlearn.repair.steps import PER_CHANNEL, PER_TENSOR, STEPS, Stage, calibrated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from qlearn.graph.model import FloatModel
    from qlearn.pipeline.recipe import Recipe


@dataclass(frozen=True)
class Rung:
    """One row.

    Parameters
    ----------
    granularity : str
        Of the weights; empty for the float network.
    steps : tuple of str
        What was done, in order.
    accuracy, agreement : float
        Shares of the pictures.
    sqnr_db : float
        Of the logits, against float.
    against_float : Interval or None
        Difference of accuracies on the same pictures.
    """

    granularity: str
    steps: tuple[str, ...]
    accuracy: float
    agreement: float
    sqnr_db: float
    against_float: Interval | None

    @property
    def name(self) -> str:
        """What the table calls it: the steps that were taken."""
        return ", ".join(self.steps) or ("as it is" if self.granularity else "float")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON; an infinite SQNR (the float network's own) becomes None."""
        fields = {"name": self.name} | dict(vars(self), steps=list(self.steps))
        if not np.isfinite(self.sqnr_db):
            fields["sqnr_db"] = None
        if self.against_float is not None:
            fields["against_float"] = vars(self.against_float) | {"told_apart": self.against_float.told_apart}
        return fields


@dataclass(frozen=True)
class Ladder:
    """What `repair_ladder` measured.

    Parameters
    ----------
    model : str
    images : tuple of int
        Pictures to repair on (without labels), to report on.
    rungs : tuple of Rung
        The float network first.
    not_equalized : tuple of str
        Layers whose outputs no equalization can scale: `unscaled_layers`.
    """

    model: str
    images: tuple[int, int]
    rungs: tuple[Rung, ...]
    not_equalized: tuple[str, ...] = ()

    @property
    def best(self) -> Rung:
        """The quantized rung whose logits have the highest SQNR, the first of equals: no labels are needed to choose.

        Where the pictures reported on are also those to choose on, its figures are a little too good.
        """
        return max(self.rungs[1:], key=lambda rung: -np.inf if np.isnan(rung.sqnr_db) else rung.sqnr_db)

    def __str__(self) -> str:
        width = max(len(rung.name) for rung in self.rungs) + 2
        lines = [
            f"{self.model}, repaired on {self.images[0]} pictures without labels, reported on {self.images[1]}",
            f"{'':<{width}}    top-1  agreement  SQNR (dB)  difference to float, points",
        ]
        for before, rung in zip((None, *self.rungs), self.rungs, strict=False):
            if rung.granularity and (before is None or before.granularity != rung.granularity):
                lines.append(f"weights {rung.granularity.replace('_', ' ')}")
            noise = f"{rung.sqnr_db:.1f}" if np.isfinite(rung.sqnr_db) else "-"
            difference = "" if rung.against_float is None else str(rung.against_float)
            name = "  " + rung.name if rung.granularity else rung.name
            shares = f"{rung.accuracy:>7.1%}  {rung.agreement:>9.1%}"
            lines.append(f"{name:<{width}}  {shares}  {noise:>9}  {difference}".rstrip())
        if self.not_equalized:
            lines.append(f"equalizing leaves the outputs of {', '.join(self.not_equalized)} as they are (factor 1)")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        images = dict(zip(("repair", "evaluation"), self.images, strict=True))
        rungs = [rung.to_dict() for rung in self.rungs]
        return {"network": self.model, "images": images, "rungs": rungs, "not_equalized": list(self.not_equalized)}


def repair_ladder(
    model: FloatModel,
    recipes: Mapping[str, Recipe],
    *,
    calibration: Iterable[Any],
    evaluation: Iterable[Any],
    rungs: Mapping[str, Sequence[tuple[str, ...]]] | None = None,
    keep: str = "last",
) -> tuple[Ladder, Stage]:
    """Repair a network step by step, and measure every rung on the same pictures.

    Parameters
    ----------
    model : FloatModel
        Batch norms folded.
    recipes : mapping of granularity to Recipe
        ``"per_tensor"`` and ``"per_channel"``, or one of them.
    calibration : iterable
        Pictures without labels, iterated over again and again: to calibrate, to equalize noise, to correct biases.
    evaluation : iterable of (images, labels)
        What is reported on; iterated over once.
    rungs : mapping of granularity to sequences of steps, optional
        Names from `STEPS`; `PER_TENSOR` and `PER_CHANNEL` if not given.
    keep : {"last", "best"}
        Which rung to return: the last, or that of `Ladder.best`.

    Returns
    -------
    Ladder
    Stage
        The rung that was to be kept, to run or save: ``stage.quantized.to_integer()``.

    Raises
    ------
    DataError
        If there are no labels, no recipes, a step that is not in `STEPS`, or `keep` is neither of its words.
    """
    wanted = rungs or {"per_tensor": PER_TENSOR, "per_channel": PER_CHANNEL}
    paths = [(granularity, tuple(steps)) for granularity in recipes for steps in wanted[granularity]]
    _check(paths)
    if keep not in ("last", "best"):
        raise DataError(f"keep must be 'last' or 'best', got {keep!r}")
    done: dict[tuple[str, tuple[str, ...]], Stage] = {}
    for path in progress(paths, "repair", unit="rung"):
        _stage(done, model, recipes[path[0]], path, calibration)
    logits, labels = _run_all([model, *(done[path].quantized for path in paths)], evaluation)
    measured = [_measured(path, found, logits[0], labels) for path, found in zip(paths, logits[1:], strict=True)]
    first = Rung("", (), float(_is_right(logits[0], labels).mean()), 1.0, float("inf"), None)
    count = sum(len(input_of(batch)) for batch in calibration)
    left = unscaled_layers(model) if any("equalized" in step for _, steps in paths for step in steps) else ()
    ladder = Ladder(model.name, (count, len(labels)), (first, *measured), left)
    return ladder, done[paths[-1] if keep == "last" else (ladder.best.granularity, ladder.best.steps)]


def _check(paths: Sequence[tuple[str, tuple[str, ...]]]) -> None:
    if not paths:
        raise DataError("a ladder needs at least one recipe and one rung")
    unknown = sorted({step for _, steps in paths for step in steps} - set(STEPS))
    if unknown:
        raise DataError(f"no step {unknown[0]!r}; there are: {', '.join(STEPS)}")


def _stage(
    done: dict[tuple[str, tuple[str, ...]], Stage],
    model: FloatModel,
    recipe: Recipe,
    path: tuple[str, tuple[str, ...]],
    pictures: Iterable[Any],
) -> Stage:
    """Take the last step of a path, after those before it; what was done once is not done again."""
    if path not in done:
        granularity, steps = path
        if not steps:
            done[path] = calibrated(model, recipe, pictures)
        else:
            before = _stage(done, model, recipe, (granularity, steps[:-1]), pictures)
            done[path] = STEPS[steps[-1]](before, pictures)
    return done[path]


def _run_all(
    networks: Sequence[Callable[[Any], Any]], evaluation: Iterable[Any]
) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]]:
    """Logits of every network, and the labels; the pictures are read once."""
    outputs: list[list[NDArray[np.float32]]] = [[] for _ in networks]
    labels = []
    for batch in progress(evaluation, "measure", unit="batch"):
        if not (isinstance(batch, tuple | list) and len(batch) > 1 and batch[1] is not None):
            raise DataError("a ladder of accuracies needs labels: batches of (images, labels); --labels CSV")
        labels.append(np.asarray(batch[1], np.int64))
        for network, found in zip(networks, outputs, strict=True):
            found.append(np.asarray(network(batch[0]), np.float32))
    if not labels:
        raise DataError("no pictures to measure on (an iterator that was already used up?)")
    return [np.concatenate(found) for found in outputs], np.concatenate(labels)


def _is_right(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    if labels.shape != (len(logits),):
        raise DataError(f"{len(logits)} pictures, but labels of shape {labels.shape}")
    return np.asarray(logits.argmax(axis=1) == labels)


def _measured(
    path: tuple[str, tuple[str, ...]],
    logits: NDArray[np.float32],
    expected: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> Rung:
    right = _is_right(logits, labels)
    agreement = float((logits.argmax(axis=1) == expected.argmax(axis=1)).mean())
    difference = paired_difference(right, _is_right(expected, labels))
    return Rung(*path, float(right.mean()), agreement, sqnr_db(expected, logits), difference)
