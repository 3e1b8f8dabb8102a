"""Directions in the space of all weights: random ones as large as the filters, and the one that quantization takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from qlearn.errors import GraphError
from qlearn.graph.ops import WEIGHTED_OPS
from qlearn.numbers.affine import dequantize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qlearn.pipeline.simulate import QuantizedModel

Weights = dict[str, Tensor]
"""The weight tensors of a network, by layer."""


def difference(name: str, centre: Weights, quantized: QuantizedModel) -> Weights:
    """From float to quantized weights; zero where they stay in float."""
    theirs: Weights = {}
    for layer in quantized.layers:
        if layer.node.op not in WEIGHTED_OPS:
            continue
        weight = layer.node.params["weight"]
        if layer.weight is not None and layer.weight_qparams is not None:
            weight = dequantize(layer.weight, layer.weight_qparams)
        theirs[layer.node.name] = weight
    if {site: weight.shape for site, weight in theirs.items()} != {site: w.shape for site, w in centre.items()}:
        raise GraphError(f"{name}: the quantized network {quantized.name} has other layers")
    return {site: theirs[site] - weight for site, weight in centre.items()}


def directions(centre: Weights, towards: Weights | None, dimensions: int, seed: int) -> list[Weights]:
    """Return one or two directions: the one that is given, if any, then random ones."""
    generator = torch.Generator().manual_seed(seed)
    found = [] if towards is None else [towards]
    while len(found) < dimensions:
        found.append(random_direction(centre, generator))
    return found


def random_direction(centre: Mapping[str, Tensor], generator: torch.Generator) -> Weights:
    """Draw a direction whose every filter (row of a weight tensor) has the norm of the filter that it moves.

    Examples
    --------
    >>> centre = {"conv": torch.tensor([[3.0, 4.0], [0.0, 0.0]])}
    >>> random_direction(centre, torch.Generator().manual_seed(0))["conv"].norm(dim=1).tolist()
    [5.0, 0.0]
    """
    direction = {}
    for site, weight in centre.items():
        noise = torch.randn(weight.shape, generator=generator)
        sizes, norms = (tensor.flatten(1).norm(dim=1).clamp_min(0.0) for tensor in (weight, noise))
        factor = torch.where(norms > 0, sizes / norms.clamp_min(torch.finfo(torch.float32).tiny), 0.0)
        direction[site] = noise * factor.reshape(-1, *[1] * (weight.ndim - 1))
    return direction


def moved(centre: Weights, along: list[Weights], amounts: list[float]) -> Weights:
    """Return the weights after a step of some amount along each direction."""
    weights = dict(centre)
    for direction, amount in zip(along, amounts, strict=True):
        weights = {site: weight + amount * direction[site] for site, weight in weights.items()}
    return weights


def projection(towards: Weights, along: list[Weights]) -> tuple[tuple[float, ...], float]:
    """Coordinates of the quantized weights on the directions (least squares), and how much of them lies there."""
    target = torch.cat([value.flatten() for value in towards.values()]).double().numpy()
    basis = np.stack(
        [torch.cat([value.flatten() for value in direction.values()]).double().numpy() for direction in along],
        axis=1,
    )
    at = np.linalg.lstsq(basis, target, rcond=None)[0]
    distance = float(target @ target)
    share = 1.0 if distance == 0.0 else 1.0 - float(np.square(target - basis @ at).sum()) / distance
    return tuple(float(value) for value in at), share
