"""What several families are built from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Build convolution, batch norm and activation; an odd kernel keeps the size at stride 1.

    Examples
    --------
    >>> [type(layer).__name__ for layer in conv_bn(3, 8, 3, activation=nn.SiLU)]
    ['Conv2d', 'BatchNorm2d', 'SiLU']
    """
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
    ]
    return nn.Sequential(*layers, *([] if activation is None else [activation()]))


def classifier(channels: int, classes: int) -> nn.Sequential:
    """Build global average pooling, flatten and a linear layer.

    Examples
    --------
    >>> [type(layer).__name__ for layer in classifier(8, 10)]
    ['AdaptiveAvgPool2d', 'Flatten', 'Linear']
    """
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
