"""Calibration: one streaming pass that picks a clip range for every site (paper §3.3, 5.2)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qlearn.errors import CalibrationError, GraphError, PluginError, RecipeError
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.model import FloatModel
from qlearn.integer.layers import SHARING_OPS
from qlearn.numbers.qparams import ClipRange
from qlearn.pipeline.known import known_output
from qlearn.pipeline.observe import SiteObservers, input_of, noted, observe_here, observe_on
from qlearn.registry import scheme

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from qlearn.pipeline.observe import Plan
    from qlearn.pipeline.recipe import Recipe, TensorRecipe

__all__ = ["CalibrationTable", "calibrate", "calibrate_many", "calibration_plan", "calibration_sites", "input_of"]


@dataclass(frozen=True, eq=False)
class CalibrationTable(Mapping[str, "ClipRange"]):
    """The clip range of every site, by name. What `calibrate` returns and `quantize_model` takes.

    Parameters
    ----------
    ranges : mapping of site to ClipRange
    images : int
        Number of inputs that were seen.
    """

    ranges: Mapping[str, ClipRange]
    images: int

    def __getitem__(self, site: str) -> ClipRange:
        return self.ranges[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self.ranges)

    def __len__(self) -> int:
        return len(self.ranges)

    def __repr__(self) -> str:
        lines = "\n".join(f"  {site:<24} {r.lo.item():>12.5g} {r.hi.item():>12.5g}" for site, r in self.items())
        return f"CalibrationTable of {len(self)} sites, {self.images} inputs\n{lines}"


def calibration_sites(model: FloatModel) -> list[str]:
    """Return the names of the nodes whose output gets a range of its own, in a network with fused activations.

    Pooling windows, slices, padding and reshapes take over the range of their input.
    The range of sigmoid, tanh and softmax is known without data.
    """
    return [
        node.name
        for node in model.nodes
        if node.op not in SHARING_OPS and known_output(node, bits=8, signed=True) is None
    ]


def calibrate(model: FloatModel, batches: Iterable[Any], recipe: Recipe, *, client: Any = None) -> CalibrationTable:
    """Run batches through the float network and pick a clip range for every site.

    ReLU and ReLU6 are fused first, so that ranges are those of the values that the integer network stores.
    Nothing is kept but the calibrators' statistics: memory does not grow with the number of batches.

    Parameters
    ----------
    model : FloatModel
        Not changed. Fold batch norms first.
    batches : iterable
        Of input tensors (N, C, H, W), or of tuples that start with one, such as (images, labels).
        With a client, a batch may also be a Dask future of either: the worker then loads the pictures.
    recipe : Recipe
        Its ``activations`` say which calibrator, and for which scheme; layers may differ. Sites in float get no range.
    client : dask.distributed.Client, optional
        Calibrate on its workers (extra ``dask``): one task per batch, one thread each.
        The calibrator must be MERGEABLE; the table is then that of one process with one thread, bit for bit.

    Returns
    -------
    CalibrationTable

    Raises
    ------
    CalibrationError
        If there are no batches, or a value is NaN or Inf; a note names the site.
    GraphError
        If a batch has the wrong shape.
    RecipeError
        If the recipe names a layer that the network does not have.

    References
    ----------
    Paper §3.3, §5.2, §7.5.

    Examples
    --------
    >>> import torch
    >>> from qlearn.graph.trace import trace
    >>> from qlearn.pipeline.recipe import Recipe
    >>> network = trace(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU()), torch.zeros(1, 1, 8, 8))
    >>> table = calibrate(network, [torch.ones(4, 1, 8, 8)], Recipe())
    >>> table.images, table["input"]
    (4, ClipRange(lo=0, hi=1))
    """
    return calibrate_many(model, batches, [recipe], client=client)[0]


def calibrate_many(
    model: FloatModel, batches: Iterable[Any], recipes: Sequence[Recipe], *, client: Any = None
) -> list[CalibrationTable]:
    """Calibrate several recipes in one pass: the network runs once, and equal statistics are collected once.

    Parameters and errors are those of `calibrate`.

    Returns
    -------
    list of CalibrationTable
        One per recipe.

    References
    ----------
    Paper §7.5.
    """
    if not isinstance(model, FloatModel):
        raise GraphError(f"calibrate() takes a traced network, got {type(model).__name__}: use qlearn.trace() first")
    fused = fuse_activations(model)
    plans = [calibration_plan(fused, recipe) for recipe in recipes]
    if not any(plans):
        return [CalibrationTable({}, 0) for _ in plans]
    observers = observe_here(fused, batches, plans) if client is None else observe_on(client, fused, batches, plans)
    if observers.images == 0:
        raise CalibrationError(f"{model.name}: no batches to calibrate on (an iterator that was already used up?)")
    return [table_of(observers, place, plan) for place, plan in enumerate(plans)]


def calibration_plan(fused: FloatModel, recipe: Recipe) -> dict[str, TensorRecipe]:
    """Return how each site of a network with fused activations is to be quantized; sites left in float are missing.

    Raises
    ------
    RecipeError
        If the recipe names a layer that the network does not have, or one whose output takes over the scale of its
        input and that yet asks for something else.
    """
    _check_layers(fused, recipe)
    choices = {site: recipe.for_layer(site).activations for site in calibration_sites(fused)}
    return {site: choice for site, choice in choices.items() if choice is not None}


def _check_layers(fused: FloatModel, recipe: Recipe) -> None:
    nodes = {node.name: node for node in fused.nodes}
    for name, mine in recipe.layers.items():
        if name not in nodes:
            close = difflib.get_close_matches(name, nodes, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise RecipeError(
                f"the recipe names layer {name!r}, which {fused.name} does not have "
                f"(a ReLU belongs to the layer before it){hint}"
            )
        if nodes[name].op in SHARING_OPS and mine.activations != recipe.activations:
            raise RecipeError(
                f"layer {name!r} ({nodes[name].op}) takes over the scale of its input: "
                f"say how {nodes[name].inputs[0]!r} is quantized instead"
            )


def table_of(observers: SiteObservers, place: int, plan: Plan) -> CalibrationTable:
    """Ask the calibrators of one recipe for their ranges."""
    ranges: dict[str, ClipRange] = {}
    for site, choice in plan.items():
        target = scheme(choice.scheme, bits=choice.bits, signed=choice.signed)
        with noted(site, choice.calibrator, None):
            ranges[site] = _is_range(observers.sites[site][place].compute_range(target), choice.calibrator)
    return CalibrationTable(ranges, observers.images if plan else 0)


def _is_range(value: Any, name: str) -> ClipRange:
    if not isinstance(value, ClipRange) or value.channels is not None:
        raise PluginError(f"calibrator {name!r} must return one ClipRange per tensor, got {value!r}")
    return value
