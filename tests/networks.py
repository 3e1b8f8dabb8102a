"""Small networks with random weights that together use every operation."""

import torch
import torch.nn.functional as F
from torch import nn


class Depthwise(nn.Module):
    """MobileNet's block: asymmetric padding, depthwise, ReLU6, a pointwise convolution without bias."""

    def __init__(self, channels=6):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, stride=2, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm2 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, 10, 1, bias=False)

    def forward(self, x):
        x = F.relu6(self.norm1(self.stem(F.pad(x, (0, 1, 0, 1)))))
        x = F.relu6(self.norm2(self.depthwise(x)))
        return self.pointwise(x).mean((2, 3))


class Residual(nn.Module):
    """CIFAR ResNet's block: a shortcut of strided slices and zero channels, grouped and dilated convolutions."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 7, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(7)
        self.conv2 = nn.Conv2d(7, 7, 3, padding=2, dilation=2)
        self.head = nn.Linear(7 * 2 * 2, 5)

    def forward(self, x):
        y = self.conv2(F.relu(self.norm(self.conv1(x))))
        y = F.relu(y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
        y = F.avg_pool2d(F.max_pool2d(y, 3, stride=2, padding=1), 3, stride=2, padding=1, count_include_pad=False)
        return self.head(torch.flatten(y, 1))


class Mixed(nn.Module):
    """A table, a layer without an integer kernel, a lone ReLU after pooling, torch's default average pool."""

    def __init__(self):
        super().__init__()
        self.conv, self.act, self.pool = nn.Conv2d(3, 8, 3, groups=1), nn.SiLU(), nn.AvgPool2d(3, 2, 1)
        self.norm = nn.GroupNorm(2, 8)
        self.conv2, self.relu, self.head = nn.Conv2d(8, 8, (1, 3), groups=4), nn.ReLU(), nn.Linear(8, 4, bias=False)

    def forward(self, x):
        x = self.relu(self.pool(self.norm(self.act(self.conv(x)))))
        return self.head(F.adaptive_avg_pool2d(self.conv2(x), 1).view(x.size(0), -1))


NETWORKS = {"depthwise": Depthwise, "residual": Residual, "mixed": Mixed}


def make(name, seed=0):
    """Return a seeded network in evaluation mode, batch-norm statistics away from their defaults."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = NETWORKS[name]().eval().requires_grad_(False)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.1, 2.0, generator=generator)
            layer.weight.normal_(generator=generator)
            layer.bias.normal_(generator=generator)
    return module


def pictures(count=16, seed=1, size=15):
    """Return random inputs."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
