"""One small network of every architecture that the paper names, and three plain ones, by name, with seeded weights.

They are not trained. They show that an architecture is traced, folded, quantized and run on integers as a whole.
All take float32 pictures of shape (N, 3, 32, 32), about as far from zero as normalised ones, and return (N, 10).

================  ==================================================================================
name              what is special about it
================  ==================================================================================
mobilenet_v1      depthwise and 1x1 convolutions, padding on two sides
mobilenet_v2      inverted residuals, ReLU6, sums without activation
resnet_v1         sums with a ReLU behind
resnet_v2         batch norm and ReLU before each convolution
squeezenet        fire modules: concatenation, no batch norm
shufflenet        grouped convolutions and shuffled channels
densenet          every layer reads all before it: concatenation, batch norm first
inception         parallel branches of several kernels
nasnet            separable convolutions, average pools, sums and concatenation in one cell
efficientnet      SiLU and squeeze-and-excite
plain_functional  functions instead of layers, one ReLU for all, dropout, ``+=``, views
plain_branches    chunk, split, gates, slices, a batch norm first
plain_tokens      linear layers over three axes, permute, softmax
================  ==================================================================================
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import torch
from torch import nn

from qlearn.errors import MissingDataError
from qlearn.zoo.models.families.branches import SmallDenseNet, SmallInception, SmallNasNet, SmallResNetV2
from qlearn.zoo.models.families.chains import (
    SmallEfficientNet,
    SmallMobileNetV1,
    SmallShuffleNet,
    SmallSqueezeNet,
)
from qlearn.zoo.models.families.plain import PlainBranches, PlainFunctional, PlainTokens
from qlearn.zoo.models.tiny import TinyMobileNet, TinyResNet

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FAMILIES", "family"]

_BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v1": SmallMobileNetV1,
    "mobilenet_v2": lambda: TinyMobileNet(widths=(8, 16, 24), head=48),
    "resnet_v1": lambda: TinyResNet(widths=(8, 16, 32)),
    "resnet_v2": SmallResNetV2,
    "squeezenet": SmallSqueezeNet,
    "shufflenet": SmallShuffleNet,
    "densenet": SmallDenseNet,
    "inception": SmallInception,
    "nasnet": SmallNasNet,
    "efficientnet": SmallEfficientNet,
    "plain_functional": PlainFunctional,
    "plain_branches": PlainBranches,
    "plain_tokens": PlainTokens,
}

FAMILIES: tuple[str, ...] = tuple(_BUILDERS)
"""The names that `family` takes."""


def family(name: str, seed: int = 0) -> nn.Module:
    """Build a small network of an architecture, with random weights that depend on the seed alone.

    Convolutions get weights that keep the size of their values; batch norms get factors and offsets of their own
    and the statistics of 64 random pictures, as training would leave them.

    Parameters
    ----------
    name : str
        One of `FAMILIES`.
    seed : int

    Returns
    -------
    nn.Module
        In evaluation mode, without gradients.

    Raises
    ------
    MissingDataError
        If there is no family of that name.

    Examples
    --------
    >>> family("efficientnet", seed=3)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    if name not in _BUILDERS:
        close = difflib.get_close_matches(str(name), _BUILDERS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise MissingDataError(f"no family {name!r}; there are {', '.join(_BUILDERS)}{hint}")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        module = _BUILDERS[name]().requires_grad_(False)
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    layer.bias.normal_(std=0.1)
        _set_batch_norms(module)
    return module


def _set_batch_norms(module: nn.Module) -> None:
    """Draw factors and offsets, and measure mean and variance on random pictures, layer after layer in one pass."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(std=0.3)
        norm.momentum = None  # the plain average of all batches
    module.eval()
    for norm in norms:
        norm.train()
    for _ in range(4):
        module(torch.randn(16, 3, 32, 32))
    for norm in norms:
        norm.momentum = 0.1
    module.eval()
