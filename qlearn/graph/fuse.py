"""Fuse ReLU and ReLU6 into the layer before them (paper §5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qlearn.graph.absorb import absorb

if TYPE_CHECKING:
    from qlearn.graph.model import FloatModel


def fuse_activations(model: FloatModel) -> FloatModel:
    """Return the same function with every clamp (ReLU, ReLU6) done by the layer before it.

    Fusing comes before calibration.
    Otherwise the range of a convolution is observed before the ReLU cuts it,
    and half of the integers are spent on numbers that the next line throws away.

    A clamp stays by itself if others also read the layer's value, or if the layer already clamps.

    Parameters
    ----------
    model : FloatModel
        Not changed.

    Returns
    -------
    FloatModel
        Exactly equal outputs. A fused node keeps the name of its layer and has ``attrs["clamp"] = (lo, hi)``.

    References
    ----------
    Paper §5.1.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from qlearn.graph.trace import trace
    >>> net = fuse_activations(trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6()), torch.zeros(1, 3, 8, 8)))
    >>> net.nodes[1].attrs["clamp"]
    (0.0, 6.0)
    """
    return absorb(
        model,
        "clamp",
        into=("conv2d", "linear", "add"),
        merge=lambda layer, node: layer.with_attrs(clamp=node.attrs["clamp"]),
    )
