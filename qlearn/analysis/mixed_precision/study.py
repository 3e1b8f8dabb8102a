"""Is it worth it? Mixed bits beside the same bits everywhere, at the same size, on the same pictures (paper §7.3)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.analysis.compare import Interval, paired_difference
from qlearn.analysis.evaluate import logits_of
from qlearn.analysis.metrics import sqnr_db
from qlearn.analysis.mixed_precision.choices import Allocation, Choice, options_of, with_choices
from qlearn.analysis.mixed_precision.resources import bit_operations, weight_bytes
from qlearn.errors import DataError, RecipeError
from qlearn.pipeline.calibrate import calibrate_many
from qlearn.pipeline.quantize import quantize_model
from qlearn.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from qlearn.graph.model import FloatModel
    from qlearn.pipeline.recipe import Recipe
    from qlearn.pipeline.simulate import QuantizedModel


@dataclass(frozen=True)
class Candidate:
    """A recipe to compare with others, and where it comes from.

    Parameters
    ----------
    name : str
        ``"uniform 4 bits"``, ``"kl program"``, …
    choices : tuple of Choice
    budget : int
        What it was allowed to use.
    cost : float or None
        What the search added up; None for uniform bits.
    """

    name: str
    choices: tuple[Choice, ...]
    budget: int
    cost: float | None = None


@dataclass(frozen=True)
class MixedRow:
    """One network of the comparison.

    Parameters
    ----------
    name : str
    accuracy : float
        Share of pictures.
    sqnr_db : float
        Of the logits against the float network's.
    average_bits : float
        Bits per weight.
    packed_bytes, stored_bytes : int
        Weights and biases: packed without gaps, and as the integer engines store them (int8).
    bit_operations : int
        For one picture.
    against_uniform : Interval or None
        Difference of accuracy to the uniform bits of the same budget, on the same pictures.
    candidate : Candidate
    """

    name: str
    accuracy: float
    sqnr_db: float
    average_bits: float
    packed_bytes: int
    stored_bytes: int
    bit_operations: int
    against_uniform: Interval | None
    candidate: Candidate = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        fields = {key: value for key, value in vars(self).items() if key != "candidate"}
        if self.against_uniform is not None:
            fields["against_uniform"] = vars(self.against_uniform) | {"told_apart": self.against_uniform.told_apart}
        chosen = Allocation(self.candidate.choices, self.candidate.cost or 0.0, 0).to_dict()["bits"]
        return fields | {"budget": self.candidate.budget, "cost": self.candidate.cost, "bits": chosen}


def uniform_choices(costs: Iterable[Choice], bits: int) -> tuple[Choice, ...]:
    """Return the choices that give all weights among the costs the same bits.

    Raises
    ------
    RecipeError
        If no weights can be chosen.
    """
    found = tuple(Choice(layer, tensor, bits) for layer, tensor in options_of(costs) if tensor == "weights")
    if not found:
        raise RecipeError("there are no weights among the choices")
    return found


def compare_mixed(
    model: FloatModel,
    recipe: Recipe,
    rows: Sequence[Candidate],
    *,
    calibration: Iterable[Any],
    evaluation: Iterable[Any],
    workers: int = 1,
) -> tuple[float, list[MixedRow]]:
    """Quantize with every candidate and measure all on the same pictures.

    The quantized networks are simulated, which gives the integers of the policy ``float32`` exactly.

    Parameters
    ----------
    model : FloatModel
        Batch norms folded.
    recipe : Recipe
        What the candidates change the bits of.
    rows : sequence of Candidate
        A uniform one comes before those that are compared with it, at the same budget.
    calibration, evaluation : iterable
        As for `compare_calibrators`; evaluation needs labels, and is iterated over once for each row.
    workers : int
        Networks that run at the same time, each in a thread of its own. The numbers do not depend on it.

    Returns
    -------
    float
        Accuracy of the float network.
    list of MixedRow

    Raises
    ------
    DataError
        If the evaluation pictures have no labels.
    """
    labels = _labels(evaluation)
    reference = logits_of(model, evaluation, "float")
    floating = float((reference.argmax(axis=1) == labels).mean())
    recipes = [with_choices(recipe, row.choices) for row in rows]
    tables = calibrate_many(model, calibration, recipes)
    networks: dict[tuple[Choice, ...], QuantizedModel] = {}
    for row, one, table in zip(rows, recipes, tables, strict=True):
        if row.choices not in networks:  # two searches often agree
            networks[row.choices] = quantize_model(model, one, table)
    with ThreadPoolExecutor(workers) as pool:  # torch lets go of Python's lock while it computes
        runs = pool.map(lambda network: logits_of(network, evaluation, "recipe"), networks.values())
        logits = dict(zip(networks, progress(runs, "recipes", unit="recipe", total=len(networks)), strict=True))
    uniform: dict[int, NDArray[np.bool_]] = {}
    measured = []
    for row, one in zip(rows, recipes, strict=True):
        right = logits[row.choices].argmax(axis=1) == labels
        baseline = uniform.setdefault(row.budget, right) if row.cost is None else uniform.get(row.budget)
        measured.append(
            MixedRow(
                name=row.name,
                accuracy=float(right.mean()),
                sqnr_db=sqnr_db(reference, logits[row.choices]),
                average_bits=average_bits(model, one),
                packed_bytes=weight_bytes(model, one).usage(),
                stored_bytes=networks[row.choices].weight_bytes,
                bit_operations=bit_operations(model, one).usage(),
                against_uniform=None if row.cost is None or baseline is None else paired_difference(right, baseline),
                candidate=row,
            )
        )
    return floating, measured


def average_bits(model: FloatModel, recipe: Recipe) -> float:
    """Return the bits per weight of a recipe, over all convolutions and linear layers; 32 where they are in float."""
    resource = weight_bytes(model, recipe)
    counts = [(term.count, resource.base[term.slots[0]]) for term in resource.terms]
    return sum(count * bits for count, bits in counts) / sum(count for count, _ in counts)


def _labels(evaluation: Iterable[Any]) -> NDArray[np.int64]:
    found = [np.asarray(batch[1]) for batch in evaluation if isinstance(batch, tuple | list) and batch[1] is not None]
    if not found:
        raise DataError("a comparison of accuracies needs labels: batches of (images, labels); --labels CSV")
    return np.concatenate(found)
