"""Are the weights and biases quantized well: dead channels, unequal channels, a second grid, coarse biases."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qlearn.analysis.doctor import faults
from qlearn.analysis.doctor.finding import Finding, Remedy
from qlearn.analysis.doctor.remedies import dead_zeroed, equalized, made_again, per_channel_weights
from qlearn.graph.constants import by_input
from qlearn.graph.dead import dead_inputs
from qlearn.numbers.qparams import along_axis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from qlearn.analysis.doctor.case import Case
    from qlearn.graph.dead import DeadInput
    from qlearn.pipeline.simulate import QuantizedLayer

FEWEST_WEIGHTS = 5
"""A channel with fewer different weights lies on some grid by chance."""

GRID_ROWS = 64
"""So many channels of a layer are looked at."""


def check_weights(case: Case) -> Iterator[Finding]:
    """Look at the weights of every layer."""
    assert case.quantized is not None
    dead: dict[str, list[DeadInput]] = defaultdict(list)
    for one in dead_inputs(case.quantized.model):
        dead[one.layer].append(one)
    for layer in case.quantized.layers:
        if layer.weight is None or layer.weight_qparams is None:
            continue
        alive = _alive(layer, dead[layer.node.name])
        yield from _dead(case, layer, alive, dead[layer.node.name])
        yield from _unequal(case, layer, alive, bool(dead))
        yield from _second_grid(case, layer)
        yield from _bias(case, layer)


def _alive(layer: QuantizedLayer, dead: list[DeadInput]) -> NDArray[np.bool_]:
    """Which weights read a channel that is not dead: shape (O, everything else)."""
    weight = layer.node.params["weight"]
    inputs = weight.shape[1] * int(layer.node.attrs.get("groups", 1))
    living = torch.ones(inputs, dtype=torch.bool)
    living[[one.channel for one in dead]] = False
    mask = by_input(layer.node, living).expand(weight.shape) if dead else torch.ones_like(weight, dtype=torch.bool)
    return np.asarray(mask.flatten(1).numpy())


def _sizes(layer: QuantizedLayer) -> NDArray[np.float64]:
    return np.asarray(layer.node.params["weight"].flatten(1).abs().double().numpy())


def _dead(case: Case, layer: QuantizedLayer, alive: NDArray[np.bool_], dead: list[DeadInput]) -> Iterator[Finding]:
    if not dead:
        return
    sizes = _sizes(layer)
    per_tensor = layer.weight_qparams is not None and layer.weight_qparams.axis is None
    axis = None if per_tensor else 1
    whole, needed = (np.atleast_1d(part.max(axis=axis)) for part in (sizes, np.where(alive, sizes, 0)))
    hit = (needed > 0) & (whole > faults.DEAD_SHARE * needed)
    if not hit.any():
        return
    times = float((whole[hit] / needed[hit]).max())
    owners = tuple(one.channel for one in dead if one.weight_share > faults.DEAD_SHARE) or tuple(
        o.channel for o in dead
    )
    many = f"{len(owners)} dead channel{'s' * (len(owners) > 1)}"
    where = "the per-tensor range" if per_tensor else f"the ranges of {int(hit.sum())} output channels"
    verb = "set" if len(owners) > 1 else "sets"
    text = f"{layer.node.name}: {many} that it reads {verb} {where} of its weights {times:.0f} times too wide"
    evidence = {"times": times, "dead": float(len(owners)), "ranges": float(hit.sum())}
    remedies = (per_channel_weights(case), equalized(case, dead=True)) if per_tensor else (dead_zeroed(case),)
    yield Finding("dead_channels", layer.node.name, text, 0.99, evidence, channels=owners, remedies=remedies)


def _unequal(case: Case, layer: QuantizedLayer, alive: NDArray[np.bool_], any_dead: bool) -> Iterator[Finding]:
    assert layer.weight_qparams is not None
    if layer.weight_qparams.axis is not None or len(alive) < 4:
        return
    largest = np.where(alive, _sizes(layer), 0).max(axis=1)
    largest = largest[largest > 0]
    if not len(largest):
        return
    qp = layer.weight_qparams
    steps = largest / largest.max() * max(qp.qmax - int(qp.zero_point), int(qp.zero_point) - qp.qmin)
    if qp.bits < 8:  # fewer bits give every channel few steps; that is another fault
        steps = largest / largest.max() * 127
    share = float((steps < faults.FEW_STEPS).mean())
    if share < faults.FEW_STEP_CHANNELS:
        return
    ratio = float(largest.max() / np.median(largest))
    text = (
        f"{layer.node.name}: its channels are very unequal: the largest is {ratio:.0f} times the median, "
        f"and {share:.0%} of them get fewer than {faults.FEW_STEPS} steps of the one scale"
    )
    evidence = {"largest_over_median": ratio, "share_of_channels": share}
    remedies = (per_channel_weights(case), equalized(case, dead=any_dead))
    yield Finding("unequal_channels", layer.node.name, text, 0.95, evidence, remedies=remedies)


def _second_grid(case: Case, layer: QuantizedLayer) -> Iterator[Finding]:
    """Whether the float weights are multiples of a step that is not the step of the new grid."""
    assert layer.weight is not None
    assert layer.weight_qparams is not None
    if "weight_qparams" in layer.node.attrs:  # the grid was kept on purpose
        return
    rows = layer.node.params["weight"].flatten(1).double().numpy()
    chosen = np.linspace(0, len(rows) - 1, min(GRID_ROWS, len(rows))).round().astype(int)
    steps = [(row, grid_of(rows[row])) for row in chosen if _different(rows[row]) >= FEWEST_WEIGHTS]
    if len(steps) < min(4, len(rows)) or any(step is None for _, step in steps):
        return
    qp = layer.weight_qparams
    scale = np.broadcast_to(qp.scale.astype(np.float64), len(rows))
    zero = along_axis(qp.zero_point, qp.axis, layer.weight.ndim)
    kept = (layer.weight.astype(np.int64) - zero).reshape(len(rows), -1) * scale[:, None]
    error = float((np.abs(kept - rows).max(axis=1) / scale)[chosen].max())
    if error <= faults.ON_GRID * 10:
        return
    levels = max(round(float(np.abs(rows[row]).max() / step)) for row, step in steps if step)
    text = (
        f"{layer.node.name}: its weights lie on a grid of at most {levels} steps from zero already, "
        f"and the new grid is another one: they are rounded twice, by up to {error:.2f} of a step"
    )
    remedies = (Remedy("start from the float weights"), Remedy("keep their grid: Node.attrs['weight_qparams']"))
    evidence = {"levels": float(levels), "error_in_steps": error}
    yield Finding("quantized_twice", layer.node.name, text, 0.98, evidence, remedies=remedies)


def _different(row: NDArray[np.float64]) -> int:
    return len(np.unique(np.abs(row[row != 0])))


def grid_of(row: NDArray[np.float64]) -> float | None:
    """Return the largest step of which all numbers are whole multiples, at most 255 times; None if there is none.

    Examples
    --------
    >>> grid_of(np.array([0.5, -1.5, 3.5])), grid_of(np.array([0.5, 0.7, 3.14159]))
    (0.5, None)
    """
    sizes = np.abs(row[row != 0])
    steps = sizes.max(initial=0.0) / np.arange(1, 256)
    multiples = sizes / np.where(steps > 0, steps, 1.0)[:, None]
    fits = (np.abs(multiples - multiples.round()) <= faults.ON_GRID).all(axis=1)
    return float(steps[fits.argmax()]) if len(sizes) and bool(fits.any()) else None


def _bias(case: Case, layer: QuantizedLayer) -> Iterator[Finding]:
    """Compare the bias that the integers stand for with the float one, in steps of the layer's output."""
    if layer.bias is None or layer.output is None or layer.weight_qparams is None:
        return
    assert case.quantized is not None
    x = next(one.output for one in case.quantized.layers if one.node.name == layer.node.inputs[0])
    if x is None or "bias" not in layer.node.params:
        return
    step = (np.float32(x.scale) * layer.weight_qparams.scale).astype(np.float64)
    exact = layer.node.params["bias"].double().numpy()
    off: Any = np.abs(layer.bias * step - exact) / float(layer.output.scale)
    limit = faults.WRONG_BIAS if case.biases_may_move else faults.COARSE_BIAS
    channels = tuple(np.flatnonzero(off > limit).tolist())
    if not channels:
        return
    worst = float(off.max())
    coarse = float(np.max(step)) > float(layer.output.scale)
    why = (
        "its steps S_x S_w are too coarse"
        if coarse
        else "it is not what the float bias rounds to (too few bits, an overflow?)"
    )
    text = f"{layer.node.name}: the bias of {len(channels)} of {len(exact)} channels is off by up to {worst:.3g} steps "
    text += f"of the output: {why}"
    evidence = {"steps": worst, "channels": float(len(channels))}
    again = made_again(case, "quantize again: int32 biases in steps of S_x S_w")
    yield Finding("coarse_bias", layer.node.name, text, 0.99, evidence, channels=channels, remedies=(again,))
