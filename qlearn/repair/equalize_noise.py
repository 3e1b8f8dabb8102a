"""Noise equalization: the factors between layers that let the least quantization noise through to the logits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qlearn.errors import CalibrationError
from qlearn.graph.channels import FIXED, ChannelClasses, channel_classes
from qlearn.graph.constants import by_input
from qlearn.graph.equalize import equalizing_factors, scale_channels
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.ops import FLOAT_OPS, WEIGHTED_OPS, channel_rows
from qlearn.pipeline.calibrate import calibration_plan
from qlearn.progress import progress
from qlearn.repair.pictures import each_checked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from qlearn.graph.model import FloatModel, Node
    from qlearn.pipeline.recipe import Recipe

STEPS, RATE = 200, 0.03


def equalize_noise(
    model: FloatModel, recipe: Recipe, batches: Iterable[Any], *, steps: int = STEPS, seed: int = 0
) -> FloatModel:
    r"""Return the same function with the factors for which a recipe makes the least noise. Needs pictures, no labels.

    `cross_layer_equalize` makes ranges of weights equal and looks at nothing else. The activations pay for it: a
    channel that is divided by a small factor owns the range of its site. And it treats a channel that matters little
    like one that matters much. Here the factors minimize what both do to the logits, to first order:

    .. math:: \sum_l \frac{S_{w,l}^2}{12} \sum_o G_o s_o^2 \sum_{i,k} \frac{V_i}{s_i^2}
              + \sum_a \frac{S_a^2}{12} \sum_c H_c s_c^2

    Every rounding error is uniform with variance S² / 12 (paper §2). G and H are the mean squares of the
    derivatives of the logits by a layer's sum and by its output, added up over positions; V is the variance of what
    the layer reads (its mean is the business of `correct_bias`); s are the factors of what is written (o, c) and read
    (i). The scales follow from the factors: S_w is the largest scaled weight over its largest code, S_a the largest
    scaled range over the number of steps. Both are differentiated too, and Adam walks downhill in log s, starting
    from the factors of `cross_layer_equalize`.

    Parameters
    ----------
    model : FloatModel
        Batch norms folded, dead inputs zeroed. Not changed.
    recipe : Recipe
        Which tensors are quantized, to how many bits, per tensor or per channel.
    batches : iterable
        Some tens of pictures, as for `calibrate`.
    steps : int
        Of Adam.
    seed : int
        Of the random signs with which the logits are added up (`measure_sensitivity`).

    Returns
    -------
    FloatModel
        Equal outputs up to float32 rounding; ReLU and ReLU6 are fused.

    Raises
    ------
    CalibrationError
        If there are no batches, or a value is NaN or Inf.
    GraphError
        If a batch is empty or has the wrong shape.

    References
    ----------
    Paper §2 (rounding noise), §7.2 (equalization), §7.3 (sensitivity). First-order noise through a network:
    D. Lin et al., "Fixed point quantization of deep convolutional networks", ICML 2016.
    """
    fused = fuse_activations(model)
    objective = NoiseObjective(fused, recipe, measure_sensitivity(fused, batches, seed=seed))
    return scale_channels(fused, objective.minimized(equalizing_factors(fused), steps))


@dataclass(eq=False)
class Sensitivity:
    """What was measured on pictures, channel by channel.

    Parameters
    ----------
    by_sum, by_output : dict of node to Tensor, shape (C,)
        Mean over pictures of the squared derivative of the logits, added up over positions: by a layer's sum before
        its ReLU, and by its output.
    low, high : dict of node to Tensor, shape (C,)
        Smallest and largest value seen.
    variance : dict of node to Tensor, shape (C,)
        Over pictures and positions.
    """

    by_sum: dict[str, Tensor] = field(default_factory=dict)
    by_output: dict[str, Tensor] = field(default_factory=dict)
    low: dict[str, Tensor] = field(default_factory=dict)
    high: dict[str, Tensor] = field(default_factory=dict)
    variance: dict[str, Tensor] = field(default_factory=dict)


def measure_sensitivity(fused: FloatModel, batches: Iterable[Any], *, seed: int = 0) -> Sensitivity:
    """Run pictures forwards and backwards, and return what each channel does to the logits.

    The squares of the derivatives of all logits add up, on average, to the square of the derivative of their sum with
    random signs; one backward pass per batch is enough.

    Parameters
    ----------
    fused : FloatModel
        With fused activations.
    batches : iterable
        As for `calibrate`.
    seed : int
        Of the signs.
    """
    generator = torch.Generator().manual_seed(seed)
    totals: list[dict[str, dict[str, Tensor]]] = []
    count = 0
    for x in each_checked(fused, progress(batches, "sensitivity", unit="batch")):
        totals.append(_one_batch(fused, x, generator))
        count += len(x)
    if not totals:
        raise CalibrationError(f"{fused.name}: no batches to measure on (an iterator that was already used up?)")
    return _averaged(totals, count)


def _one_batch(fused: FloatModel, x: Tensor, generator: torch.Generator) -> dict[str, dict[str, Tensor]]:
    sums: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    leaf = x.detach().requires_grad_()  # the caller's tensor stays as it is
    with torch.enable_grad():
        for node in fused.nodes:
            inputs = [outputs[name] for name in node.inputs]
            sums[node.name], outputs[node.name] = _run(node, inputs) if inputs else (leaf, leaf)
        logits = outputs[fused.output]
        signs = torch.randint(0, 2, logits.shape, generator=generator) * 2.0 - 1.0
        wanted = [*sums.values(), *outputs.values()]
        gradients = torch.autograd.grad((logits * signs).sum(), wanted, allow_unused=True)
    squares = [channel_rows(torch.zeros_like(value) if g is None else g).double().square().sum(dim=1)
               for value, g in zip(wanted, gradients, strict=True)]  # fmt: skip
    rows = {name: channel_rows(value.detach()).double() for name, value in outputs.items()}
    return {
        "by_sum": dict(zip(sums, squares[: len(sums)], strict=True)),
        "by_output": dict(zip(outputs, squares[len(sums) :], strict=True)),
        "low": {name: value.amin(dim=1) for name, value in rows.items()},
        "high": {name: value.amax(dim=1) for name, value in rows.items()},
        "mean": {name: value.mean(dim=1) * len(x) for name, value in rows.items()},
        "square": {name: value.square().mean(dim=1) * len(x) for name, value in rows.items()},
    }


def _run(node: Node, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The value before and after a fused clamp; two tensors even without one, each with a derivative of its own."""
    before = FLOAT_OPS[node.op](node.with_attrs(clamp=None) if node.op != "clamp" else node, inputs)
    fused = node.op != "clamp" and node.attrs.get("clamp") is not None
    return before, FLOAT_OPS["clamp"](node, [before]) if fused else before.view_as(before)


def _averaged(totals: Sequence[Mapping[str, Mapping[str, Tensor]]], count: int) -> Sensitivity:
    def over(kind: str, how: str) -> dict[str, Tensor]:
        names = totals[0][kind]
        return {name: getattr(torch.stack([t[kind][name] for t in totals]), how)(0) for name in names}

    mean, square = over("mean", "sum"), over("square", "sum")
    return Sensitivity(
        by_sum={name: value / count for name, value in over("by_sum", "sum").items()},
        by_output={name: value / count for name, value in over("by_output", "sum").items()},
        low=over("low", "amin"),
        high=over("high", "amax"),
        variance={name: (square[name] / count - (mean[name] / count) ** 2).clamp(min=0.0) for name in mean},
    )


class NoiseObjective:
    """The expected noise of the logits as a function of the factors of a network's classes of channels."""

    def __init__(self, fused: FloatModel, recipe: Recipe, seen: Sensitivity) -> None:
        self.classes = channel_classes(fused)
        plan = calibration_plan(fused, recipe)
        self.weights = [_WeightNoise(node, recipe, self.classes, seen) for node in fused.nodes
                        if node.op in WEIGHTED_OPS and recipe.for_layer(node.name).weights is not None]  # fmt: skip
        self.sites = [_SiteNoise(name, 2**choice.bits - 1, self.classes, seen) for name, choice in plan.items()]

    def __call__(self, factors: Tensor) -> Tensor:
        """Return the expected variance of the logits' noise, added up over logits, float64."""
        terms = [part.noise(factors) for part in self.weights] + [site.noise(factors) for site in self.sites]
        return torch.stack(terms).sum() if terms else torch.zeros(())

    def minimized(self, start: Tensor, steps: int) -> Tensor:
        """Return the factors with the least noise on the way that Adam takes from `start`."""
        logs = start.log().clone().requires_grad_()
        free = torch.arange(self.classes.count) > FIXED
        optimizer = torch.optim.Adam([logs], lr=RATE)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=max(steps, 1))
        best, least = start, float("inf")
        with torch.enable_grad():
            for _ in progress(range(steps + 1), "equalize noise", unit="step"):
                factors = torch.where(free, logs, 0.0).exp()
                noise = self(factors)
                if float(noise.detach()) < least:
                    best, least = factors.detach().clone(), float(noise.detach())
                if not noise.requires_grad or float(noise.detach()) == 0.0:
                    break
                optimizer.zero_grad()
                noise.log().backward()  # type: ignore[no-untyped-call]  # torch does not type it
                optimizer.step()
                schedule.step()
        return best


class _WeightNoise:
    """Rounding the weights of one layer."""

    def __init__(self, node: Node, recipe: Recipe, classes: ChannelClasses, seen: Sensitivity) -> None:
        choice = recipe.for_layer(node.name).weights
        assert choice is not None
        weight = node.params["weight"].double().abs()
        self.largest = weight.flatten(2).amax(dim=2) if weight.ndim > 2 else weight
        self.taps = weight[0, 0].numel()
        self.writes = classes.writes[node.name]
        self.reads = by_input(node, classes.reads[node.name]).flatten(1)
        self.variance = by_input(node, seen.variance[node.inputs[0]]).flatten(1)
        self.sensitivity = seen.by_sum[node.name]
        self.codes = 2 ** (choice.bits - 1) - 1
        self.per_channel = choice.granularity == "per_channel"

    def noise(self, factors: Tensor) -> Tensor:
        written, read = factors[self.writes], factors[self.reads]
        largest = (self.largest * read).amax(dim=1) / written
        scale = (largest if self.per_channel else largest.amax()) / self.codes
        power = (self.variance / read**2).sum(dim=1) * self.taps
        noise: Tensor = (self.sensitivity * (written * scale) ** 2 / 12 * power).sum()
        return noise


class _SiteNoise:
    """Rounding the output of one node."""

    def __init__(self, name: str, steps: int, classes: ChannelClasses, seen: Sensitivity) -> None:
        self.members, self.steps = classes.outputs[name], steps
        self.low, self.high = seen.low[name].clamp(max=0.0), seen.high[name].clamp(min=0.0)
        self.sensitivity = seen.by_output[name]

    def noise(self, factors: Tensor) -> Tensor:
        scaled = factors[self.members]
        scale = ((self.high / scaled).amax() - (self.low / scaled).amin()) / self.steps
        noise: Tensor = (self.sensitivity * (scaled * scale) ** 2 / 12).sum()
        return noise
