"""The two small networks that ship with the project, trained on the digits of `qlearn.zoo.digits`.

They are written the way users write networks: plain modules, batch norm separate, no quantization in sight.
Both take float32 pictures of shape (N, 3, 32, 32), normalised by ``(x / 255 - MEAN) / STD``, and return
logits of shape (N, 10), float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

MEAN = 0.5
"""Subtracted from every colour channel, after division by 255."""

STD = 0.25
"""Every colour channel is divided by this last."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, as in ResNet-18.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after the block.
    stride : int
        Stride of the first convolution; the shortcut follows.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu2(y + self.shortcut(x))
        return out


class TinyResNet(nn.Module):
    """A residual network in three stages; the second and third halve the picture.

    Parameters
    ----------
    widths : sequence of int
        Channels of the stages.
    blocks : int
        Basic blocks in each stage.
    classes : int
        Number of logits.

    Examples
    --------
    >>> import torch
    >>> TinyResNet()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64), blocks: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        stages, channels = [], widths[0]
        for index, width in enumerate(widths):
            for block in range(blocks):
                stages.append(BasicBlock(channels, width, stride=2 if index > 0 and block == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (N, 3, 32, 32) to logits (N, classes)."""
        x = self.relu(self.bn(self.conv(x)))
        x = self.blocks(x)
        logits: Tensor = self.linear(self.flatten(self.pool(x)))
        return logits


class InvertedResidual(nn.Module):
    """The block of MobileNetV2: widen by 1x1, filter each channel alone, narrow by 1x1 without activation.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after the block. Equal, at stride 1, they get a shortcut around the block.
    stride : int
        Stride of the depthwise convolution.
    expansion : int
        How many times wider the middle is than the input.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = in_channels * expansion
        self.expand = nn.Conv2d(in_channels, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.relu1 = nn.ReLU6()
        self.depthwise = nn.Conv2d(middle, middle, 3, stride, padding=1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.relu2 = nn.ReLU6()
        self.project = nn.Conv2d(middle, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        y: Tensor = self.relu1(self.bn1(self.expand(x)))
        y = self.relu2(self.bn2(self.depthwise(y)))
        y = self.bn3(self.project(y))
        return x + y if self.residual else y


class TinyMobileNet(nn.Module):
    """A MobileNetV2 in small: a stem, inverted residual blocks, a 1x1 head.

    Parameters
    ----------
    widths : sequence of int
        Channels of the stages; each has two blocks, and every stage after the first halves the picture.
    expansion : int
        How many times wider the middle of a block is than its input.
    head : int
        Channels of the last 1x1 convolution.
    classes : int
        Number of logits.

    Examples
    --------
    >>> import torch
    >>> TinyMobileNet()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self, widths: Sequence[int] = (16, 32, 64), expansion: int = 4, head: int = 128, classes: int = 10
    ) -> None:
        super().__init__()
        self.stem = _conv_bn_relu6(3, widths[0], kernel=3, stride=2)
        blocks, channels = [], widths[0]
        for index, width in enumerate(widths):
            blocks.append(InvertedResidual(channels, width, stride=1 if index == 0 else 2, expansion=expansion))
            blocks.append(InvertedResidual(width, width, stride=1, expansion=expansion))
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = _conv_bn_relu6(channels, head, kernel=1, stride=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(head, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (N, 3, 32, 32) to logits (N, classes)."""
        x = self.head(self.blocks(self.stem(x)))
        logits: Tensor = self.linear(self.flatten(self.pool(x)))
        return logits


def _conv_bn_relu6(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    """Build convolution, batch norm and ReLU6; an odd kernel keeps the size at stride 1."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(),
    )
