"""Calibration: one streaming pass that picks a clip range for every site (paper §3.3, 5.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qlearn.errors import CalibrationError, GraphError, PluginError
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.model import FloatModel
from qlearn.integer.layers import SHARING_OPS
from qlearn.numbers.qparams import ClipRange
from qlearn.pipeline.known import known_output
from qlearn.progress import progress
from qlearn.registry import calibrator, scheme

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from qlearn.graph.model import Node
    from qlearn.pipeline.recipe import Recipe


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


def calibrate(model: FloatModel, batches: Iterable[Any], recipe: Recipe) -> CalibrationTable:
    """Run batches through the float network and pick a clip range for every site.

    ReLU and ReLU6 are fused first, so that ranges are those of the values that the integer network stores.
    Nothing is kept but the calibrators' statistics: memory does not grow with the number of batches.

    Parameters
    ----------
    model : FloatModel
        Not changed. Fold batch norms first.
    batches : iterable
        Of input tensors (N, C, H, W), or of tuples that start with one, such as (images, labels).
    recipe : Recipe
        Its ``activations`` say which calibrator, and for which scheme. None gives an empty table.

    Returns
    -------
    CalibrationTable

    Raises
    ------
    CalibrationError
        If there are no batches, or a value is NaN or Inf; a note names the site.
    GraphError
        If a batch has the wrong shape.

    References
    ----------
    Paper §3.3, §5.2, §7.5.
    """
    if not isinstance(model, FloatModel):
        raise GraphError(f"calibrate() takes a traced network, got {type(model).__name__}: use qlearn.trace() first")
    if recipe.activations is None:
        return CalibrationTable({}, 0)
    choice = recipe.activations
    fused = fuse_activations(model)
    calibrators = {site: calibrator(choice.calibrator, **choice.calibrator_params) for site in calibration_sites(fused)}

    def watch(node: Node, value: Tensor) -> None:
        if node.name in calibrators:
            with _noted(node.name, choice.calibrator, value):
                calibrators[node.name].observe(value)

    images = 0
    for batch in progress(batches, "calibrate", unit="batch"):
        x = input_of(batch)
        fused(x, watch)
        images += len(x)
    if images == 0:
        raise CalibrationError(f"{model.name}: no batches to calibrate on (an iterator that was already used up?)")
    target = scheme(choice.scheme, bits=choice.bits, signed=choice.signed)
    ranges: dict[str, ClipRange] = {}
    for site, observer in calibrators.items():
        with _noted(site, choice.calibrator, None):
            ranges[site] = _is_range(observer.compute_range(target), choice.calibrator)
    return CalibrationTable(ranges, images)


def _is_range(value: Any, name: str) -> ClipRange:
    if not isinstance(value, ClipRange) or value.channels is not None:
        raise PluginError(f"calibrator {name!r} must return one ClipRange per tensor, got {value!r}")
    return value


def input_of(batch: Any) -> Tensor:
    """Return the input tensor of a batch: the batch itself, or the first of a tuple."""
    first = batch[0] if isinstance(batch, tuple | list) and len(batch) else batch
    if isinstance(first, np.ndarray):
        first = torch.from_numpy(first)
    if not isinstance(first, torch.Tensor):
        raise CalibrationError(f"a batch is a tensor or a tuple that starts with one, got {type(first).__name__}")
    return first


class _noted:  # noqa: N801  (a context manager, read as a word)
    """Add site, calibrator and shape to whatever is raised inside."""

    def __init__(self, site: str, name: str, value: Tensor | None) -> None:
        shape = "" if value is None else f", values of shape {tuple(value.shape)}"
        self.note = f"at site {site!r}, calibrator {name!r}{shape}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            error.add_note(self.note)
