"""The steps that mend a quantized network, by name, and the orders in which the ladder takes them (paper §7.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qlearn.graph.dead import zero_dead_inputs
from qlearn.graph.equalize import cross_layer_equalize
from qlearn.graph.high_bias import absorb_high_bias
from qlearn.pipeline.calibrate import calibrate
from qlearn.pipeline.quantize import quantize_model
from qlearn.repair.adaround import adaround
from qlearn.repair.correct_bias import correct_bias
from qlearn.repair.equalize_noise import equalize_noise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from qlearn.graph.model import FloatModel
    from qlearn.numbers.qparams import ClipRange
    from qlearn.pipeline.recipe import Recipe
    from qlearn.pipeline.simulate import QuantizedModel


@dataclass(frozen=True, eq=False)
class Stage:
    """A network on its way up the ladder: what `quantize_model` takes.

    Parameters
    ----------
    model : FloatModel
    recipe : Recipe
    table : mapping of site to ClipRange
    """

    model: FloatModel
    recipe: Recipe
    table: Mapping[str, ClipRange]

    @property
    def quantized(self) -> QuantizedModel:
        """The network as it will run."""
        return quantize_model(self.model, self.recipe, self.table)


def calibrated(model: FloatModel, recipe: Recipe, pictures: Iterable[Any]) -> Stage:
    """Return the network with the ranges of its sites."""
    return Stage(model, recipe, calibrate(model, pictures, recipe))


def _remade(change: Callable[[FloatModel], FloatModel]) -> Callable[[Stage, Any], Stage]:
    """A step that changes the float network; its sites then have other ranges."""
    return lambda stage, pictures: calibrated(change(stage.model), stage.recipe, pictures)


def _noise_equalized(stage: Stage, pictures: Iterable[Any]) -> Stage:
    return calibrated(equalize_noise(stage.model, stage.recipe, pictures), stage.recipe, pictures)


def _corrected(stage: Stage, pictures: Iterable[Any]) -> Stage:
    return replace(stage, model=correct_bias(stage.model, stage.recipe, stage.table, pictures))


def _corrected_blind(stage: Stage, pictures: Iterable[Any]) -> Stage:
    return replace(stage, model=correct_bias(stage.model, stage.recipe, stage.table))


def _rounding_learned(stage: Stage, pictures: Iterable[Any]) -> Stage:
    return replace(stage, model=adaround(stage.model, stage.recipe, stage.table, pictures))


STEPS: dict[str, Callable[[Stage, Any], Stage]] = {
    "dead inputs zeroed": _remade(zero_dead_inputs),
    "equalized": _remade(cross_layer_equalize),
    "noise equalized": _noise_equalized,
    "bias absorbed": _remade(absorb_high_bias),
    "bias corrected": _corrected,
    "bias corrected without pictures": _corrected_blind,
    "rounding learned": _rounding_learned,
}
"""What a rung may do. A new step is one function and one line."""

_EQUALIZED = ("dead inputs zeroed", "equalized")
_NOISE_EQUALIZED = ("dead inputs zeroed", "noise equalized")
PER_TENSOR: tuple[tuple[str, ...], ...] = (
    (),
    _EQUALIZED[:1],
    _EQUALIZED,
    (*_EQUALIZED, "bias absorbed"),
    (*_EQUALIZED, "bias absorbed", "bias corrected"),
    (*_EQUALIZED, "bias corrected without pictures"),
    (*_EQUALIZED, "bias corrected"),
    _NOISE_EQUALIZED,
    (*_NOISE_EQUALIZED, "bias corrected"),
    ("rounding learned",),
    (*_EQUALIZED, "rounding learned"),
    (*_NOISE_EQUALIZED, "rounding learned"),
)
"""Rungs for weights per tensor; each is the steps that lead to it."""
PER_CHANNEL: tuple[tuple[str, ...], ...] = (
    (),
    ("bias corrected without pictures",),
    (*_NOISE_EQUALIZED, "bias corrected"),
    ("bias corrected",),
    ("rounding learned",),
)
"""Rungs for weights per channel."""
