"""Families whose layers meet again: pre-activation ResNet, DenseNet, Inception, NASNet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qlearn.zoo.models.families.parts import classifier, conv_bn


class PreActivationBlock(nn.Module):
    """ResNet v2: batch norm and ReLU come before each convolution, and nothing comes after the sum.

    No convolution stands before these batch norms, so that they cannot be folded the usual way.

    Parameters
    ----------
    in_channels, out_channels, stride : int
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1, self.relu = nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.projection: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        y = self.relu(self.bn1(x))
        shortcut = x if self.projection is None else self.projection(y)
        y = self.conv2(self.relu(self.bn2(self.conv1(y))))
        total: Tensor = y + shortcut
        return total


class SmallResNetV2(nn.Sequential):
    """Pre-activation blocks in three stages, and a last batch norm before the classifier.

    References
    ----------
    He et al. 2016, Identity Mappings in Deep Residual Networks, fig. 4e.

    Examples
    --------
    >>> SmallResNetV2()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            *(PreActivationBlock(8, 8), PreActivationBlock(8, 16, stride=2), PreActivationBlock(16, 32, stride=2)),
            *(nn.BatchNorm2d(32), nn.ReLU(inplace=True), classifier(32, classes)),
        )


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 1x1, batch norm, ReLU, 3x3; the input is concatenated to the result.

    Parameters
    ----------
    in_channels, growth : int
    """

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(in_channels), nn.Conv2d(in_channels, 2 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(2 * growth), nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, in_channels + growth, H, W)."""
        y = self.conv1(F.relu(self.norm1(x)))
        y = self.conv2(F.relu(self.norm2(y)))
        return torch.cat((x, y), 1)


class SmallDenseNet(nn.Sequential):
    """Two dense blocks of three layers with a transition between them.

    References
    ----------
    Huang et al. 2017.

    Examples
    --------
    >>> SmallDenseNet()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classes: int = 10, growth: int = 8) -> None:
        first = [DenseLayer(16 + i * growth, growth) for i in range(3)]
        width = 16 + 3 * growth
        transition = (nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 20, 1, bias=False), nn.AvgPool2d(2))
        second = [DenseLayer(20 + i * growth, growth) for i in range(3)]
        width = 20 + 3 * growth
        super().__init__(
            *(conv_bn(3, 16, 3, stride=2), *first, *transition, *second),
            *(nn.BatchNorm2d(width), nn.ReLU(), classifier(width, classes)),
        )


class InceptionBlock(nn.Module):
    """Four branches, concatenated: 1x1; 1x1 and 3x3; 1x1 and 1x5 and 5x1; max pool and 1x1.

    Parameters
    ----------
    in_channels : int
    width : int
        Channels of each branch.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.one = conv_bn(in_channels, width, 1)
        self.three = nn.Sequential(conv_bn(in_channels, width // 2, 1), conv_bn(width // 2, width, 3))
        self.five = nn.Sequential(
            conv_bn(in_channels, width // 2, 1),
            nn.Conv2d(width // 2, width // 2, (1, 5), padding=(0, 2)),
            nn.Conv2d(width // 2, width, (5, 1), padding=(2, 0), bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv_bn(in_channels, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, 4 width, H, W)."""
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1)


class SmallInception(nn.Sequential):
    """Two Inception blocks with a max pool between them.

    References
    ----------
    Szegedy et al. 2015 and 2016.

    Examples
    --------
    >>> SmallInception()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__(
            *(conv_bn(3, 16, 3, stride=2), InceptionBlock(16, 12), nn.MaxPool2d(3, stride=2)),
            *(InceptionBlock(48, 16), classifier(64, classes)),
        )


class Separable(nn.Sequential):
    """NASNet's separable convolution: ReLU, depthwise, 1x1, batch norm, and all of it once more.

    Parameters
    ----------
    channels, kernel : int
    """

    def __init__(self, channels: int, kernel: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [
                nn.ReLU(),
                nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False),
                nn.Conv2d(channels, channels, 1, bias=False),
                nn.BatchNorm2d(channels),
            ]
        super().__init__(*layers)


class NasNetCell(nn.Module):
    """The normal cell of NASNet-A: five sums of two branches, concatenated with the cell before the last.

    Parameters
    ----------
    before, last : int
        Channels of the two cells whose outputs it reads.
    channels : int
        Channels of each branch.
    """

    def __init__(self, before: int, last: int, channels: int) -> None:
        super().__init__()
        self.adjust_before = nn.Sequential(nn.ReLU(), conv_bn(before, channels, 1, activation=None))
        self.adjust_last = nn.Sequential(nn.ReLU(), conv_bn(last, channels, 1, activation=None))
        self.last3, self.last5 = Separable(channels, 3), Separable(channels, 5)
        self.before3, self.before5, self.before3b = (Separable(channels, kernel) for kernel in (3, 5, 3))
        self.pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        """Map (N, before, H, W) and (N, last, H, W) to (N, 6 channels, H, W)."""
        p, h = self.adjust_before(before), self.adjust_last(last)
        sums = [
            self.last3(h) + h,
            self.before3(p) + self.last5(h),
            self.pool(h) + p,
            self.pool(p) + self.pool(p),
            self.before5(p) + self.before3b(p),
        ]
        return torch.cat([p, *sums], dim=1)


class SmallNasNet(nn.Module):
    """Two normal cells of NASNet-A behind a stem.

    References
    ----------
    Zoph et al. 2018, fig. 4.

    Examples
    --------
    >>> SmallNasNet()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16, 3, stride=2, activation=None)
        self.reduce = nn.MaxPool2d(2)
        self.first, self.second = NasNetCell(16, 16, 8), NasNetCell(16, 48, 12)
        self.head = nn.Sequential(nn.ReLU(), classifier(72, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (N, 3, 32, 32) to logits (N, classes)."""
        stem = self.reduce(self.stem(x))
        logits: Tensor = self.head(self.second(stem, self.first(stem, stem)))
        return logits
