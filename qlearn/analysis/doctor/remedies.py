"""Remedies that a program can carry out, as functions from a case to the mended network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from qlearn.analysis.doctor.finding import Finding, Gain, Remedy
from qlearn.analysis.effects import Scores
from qlearn.graph.dead import zero_dead_inputs
from qlearn.graph.equalize import cross_layer_equalize
from qlearn.graph.fold import fold_batch_norm
from qlearn.integer.layers import SHARING_OPS
from qlearn.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qlearn.analysis.doctor.case import Case
    from qlearn.analysis.effects import Effect
    from qlearn.graph.model import FloatModel
    from qlearn.pipeline.recipe import Recipe, TensorRecipe
    from qlearn.pipeline.simulate import QuantizedModel


def by_program(case: Case, text: str, mend: Callable[[], QuantizedModel]) -> Remedy:
    """Return a remedy that can be tried, if there are pictures to calibrate on."""
    possible = case.calibration is not None and case.quantized is not None and case.recipe is not None
    return Remedy(text, mend if possible else None)


def per_channel_weights(case: Case) -> Remedy:
    """One scale for each output channel, everywhere."""

    def mend() -> QuantizedModel:
        return case.remade(_model(case), per_channel(_recipe(case)))

    return by_program(case, "use per-channel weights", mend)


def equalized(case: Case, *, dead: bool) -> Remedy:
    """Zero the weights that read dead channels, then equalize."""
    text = "zero_dead_inputs() then cross_layer_equalize()" if dead else "cross_layer_equalize()"

    def mend() -> QuantizedModel:
        return case.remade(cross_layer_equalize(zero_dead_inputs(fold_batch_norm(_model(case)))), _recipe(case))

    return by_program(case, text, mend)


def dead_zeroed(case: Case) -> Remedy:
    """Zero the weights that read dead channels."""
    return by_program(
        case, "zero_dead_inputs()", lambda: case.remade(zero_dead_inputs(fold_batch_norm(_model(case))), _recipe(case))
    )


def made_again(case: Case, text: str) -> Remedy:
    """Fold, calibrate and quantize once more."""
    return by_program(case, text, lambda: case.remade(fold_batch_norm(_model(case)), _recipe(case)))


def more_bits(case: Case, site: str | None, bits: int) -> Remedy:
    """Give one layer, or all, more bits."""
    text = f"{bits} bits for {site or 'all layers'}"

    def mend() -> QuantizedModel:
        recipe = _recipe(case)
        weights, activations = (_with_bits(one, bits) for one in (recipe.weights, recipe.activations))
        if site is None:
            return case.remade(_model(case), replace(recipe, weights=weights, activations=activations, layers={}))
        node = _model(case).node(site)
        own = {"weights": weights} if node.op in SHARING_OPS else {"weights": weights, "activations": activations}
        return case.remade(_model(case), recipe.with_layer(site, **own))

    return by_program(case, text, mend)


def per_channel(recipe: Recipe) -> Recipe:
    """Return the recipe with per-channel weights in every layer."""
    layers = {name: replace(one, weights=_per_channel(one.weights)) for name, one in recipe.layers.items()}
    return replace(recipe, weights=_per_channel(recipe.weights), layers=layers)


def _per_channel(one: TensorRecipe | None) -> TensorRecipe | None:
    return None if one is None else replace(one, granularity="per_channel")


def _with_bits(one: TensorRecipe | None, bits: int) -> TensorRecipe | None:
    return None if one is None else replace(one, bits=bits)


def _model(case: Case) -> FloatModel:
    assert case.quantized is not None
    return case.quantized.model


def _recipe(case: Case) -> Recipe:
    assert case.recipe is not None
    return case.recipe


def effect_of(case: Case, quantized: QuantizedModel | None = None) -> tuple[Effect | None, float | None]:
    """Return what quantization does to the answers, and the float network's accuracy, where that can be known."""
    expected, labels = case.facts.float_logits, case.pictures.labels
    if expected is None:
        return None, None
    logits = case.facts.logits
    if quantized is not None:
        parts = [quantized(x).flatten(1) for x in progress(case.pictures.batches(), "try a remedy", unit="batch")]
        logits = torch.cat(parts)
    scores = Scores()
    scores.see(expected, logits, labels, probabilities=False)
    accuracy = None if labels is None else float((expected.argmax(1) == labels).double().mean())
    return scores.effect(), accuracy


def measured(case: Case, findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings with the gain of every remedy that can be tried; the same remedy is tried once."""
    before, _ = effect_of(case)
    if before is None:
        return list(findings)
    gains: dict[str, Gain] = {}
    return [
        replace(finding, remedies=tuple(_measured(case, remedy, before, gains) for remedy in finding.remedies))
        for finding in findings
    ]


def _measured(case: Case, remedy: Remedy, before: Effect, gains: dict[str, Gain]) -> Remedy:
    if remedy.mend is None:
        return remedy
    if remedy.text not in gains:
        after, _ = effect_of(case, remedy.mend())
        assert after is not None
        if before.accuracy is not None and after.accuracy is not None:
            gains[remedy.text] = Gain("accuracy", before.accuracy, after.accuracy)
        else:
            gains[remedy.text] = Gain("agreement", before.agreement, after.agreement)
    return replace(remedy, gain=gains[remedy.text])
