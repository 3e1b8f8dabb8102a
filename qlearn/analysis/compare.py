"""Which calibrator? Several of them on one network, with paired confidence intervals (paper §7.5)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import DataError
from qlearn.pipeline.calibrate import calibrate_many
from qlearn.pipeline.quantize import quantize_model
from qlearn.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from qlearn.graph.model import FloatModel
    from qlearn.pipeline.recipe import Recipe

_Z95 = 1.959963984540054  # standard normal quantile of 97.5 %


@dataclass(frozen=True)
class Interval:
    """A difference of two accuracies on the same pictures, with its 95 % confidence interval.

    Parameters
    ----------
    difference, low, high : float
        As shares: 0.01 is one point.
    """

    difference: float
    low: float
    high: float

    @property
    def told_apart(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        points = f"{100 * self.difference:+.1f} [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"
        return points if self.told_apart else f"{points} cannot be told apart"


def paired_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Interval:
    """Return by how much the first is right more often than the second, both on the same pictures.

    Only pictures on which one is right and the other wrong say anything: b of them for the first, c for the second.
    The interval is Agresti and Min's: half a picture is added to b and to c, which keeps it honest where both are few.

    Parameters
    ----------
    first, second : ndarray, bool, shape (N,)
        Whether each picture was classified correctly.

    Raises
    ------
    DataError
        If the shapes differ, or there are no pictures.

    References
    ----------
    A. Agresti, Y. Min, "Simple improved confidence intervals for comparing matched proportions",
    Statistics in Medicine 24, 2005.

    Examples
    --------
    >>> first, second = np.arange(100) < 90, np.arange(100) < 80
    >>> print(paired_difference(first, second))
    +10.0 [+3.7, +15.9]
    """
    if first.shape != second.shape or first.ndim != 1 or first.size == 0:
        raise DataError(f"two arrays of one shape (N > 0,) expected, got {first.shape} and {second.shape}")
    total = len(first)
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    centre = (b - c) / (total + 2)
    spread = _Z95 * math.sqrt((b + c + 1) - (b - c) ** 2 / (total + 2)) / (total + 2)
    return Interval((b - c) / total, centre - spread, centre + spread)


@dataclass(frozen=True)
class ComparisonRow:
    """One calibrator.

    Parameters
    ----------
    name : str
    selection, evaluation : float or None
        Accuracy on the pictures that choices are made on, and on those that results are reported on.
    against_baseline : Interval or None
        On the evaluation pictures, against the first calibrator.
    """

    name: str
    selection: float | None
    evaluation: float
    against_baseline: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        fields = dict(vars(self), calibrator=self.name)
        del fields["name"]
        if self.against_baseline is not None:
            fields["against_baseline"] = vars(self.against_baseline) | {"told_apart": self.against_baseline.told_apart}
        return fields


@dataclass(frozen=True)
class Comparison:
    """What `compare_calibrators` measured.

    Parameters
    ----------
    model : str
    images : tuple of int
        Pictures to calibrate on, to choose on (0 without), to report on.
    rows : tuple of ComparisonRow
        The float network first, then the baseline, then the others.
    """

    model: str
    images: tuple[int, int, int]
    rows: tuple[ComparisonRow, ...]

    @property
    def chosen(self) -> ComparisonRow | None:
        """The calibrator that is best on the selection pictures; the earlier one of equals."""
        if self.rows[1].selection is None:
            return None
        return max(self.rows[1:], key=lambda row: row.selection or 0.0)

    def __str__(self) -> str:
        calibration, selection, evaluation = self.images
        heads = [f"chosen on {selection}"] if selection else []
        heads = [*heads, f"reported on {evaluation}"]
        lines = [
            f"{self.model}, calibrated on {calibration} pictures",
            f"{'':<26}" + "".join(f"{head:>18}" for head in heads) + f"  difference to {self.rows[1].name}",
        ]
        for row in self.rows:
            shares = [row.evaluation] if row.selection is None else [row.selection, row.evaluation]
            difference = "" if row.against_baseline is None else f"  {row.against_baseline}"
            lines.append(f"{row.name:<26}" + "".join(f"{share:>18.1%}" for share in shares) + difference)
        if self.chosen is not None:
            lines.append(
                f"best on the {selection}: {self.chosen.name}, {self.chosen.evaluation:.1%} on the {evaluation}"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        names = ("calibration", "selection", "evaluation")
        return {
            "model": self.model,
            "images": dict(zip(names, self.images, strict=True)),
            "chosen": None if self.chosen is None else self.chosen.name,
            "rows": [row.to_dict() for row in self.rows],
        }


def compare_calibrators(
    model: FloatModel,
    recipe: Recipe,
    choices: Mapping[str, tuple[str, Mapping[str, Any]]],
    *,
    calibration: Iterable[Any],
    evaluation: Iterable[Any],
    selection: Iterable[Any] | None = None,
) -> Comparison:
    """Calibrate once for all calibrators, quantize with each, and measure each on the same pictures.

    The quantized networks are simulated, which gives the integers of the policy ``float32`` exactly.

    Parameters
    ----------
    model : FloatModel
        Batch norms folded.
    recipe : Recipe
        Its activations' calibrator is replaced by each of the choices.
    choices : mapping of label to (calibrator, parameters)
        The first is the baseline.
    calibration : iterable
        As for `calibrate`; needs no labels.
    evaluation : iterable of (images, labels)
        What results are reported on.
    selection : iterable of (images, labels), optional
        What a choice may be based on: other pictures than both.

    Raises
    ------
    DataError
        If pictures have no labels, or there is no choice.

    References
    ----------
    Paper §7.5.
    """
    if recipe.activations is None or not choices:
        raise DataError("a comparison needs quantized activations and at least one calibrator")
    recipes = [
        replace(recipe, activations=replace(recipe.activations, calibrator=name, calibrator_params=params))
        for name, params in choices.values()
    ]
    tables = calibrate_many(model, calibration, recipes)
    networks: dict[str, Any] = {"float": model}
    for label, one, table in zip(choices, recipes, tables, strict=True):
        networks[label] = quantize_model(model, one, table)
    reported = {label: _correct(network, evaluation, label) for label, network in networks.items()}
    chosen_on = {label: _correct(network, selection, label) for label, network in networks.items() if selection}
    baseline = next(iter(choices))
    rows = tuple(
        ComparisonRow(
            label,
            float(chosen_on[label].mean()) if selection else None,
            float(right.mean()),
            None if label in ("float", baseline) else paired_difference(right, reported[baseline]),
        )
        for label, right in reported.items()
    )
    images = (tables[0].images, len(chosen_on["float"]) if selection else 0, len(reported["float"]))
    return Comparison(model.name, images, rows)


def _correct(network: Any, dataset: Iterable[Any], label: str) -> NDArray[np.bool_]:
    """Whether each picture is classified correctly."""
    right = []
    for batch in progress(dataset, label, unit="batch"):
        if not (isinstance(batch, tuple | list) and len(batch) > 1 and batch[1] is not None):
            raise DataError("a comparison of accuracies needs labels: batches of (images, labels); --labels CSV")
        right.append(np.asarray(network(batch[0])).argmax(axis=1) == np.asarray(batch[1]))
    if not right:
        raise DataError("no pictures to evaluate on (an iterator that was already used up?)")
    return np.concatenate(right)
