"""Three networks as people write them: functions beside layers, one ReLU for everything, views, chunks, ``+=``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainFunctional(nn.Module):
    """Functions wherever there is one; one ReLU reused, dropout, ``+=``, and a view before the classifier.

    Examples
    --------
    >>> PlainFunctional()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv3, self.relu = nn.Conv2d(16, 32, 3, padding="same"), nn.ReLU(inplace=True)
        self.fc1, self.fc2 = nn.Linear(32 * 4 * 4, 48), nn.Linear(48, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (N, 3, 32, 32) to logits (N, classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        y = F.dropout2d(self.bn2(self.conv2(x)), 0.1, training=self.training)
        y += x
        x = F.max_pool2d(self.relu(y), 2)
        x = F.avg_pool2d(F.hardswish(self.conv3(x)), 3, stride=2, padding=1)
        x = x.view(x.size(0), -1)
        x = F.dropout(self.relu(self.fc1(x)), 0.5, self.training)
        logits: Tensor = self.fc2(x)
        return logits


class PlainBranches(nn.Module):
    """Chunks that are gated and concatenated, a split, slices, padding, and a mean over height and width.

    Examples
    --------
    >>> PlainBranches()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 24, 3, stride=2), nn.Identity())
        self.value, self.narrow = nn.Conv2d(12, 12, 3, padding=1, groups=4), nn.Conv2d(24, 16, 1)
        self.norm, self.last = nn.BatchNorm2d(16), nn.Conv2d(20, 32, 1, bias=False)
        self.classify = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (N, 3, 32, 32) to logits (N, classes)."""
        x = self.stem(F.pad(x, (0, 1, 0, 1)))
        value, gate = x.chunk(2, dim=1)
        y = torch.tanh(self.value(value)) * torch.sigmoid(gate)
        x = self.norm(F.relu(self.narrow(torch.cat((y, value - y), dim=1))))
        a, b = torch.split(x, [4, 12], dim=1)
        x = torch.cat([a[:, :, ::2, ::2], F.max_pool2d(b, 2), F.avg_pool2d(a, 2)], 1)
        x = F.relu6(self.last(x)).mean((2, 3))
        logits: Tensor = self.classify(x)
        return logits


class PlainTokens(nn.Module):
    """Patches as a sequence: flatten, transpose, linear layers over (N, places, channels), a mean, softmax.

    Examples
    --------
    >>> PlainTokens()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 24, 4, stride=4)
        self.mix_places, self.mix_channels = nn.Linear(64, 64), nn.Linear(24, 24)
        self.act, self.norm, self.classify = nn.SiLU(), nn.BatchNorm1d(24), nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (N, 3, 32, 32) to probabilities (N, classes)."""
        x = self.patches(x).flatten(2)
        x = x + self.act(self.mix_places(x))
        x = x.permute(0, 2, 1)
        x = x * self.act(self.mix_channels(x)) + x
        return torch.softmax(self.classify(self.norm(x.mean(1))), dim=-1)
