"""How much depends on the calibration pictures: their number, their kind, or having none (paper §5.2, Fig. 7)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from qlearn.analysis.evaluate import evaluate, logits_of
from qlearn.errors import DataError
from qlearn.pipeline.calibrate import calibrate_many
from qlearn.pipeline.quantize import quantize_model
from qlearn.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qlearn.graph.model import FloatModel
    from qlearn.numbers.qparams import ClipRange
    from qlearn.pipeline.recipe import Recipe

_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
        2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045)  # fmt: skip
"""97.5 % quantiles of Student's distribution for 1, 2, … degrees of freedom; 1.96 and a little beyond."""

MEASURES = ("accuracy", "sqnr_db")

TableMaker = Callable[["FloatModel", "Sequence[Recipe]"], "Sequence[Mapping[str, ClipRange]]"]
"""What makes one table per recipe without pictures, or in a way of its own."""


class Pool(Protocol):
    """Pictures that sets are drawn from: `qlearn.zoo.data.Dataset`."""

    def __len__(self) -> int:
        """Return the number of pictures."""

    def subset(self, chosen: int, *, seed: int | None = 0) -> Iterable[Any]:
        """Return `chosen` pictures, drawn by the seed."""


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of repeated measurements, and the ends of its 95 % confidence interval (Student's t).

    With one value there is no telling: all three are equal.

    Examples
    --------
    >>> [round(x, 2) for x in mean_interval([1.0, 2.0, 3.0])]
    [2.0, -0.48, 4.48]
    """
    if not values:
        raise DataError("no measurements to take the mean of")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, mean, mean
    freedom = len(values) - 1
    quantile = _T95[freedom - 1] if freedom <= len(_T95) else 1.96 + 2.5 / freedom
    reach = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - reach, mean + reach


@dataclass(frozen=True)
class CalibrationRow:
    """One kind of calibration set under one recipe.

    Parameters
    ----------
    recipe, label : str
    size : int or None
        Pictures in the set; None where it has none.
    accuracy, sqnr_db : tuple of float
        One per set of this kind: share of right answers, and SQNR of the logits against float.
    """

    recipe: str
    label: str
    size: int | None
    accuracy: tuple[float, ...]
    sqnr_db: tuple[float, ...]

    def interval(self, measure: str) -> tuple[float, float, float]:
        """Return mean and 95 % interval over the sets, for ``"accuracy"`` or ``"sqnr_db"``.

        It says how sure the mean over sets is; that the evaluation pictures are a sample too is not in it.
        """
        return mean_interval(getattr(self, measure))


@dataclass(frozen=True)
class CalibrationSets:
    """What `compare_calibration_sets` and `calibration_size_curve` measured.

    Parameters
    ----------
    model : str
    images : int
        Pictures that were evaluated on.
    float_accuracy : float or None
    rows : tuple of CalibrationRow
    """

    model: str
    images: int
    float_accuracy: float | None
    rows: tuple[CalibrationRow, ...]

    def series(self, measure: str = "sqnr_db") -> dict[str, tuple[list[float], list[float], list[float]]]:
        """Return mean, low and high end of each recipe's rows, in their order: what `viz.spread` draws."""
        found: dict[str, tuple[list[float], list[float], list[float]]] = {}
        for row in self.rows:
            for values, number in zip(found.setdefault(row.recipe, ([], [], [])), row.interval(measure), strict=True):
                values.append(number)
        return found

    def __str__(self) -> str:
        width = max(len(row.label) for row in self.rows) + 2
        share = "" if self.float_accuracy is None else f", float {self.float_accuracy:.1%}"
        lines = [f"{self.model} on {self.images} pictures{share}; mean and 95 % interval over sets"]
        for before, row in zip((None, *self.rows), self.rows, strict=False):
            if before is None or before.recipe != row.recipe:
                lines.append(f"{row.recipe:<{width + 2}} sets   accuracy (%)            SQNR (dB)")
            cells = [
                f"{mean:5.1f} [{low:5.1f}, {high:5.1f}]" if len(row.sqnr_db) > 1 else f"{mean:5.1f}" + 15 * " "
                for mean, low, high in (
                    [100 * x for x in row.interval("accuracy")] if row.accuracy else [math.nan] * 3,
                    row.interval("sqnr_db"),
                )
            ]
            lines.append(f"  {row.label:<{width}}{len(row.sqnr_db):>4}   {cells[0]}    {cells[1]}".rstrip())
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON, every single measurement included."""
        rows = [
            {"recipe": row.recipe, "label": row.label, "size": row.size}
            | {"accuracy": [round(x, 4) for x in row.accuracy], "sqnr_db": [round(x, 2) for x in row.sqnr_db]}
            for row in self.rows
        ]
        return {"network": self.model, "images": self.images, "float_accuracy": self.float_accuracy, "rows": rows}


def compare_calibration_sets(
    model: FloatModel,
    recipes: Mapping[str, Recipe],
    sets: Mapping[str, Sequence[Iterable[Any] | TableMaker]],
    evaluation: Iterable[Any],
) -> CalibrationSets:
    """Calibrate on each set, quantize under each recipe, and measure all on the same pictures.

    Parameters
    ----------
    model : FloatModel
        Batch norms folded.
    recipes : mapping of label to Recipe
    sets : mapping of label to sequence
        Several sets of one kind: draws with other seeds. Each is batches as for `calibrate`,
        or a function that takes the network and the list of recipes and returns one table per recipe.
    evaluation : iterable of (images, labels)
        Iterated over once per set and recipe.

    Returns
    -------
    CalibrationSets
        Rows recipe by recipe.

    Raises
    ------
    DataError
        If there is no recipe, no set, or a kind without any.

    References
    ----------
    Paper §5.2, Fig. 7.
    """
    if not recipes or not sets or not all(sets.values()):
        raise DataError("a comparison needs at least one recipe and, under each label, at least one calibration set")
    reference = logits_of(model, evaluation)
    float_accuracy = evaluate(model, evaluation, name="float").accuracy
    found: dict[tuple[str, str], list[Any]] = {(recipe, label): [] for recipe in recipes for label in sets}
    jobs = [(label, one) for label, several in sets.items() for one in several]
    for label, one in progress(jobs, "compare sets", unit="set"):
        tables = (
            one(model, list(recipes.values())) if callable(one) else calibrate_many(model, one, list(recipes.values()))
        )
        for (name, recipe), table in zip(recipes.items(), tables, strict=True):
            measured = evaluate(quantize_model(model, recipe, table), evaluation, reference=reference)
            found[name, label].append((measured, getattr(table, "images", 0) or None))
    rows = tuple(_row(recipe, label, results) for (recipe, label), results in found.items())
    return CalibrationSets(model.name, len(reference), float_accuracy, rows)


def _row(recipe: str, label: str, results: Sequence[Any]) -> CalibrationRow:
    accuracy = tuple(one.accuracy for one, _ in results if one.accuracy is not None)
    return CalibrationRow(recipe, label, results[0][1], accuracy, tuple(one.sqnr_db for one, _ in results))


def calibration_size_curve(
    model: FloatModel,
    recipes: Mapping[str, Recipe],
    pool: Pool,
    evaluation: Iterable[Any],
    *,
    sizes: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256),
    draws: int = 5,
    seed: int = 0,
) -> CalibrationSets:
    """Measure how many pictures calibration needs: sets of each size, drawn several times (paper Fig. 7).

    Parameters
    ----------
    model : FloatModel
        Batch norms folded.
    recipes : mapping of label to Recipe
    pool : Dataset
        Sets are drawn from it by `Dataset.subset`. It should be much larger than the largest size:
        draws that share most of their pictures agree too well.
    evaluation : iterable of (images, labels)
        Other pictures than the pool's.
    sizes : sequence of int
    draws : int
        Sets of each size.
    seed : int
        Seed of the first draw; the next ones count up.

    Returns
    -------
    CalibrationSets
        Its `series` is what `viz.spread` draws over the sizes.

    Raises
    ------
    DataError
        If the pool is no Dataset, a size is larger than it, or there is nothing to draw.

    References
    ----------
    Paper §5.2, Fig. 7.
    """
    if draws < 1 or not sizes:
        raise DataError(f"a curve needs sizes and at least one draw: got {list(sizes)} and {draws}")
    if not hasattr(pool, "subset"):
        raise DataError(f"pictures are drawn from a Dataset (it has subset()), got {type(pool).__name__}")
    if max(sizes) > len(pool) or min(sizes) < 1:
        raise DataError(f"sizes from 1 to the pool's {len(pool)} pictures can be drawn: got {list(sizes)}")
    kinds = {f"{size} pictures": [pool.subset(size, seed=seed + k) for k in range(draws)] for size in sizes}
    return compare_calibration_sets(model, recipes, kinds, evaluation)
