"""What is seen when the pictures run: how far each site reaches, what is clipped, what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qlearn.analysis.lockstep import walk
from qlearn.analysis.metrics import decibels
from qlearn.progress import progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from qlearn.analysis.lockstep import Step
    from qlearn.integer.model import IntegerModel
    from qlearn.numbers.qparams import QParams
    from qlearn.pipeline.simulate import QuantizedModel


@dataclass(eq=False)
class SiteFacts:
    """The float values at one site, and what the range of its codes leaves of them.

    Parameters
    ----------
    low, high : float
        Smallest and largest value, zero included.
    signal, cut : float
        Σ x², and Σ of what clipping takes away, squared.
    """

    low: float = 0.0
    high: float = 0.0
    signal: float = 0.0
    cut: float = 0.0

    @property
    def span(self) -> float:
        """How far the values reach."""
        return self.high - self.low

    @property
    def clip_db(self) -> float:
        """SQNR if nothing but clipping happened, in dB."""
        return decibels(self.signal, self.cut)


@dataclass(frozen=True, eq=False)
class Facts:
    """What all pictures showed.

    Parameters
    ----------
    sites : mapping of site to SiteFacts
    float_logits : Tensor or None, shape (N, classes)
    codes : Tensor or None, shape (N, classes)
        Codes of the output; None where it stays in float.
    logits : Tensor, shape (N, classes)
        The quantized network's outputs, in real numbers.
    output : QParams or None
    limits : (int, int) or None
        Smallest and largest code that the output layer can give.
    """

    logits: Tensor
    codes: Tensor | None
    output: QParams | None
    limits: tuple[int, int] | None
    sites: Mapping[str, SiteFacts] = field(default_factory=dict)
    float_logits: Tensor | None = None


def look_at(quantized: QuantizedModel, batches: Sequence[Tensor]) -> Facts:
    """Run both networks side by side."""
    sites = {layer.node.name: SiteFacts() for layer in quantized.layers}
    seen: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for x in progress(batches, "doctor", unit="batch"):
        for step in walk(quantized, quantized.model, x):
            _add(sites[step.node.name], step)
            if step.node.name == quantized.model.output:
                for store, value in zip(seen, (step.float_output, step.quantized_output, step.value), strict=True):
                    store.append(value)
    last = next(layer for layer in quantized.layers if layer.node.name == quantized.model.output)
    expected, logits, codes = (torch.cat(part).flatten(1) for part in seen)
    if last.output is None:
        return Facts(logits, None, None, None, sites, expected)
    low, high = last.clamp or (last.output.qmin, last.output.qmax)
    return Facts(logits, codes, last.output, (int(np.min(low)), int(np.max(high))), sites, expected)


def look_at_outputs(integer: IntegerModel, batches: Sequence[Tensor]) -> Facts:
    """Run an integer model whose float network is not known."""
    runs = [integer.run(x.numpy()) for x in progress(batches, "doctor", unit="batch")]
    codes = torch.from_numpy(np.concatenate(runs).astype(np.float32)).flatten(1)
    layer = integer.layer(integer.output)
    low, high = layer.limits
    logits = (codes - int(layer.output.zero_point)) * float(layer.output.scale)
    return Facts(logits, codes, layer.output, (int(np.min(low)), int(np.max(high))))


def _add(facts: SiteFacts, step: Step) -> None:
    values = step.float_output.double()
    facts.low, facts.high = min(facts.low, float(values.min())), max(facts.high, float(values.max()))
    facts.signal += float(values.square().sum())
    if step.layer.output is not None:
        limits: Any = step.layer.output.range
        facts.cut += float((values - values.clamp(float(limits.lo), float(limits.hi))).square().sum())
