"""The residual networks of He et al. (2015) for CIFAR-10, named so that published weights fit.

Input: float32 pictures of shape (N, 3, 32, 32), normalised by ``(x / 255 - MEAN) / STD`` per colour channel.

References
----------
He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, §4.2.
"""

from __future__ import annotations

from torch import Tensor, nn

MEAN = (0.485, 0.456, 0.406)
"""Subtracted from red, green and blue, after division by 255."""

STD = (0.229, 0.224, 0.225)
"""Red, green and blue are divided by this last."""


class PadShortcut(nn.Module):
    """A shortcut without weights: take every second row and column, pad the channels with zeros.

    Parameters
    ----------
    extra : int
        Zero channels in front, and as many behind.
    """

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C + 2 * extra, H / 2, W / 2)."""
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))


class CifarBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut that has no weights.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after the block.
    stride : int
        Stride of the first convolution: 1, or 2 where the channels double.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.shortcut = PadShortcut((out_channels - in_channels) // 2)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu2(y + self.shortcut(x))
        return out


class CifarResNet(nn.Module):
    """ResNet-20, 32, 44, 56 and so on: three stages of 16, 32 and 64 channels.

    Parameters
    ----------
    depth : int
        Layers with weights: ``6 n + 2``, where n is the number of blocks in each stage.
    classes : int
        Number of logits.

    Raises
    ------
    ValueError
        If ``depth`` is not ``6 n + 2`` with n at least 1.

    Examples
    --------
    >>> import torch
    >>> CifarResNet(20)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, depth: int = 20, classes: int = 10) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 8, 14, 20 and so on (6 n + 2), got {depth}")
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (N, 3, 32, 32) to logits (N, classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(self.flatten(self.pool(x)))
        return logits


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    """Build the blocks of one stage; the first one changes the shape."""
    rest = (CifarBlock(out_channels, out_channels, stride=1) for _ in range(blocks - 1))
    return nn.Sequential(CifarBlock(in_channels, out_channels, stride), *rest)
