"""diagnose(): look at a quantized network from all sides, and say what is wrong with it (paper §7)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qlearn.analysis.doctor import faults
from qlearn.analysis.doctor.answers import check_calibration, check_collapse, check_labels, check_outputs
from qlearn.analysis.doctor.case import open_case
from qlearn.analysis.doctor.faults import FAULTS, SEVERITIES
from qlearn.analysis.doctor.finding import Diagnosis, Finding
from qlearn.analysis.doctor.inputs import check_inputs, colours_told_apart, first_layer
from qlearn.analysis.doctor.ranges import check_ranges, check_saturation
from qlearn.analysis.doctor.remedies import effect_of, measured
from qlearn.analysis.doctor.structure import check_bits, check_structure
from qlearn.analysis.doctor.weights import check_weights
from qlearn.analysis.layers import analyze

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from qlearn.analysis.doctor.case import Case
    from qlearn.graph.model import FloatModel
    from qlearn.integer.model import IntegerModel
    from qlearn.numbers.qparams import ClipRange
    from qlearn.pipeline.recipe import Recipe
    from qlearn.pipeline.simulate import QuantizedModel

CHECKS: tuple[Callable[[Case], Iterator[Finding]], ...] = (check_inputs, check_labels, check_outputs, check_saturation)
"""What can be done with any network."""

CHECKS_BESIDE_FLOAT: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    check_structure, check_weights, check_ranges, check_bits, check_calibration, check_collapse,
)  # fmt: skip
"""What needs the float network. A new family of checks is one function and one name here."""


def diagnose(
    model: FloatModel | QuantizedModel | IntegerModel,
    data: Any,
    *,
    recipe: Recipe | None = None,
    table: Mapping[str, ClipRange] | None = None,
    calibration: Any = None,
    reference: FloatModel | None = None,
    outputs: Any = None,
    images: int = 64,
    measure: bool = True,
) -> Diagnosis:
    """Say in plain words what is wrong with a quantized network, where, how sure that is, and what mends it.

    What is looked for, and beyond which limit it counts, stands in `qlearn.analysis.doctor.faults`.
    A finding that another one explains (a range that is off because the pictures are) is listed as its symptom.
    A preprocessing that is stored with the network is believed; where there is none, the mean and std of the data set
    are a guess, and other usual ones are tried.

    Parameters
    ----------
    model : FloatModel, QuantizedModel or IntegerModel
        A float network is folded, calibrated and quantized first, by `recipe` and on the calibration pictures.
        An integer model is examined layer by layer beside its float network, `reference`; without it, only its
        input and output are.
    data : Splits, Dataset or iterable
        Pictures to examine with: a data set, or batches of inputs (N, C, H, W) or of (inputs, labels).
        Labels add accuracy. Of `Splits`, the calibration part is taken as `calibration`.
    recipe : Recipe, optional
        For a float network, the default one if not given. For others it says how they were quantized, so that remedies
        are tried with it; it is guessed from their integers if not given.
    table : mapping of site to ClipRange, optional
        A calibration that is there already, for the network with batch norms folded.
    calibration : Dataset or iterable, optional
        The calibration pictures; can be read again and again. They are examined, and remedies are tried on them.
    reference : FloatModel, optional
        The float network of an integer model, or of a quantized one whose weights were learned on their grid
        (`adaround`, training); for others, the one to compare the input's statistics with.
    outputs : array, shape (N, classes), optional
        What another runtime returned for all of `data`, in order, to see whether they are codes.
    images : int
        Pictures to examine of each set, drawn with a fixed seed.
    measure : bool
        Try the remedies that a program can carry out, and say what each brings on these pictures.

    Returns
    -------
    Diagnosis

    Raises
    ------
    DataError
        If there are no pictures, they hold NaN or Inf, labels do not fit, or there is nothing to calibrate on.
    GraphError
        If `model` is no network of qlearn, or `reference` has other layers.

    References
    ----------
    Paper §7, §7.1.

    Examples
    --------
    >>> import qlearn as ql
    >>> net, data = ql.load("tiny_resnet")
    >>> diagnosis = ql.diagnose(net, data, images=32)
    >>> diagnosis.healthy, diagnosis.findings
    (True, ())
    """
    case = open_case(
        model, data, recipe=recipe, table=table, calibration=calibration, reference=reference, outputs=outputs,
        images=images,
    )  # fmt: skip
    found = [finding for check in CHECKS for finding in check(case)]
    if case.quantized is not None:
        found += [finding for check in CHECKS_BESIDE_FLOAT for finding in check(case)]
    causes, symptoms = told_apart(found)
    if measure:
        causes = measured(case, causes)
    effect, float_accuracy = effect_of(case)
    if effect is not None and effect.agreement < faults.LOST:
        causes = [replace(one, severity="error") if one.severity == "warning" else one for one in causes]
    return Diagnosis(
        case.name,
        len(case.pictures.x),
        tuple(sorted(causes, key=_worst_first)),
        tuple(symptoms),
        _skipped(case),
        effect,
        float_accuracy,
        None if case.quantized is None else analyze(case.quantized, case.pictures.batches()),
        _limits(case),
    )


def _limits(case: Case) -> tuple[str, ...]:
    """What was taken for the float network though it is not."""
    if not case.learned:
        return ()
    text = (
        f"the weights of {len(case.learned)} layers were learned on their grid (adaround(), or training), so they "
        "stand for the float network too: SQNR and agreement leave out what their rounding costs. Give the float "
        "network from which they were learned as reference="
    )
    return (text,)


def told_apart(found: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Return the causes, and the symptoms that they explain."""
    explained = {symptom for finding in found for symptom in FAULTS[finding.fault].explains}
    causes = [finding for finding in found if finding.fault not in explained]
    return causes, [finding for finding in found if finding.fault in explained]


def _worst_first(finding: Finding) -> tuple[float, ...]:
    """Severity, then what can be gained, then how sure it is, then how many times too large something is."""
    place = SEVERITIES.index(finding.severity)
    return place, -finding.best_gain, -finding.confidence, -finding.evidence.get("times", 0.0)


def _skipped(case: Case) -> dict[str, str]:
    """Which faults could not be looked for, and why."""
    layer = first_layer(case.folded)
    there = {
        "float": case.quantized is not None,
        "statistics": layer is not None,
        "colours": layer is None or colours_told_apart(layer, case.pictures.x),
        "calibration": case.images_calibrated is not None,
        "labels": case.pictures.labels is not None and case.facts.float_logits is not None,
        "outputs": case.outputs is not None,
    }
    missing = {
        "float": "no float network",
        "statistics": "no batch norm in the first layer",
        "colours": "to the first batch norm these pictures are the same with red and blue swapped",
        "calibration": "no calibration pictures",
        "labels": "no labels",
        "outputs": "no outputs of another runtime",
    }
    wanting = {fault.code: [need for need in fault.needs if not there[need]] for fault in FAULTS.values()}
    return {code: missing[needs[0]] for code, needs in wanting.items() if needs}
