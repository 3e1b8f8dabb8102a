"""Do answers, labels and calibration pictures fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from qlearn.analysis.doctor import faults
from qlearn.analysis.doctor.finding import Finding, Remedy
from qlearn.analysis.doctor.remedies import effect_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from qlearn.analysis.doctor.case import Case


def check_labels(case: Case) -> Iterator[Finding]:
    """Whether labels moved by one fit the float network's answers much better."""
    logits, labels = case.facts.float_logits, case.pictures.labels
    if labels is None or logits is None:
        return
    answers = logits.argmax(1)
    here = float((answers == labels).double().mean())
    moved = {step: float((answers == labels + step).double().mean()) for step in (-1, 1)}
    step = max(moved, key=lambda one: moved[one])
    if moved[step] - here < faults.FEW_LABELS or moved[step] < 2 * here:
        return
    text = (
        f"The labels are shifted by one: the float network has {here:.1%} with them, and {moved[step]:.1%} with labels "
        f"{step:+d}. The quantized network is not at fault"
    )
    evidence = {"accuracy": here, "accuracy_if_moved": moved[step]}
    yield Finding("labels_shifted", "labels", text, 0.99, evidence, remedies=(Remedy(f"use labels {step:+d}"),))


def check_outputs(case: Case) -> Iterator[Finding]:
    """Whether what the caller's runtime returned are codes."""
    if case.outputs is None or case.facts.codes is None or case.facts.output is None:
        return
    theirs, codes = np.asarray(case.outputs, np.float64), case.facts.codes.double().numpy()
    if theirs.shape != codes.shape or (theirs != np.rint(theirs)).any() or np.ptp(theirs) < 1:
        return
    shift = float(np.median(theirs - codes))  # uint8 codes are int8 codes moved by 128
    close = float((np.abs(theirs - codes - shift) <= 2).mean())
    if close < 0.9:
        return
    qp = case.facts.output
    text = (
        f"The outputs are codes, not real numbers: {close:.0%} of them are the codes of the quantized network"
        f"{f', moved by {shift:.0f}' if shift else ''}"
    )
    zero = int(qp.zero_point) + int(shift)
    remedy = Remedy(f"dequantize them: {float(qp.scale):.6g} * (outputs - ({zero}))")
    yield Finding("codes_as_output", "outputs", text, 0.99, {"share": close, "shift": shift}, remedies=(remedy,))


def check_calibration(case: Case) -> Iterator[Finding]:
    """How many pictures, and of how many classes."""
    count = case.images_calibrated
    if count is not None and 0 < count < faults.FEW_PICTURES:
        text = f"Calibrated on {count} picture{'s' * (count > 1)} only: they do not show what each layer can reach"
        remedy = Remedy("calibrate on 100 pictures or more, of all classes")
        yield Finding("few_pictures", "calibration", text, 0.95, {"pictures": float(count)}, remedies=(remedy,))
    if case.calibrated_on is None or case.folded is None or case.facts.float_logits is None:
        return
    answers = torch.cat([case.folded(x).flatten(1).argmax(1) for x in case.calibrated_on.batches()])
    classes, there = classes_in(answers), classes_in(case.facts.float_logits.argmax(1))
    if there < faults.FEW_CLASSES * classes:
        return
    share = float((answers == answers.mode().values).double().mean())
    text = (
        f"The calibration pictures are of few classes: to the float network {share:.0%} of them are of class "
        f"{int(answers.mode().values)}, about {classes:.1f} classes in all; "
        f"the evaluation pictures are of about {there:.1f}"
    )
    evidence = {"classes": classes, "classes_in_evaluation": there, "share_of_largest": share}
    remedy = Remedy("calibrate on pictures of all classes")
    yield Finding("few_classes", "calibration", text, 0.95, evidence, remedies=(remedy,))


def classes_in(answers: Tensor) -> float:
    """Return the number of classes, counted by exp(entropy): ten equally frequent ones count 10.

    Examples
    --------
    >>> classes_in(torch.tensor([3, 3, 3])), round(classes_in(torch.arange(10)), 6)
    (1.0, 10.0)
    """
    share = torch.bincount(answers).double() / len(answers)
    return float(torch.exp(torch.special.entr(share).sum()))


def check_collapse(case: Case) -> Iterator[Finding]:
    """Answers that are lost for whatever reason."""
    effect, _ = effect_of(case)
    if effect is None or effect.agreement >= faults.COLLAPSE_AGREEMENT or effect.sqnr_db >= faults.COLLAPSE_DB:
        return
    text = (
        f"Agreement with float is {effect.agreement:.0%} and the logits have {effect.sqnr_db:.1f} dB, "
        "but no single cause stands out"
    )
    evidence = {"agreement": effect.agreement, "sqnr_db": effect.sqnr_db}
    remedy = Remedy(
        "see analyze() and error_budget() for the layers; then cross_layer_equalize(), correct_bias(), more bits"
    )
    yield Finding("unexplained_loss", "all layers", text, 0.8, evidence, remedies=(remedy,))
