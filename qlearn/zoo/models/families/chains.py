"""Families whose layers follow one another: MobileNetV1, SqueezeNet, ShuffleNet, EfficientNet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qlearn.zoo.models.families.parts import classifier, conv_bn
from qlearn.zoo.models.mobilenet import ConvBlock


class SmallMobileNetV1(nn.Sequential):
    """Separable blocks: filter each channel alone, then mix the channels by 1x1, with TensorFlow's padding.

    References
    ----------
    Howard et al. 2017, table 1; the paper's §4.

    Examples
    --------
    >>> SmallMobileNetV1()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classes: int = 10) -> None:
        blocks, channels = [ConvBlock(3, 16, kernel=3, stride=2)], 16
        for width, stride in ((32, 1), (48, 2), (48, 1), (96, 2)):
            blocks += [ConvBlock(channels, channels, kernel=3, stride=stride, groups=channels)]
            blocks += [ConvBlock(channels, width, kernel=1)]
            channels = width
        super().__init__(*blocks, classifier(channels, classes))


class Fire(nn.Module):
    """SqueezeNet's module: squeeze by 1x1, expand by 1x1 and 3x3, concatenate.

    Parameters
    ----------
    in_channels, squeeze, expand : int
        Channels before, in the middle, and of each of the two branches.
    """

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, 2 expand, H, W)."""
        x = self.activation(self.squeeze(x))
        return torch.cat([self.activation(self.expand1x1(x)), self.activation(self.expand3x3(x))], 1)


class SmallSqueezeNet(nn.Sequential):
    """Fire modules between max pools; the classifier is a convolution, and there is no batch norm.

    References
    ----------
    Iandola et al. 2016.

    Examples
    --------
    >>> SmallSqueezeNet()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__(
            *(nn.Conv2d(3, 24, 3, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2)),
            *(Fire(24, 8, 24), Fire(48, 12, 32), nn.MaxPool2d(3, stride=2), Fire(64, 16, 32)),
            *(nn.Dropout(0.5), nn.Conv2d(64, classes, 1), nn.ReLU(inplace=True)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )


class ShuffleUnit(nn.Module):
    """ShuffleNet's unit: grouped 1x1, shuffle the channels, depthwise 3x3, grouped 1x1, and a shortcut.

    Parameters
    ----------
    in_channels, out_channels : int
        At stride 2 the shortcut is an average pool, concatenated; at stride 1 it is added, and both are equal.
    groups : int
    stride : int
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int, stride: int = 1) -> None:
        super().__init__()
        self.groups, self.stride = groups, stride
        branch = out_channels - in_channels if stride == 2 else out_channels
        middle = out_channels // 2
        self.reduce = conv_bn(in_channels, middle, 1, groups=groups)
        self.depthwise = conv_bn(middle, middle, 3, stride, groups=middle, activation=None)
        self.expand = conv_bn(middle, branch, 1, groups=groups, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        y = self.expand(self.depthwise(channel_shuffle(self.reduce(x), self.groups)))
        if self.stride == 2:
            return F.relu(torch.cat([F.avg_pool2d(x, 3, stride=2, padding=1), y], dim=1))
        return F.relu(x + y)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Deal the channels of each group out to all groups: view, transpose, view.

    Parameters
    ----------
    x : Tensor, shape (N, C, H, W)
    groups : int

    Examples
    --------
    >>> channel_shuffle(torch.arange(6.0).reshape(1, 6, 1, 1), 2).flatten().tolist()
    [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
    """
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).reshape(batch, channels, height, width)


class SmallShuffleNet(nn.Sequential):
    """Shuffle units in two stages.

    References
    ----------
    Zhang et al. 2017, fig. 2.

    Examples
    --------
    >>> SmallShuffleNet()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classes: int = 10, groups: int = 3) -> None:
        super().__init__(
            conv_bn(3, 24, 3, stride=2),
            *(ShuffleUnit(24, 60, groups, stride=2), ShuffleUnit(60, 60, groups)),
            *(ShuffleUnit(60, 120, groups, stride=2), ShuffleUnit(120, 120, groups)),
            classifier(120, classes),
        )


class SqueezeExcite(nn.Module):
    """Weigh the channels by what the whole picture holds: global pool, two 1x1 convolutions, sigmoid, multiply.

    Parameters
    ----------
    channels, squeezed : int
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce, self.activation = nn.Conv2d(channels, squeezed, 1), nn.SiLU(inplace=True)
        self.expand, self.gate = nn.Conv2d(squeezed, channels, 1), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape."""
        gate: Tensor = self.gate(self.expand(self.activation(self.reduce(self.pool(x)))))
        return x * gate


class MBConv(nn.Module):
    """EfficientNet's block: an inverted residual with squeeze-and-excite and SiLU.

    Parameters
    ----------
    in_channels, out_channels, stride, expansion : int
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int = 4) -> None:
        super().__init__()
        middle = in_channels * expansion
        self.expand = conv_bn(in_channels, middle, 1, activation=nn.SiLU)
        self.depthwise = conv_bn(middle, middle, 3, stride, groups=middle, activation=nn.SiLU)
        self.excite = SqueezeExcite(middle, in_channels // 4)
        self.project = conv_bn(middle, out_channels, 1, activation=None)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        y: Tensor = self.project(self.excite(self.depthwise(self.expand(x))))
        if self.residual:
            y += x
        return y


class SmallEfficientNet(nn.Sequential):
    """MBConv blocks between a stem and a 1x1 head.

    References
    ----------
    Tan and Le 2019; the paper's §4 (activation functions as look-up tables).

    Examples
    --------
    >>> SmallEfficientNet()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__(
            conv_bn(3, 16, 3, stride=2, activation=nn.SiLU),
            *(MBConv(16, 16, stride=1), MBConv(16, 24, stride=2), MBConv(24, 24, stride=1)),
            conv_bn(24, 64, 1, activation=nn.SiLU),
            classifier(64, classes),
        )
