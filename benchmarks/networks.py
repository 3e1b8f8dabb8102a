"""Known networks for 224 x 224 pictures, random weights, no batch norm, as after folding."""

import torch
import torch.nn.functional as F
from torch import nn


def conv(inputs, outputs, kernel=1, stride=1, groups=1):
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)


class Basic(nn.Module):
    """ResNet's block of two 3 x 3 convolutions."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.conv2 = conv(inputs, outputs, 3, stride), conv(outputs, outputs, 3)
        self.shortcut = nn.Identity() if stride == 1 else conv(inputs, outputs, 1, stride)

    def forward(self, x):
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))


class ResNet18(nn.Module):
    """He et al. 2016."""

    def __init__(self):
        super().__init__()
        self.stem, blocks, inputs = conv(3, 64, 7, 2), [], 64
        for outputs in (64, 128, 256, 512):
            blocks += [Basic(inputs, outputs, 1 if outputs == 64 else 2), Basic(outputs, outputs, 1)]
            inputs = outputs
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(512, 1000)

    def forward(self, x):
        x = self.blocks(F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1))
        return self.head(x.mean((2, 3)))


class Bottleneck(nn.Module):
    """ResNet's block of a narrow 3 x 3 convolution between two of 1 x 1."""

    def __init__(self, inputs, inner, stride):
        super().__init__()
        outputs = 4 * inner
        self.conv1, self.conv2, self.conv3 = conv(inputs, inner), conv(inner, inner, 3, stride), conv(inner, outputs)
        self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else conv(inputs, outputs, 1, stride)

    def forward(self, x):
        y = F.relu(self.conv2(F.relu(self.conv1(x))))
        return F.relu(self.conv3(y) + self.shortcut(x))


class ResNet50(nn.Module):
    """He et al. 2016, with the stride at the 3 x 3 convolution."""

    def __init__(self):
        super().__init__()
        self.stem, blocks, inputs = conv(3, 64, 7, 2), [], 64
        for inner, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for number in range(count):
                blocks.append(Bottleneck(inputs, inner, stride if number == 0 else 1))
                inputs = 4 * inner
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(2048, 1000)

    def forward(self, x):
        x = self.blocks(F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1))
        return self.head(x.mean((2, 3)))


class Inverted(nn.Module):
    """MobileNetV2's block: wide inside, narrow outside."""

    def __init__(self, inputs, outputs, stride, times):
        super().__init__()
        inner = inputs * times
        self.expand = conv(inputs, inner) if times > 1 else None
        self.depthwise, self.project = conv(inner, inner, 3, stride, inner), conv(inner, outputs)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """Sandler et al. 2018."""

    def __init__(self):
        super().__init__()
        self.stem, blocks, inputs = conv(3, 32, 3, 2), [], 32
        for times, outputs, count, stride in (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
        ):  # fmt: skip
            for number in range(count):
                blocks.append(Inverted(inputs, outputs, stride if number == 0 else 1, times))
                inputs = outputs
        self.blocks, self.last, self.head = nn.Sequential(*blocks), conv(320, 1280), nn.Linear(1280, 1000)

    def forward(self, x):
        return self.head(F.relu6(self.last(self.blocks(F.relu6(self.stem(x))))).mean((2, 3)))


class Excited(nn.Module):
    """EfficientNet's block: MobileNetV2's with SiLU, and channels weighed by what the whole picture holds."""

    def __init__(self, inputs, outputs, kernel, stride, times):
        super().__init__()
        inner = inputs * times
        self.expand = conv(inputs, inner) if times > 1 else None
        self.depthwise, self.project = conv(inner, inner, kernel, stride, inner), conv(inner, outputs)
        self.squeeze, self.excite = conv(inner, inputs // 4), conv(inputs // 4, inner)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        y = x if self.expand is None else F.silu(self.expand(x))
        y = F.silu(self.depthwise(y))
        gate = self.excite(F.silu(self.squeeze(y.mean((2, 3), keepdim=True))))
        y = self.project(y * torch.sigmoid(gate))
        return x + y if self.residual else y


class EfficientNetB0(nn.Module):
    """Tan and Le 2019."""

    def __init__(self):
        super().__init__()
        self.stem, blocks, inputs = conv(3, 32, 3, 2), [], 32
        for times, outputs, count, stride, kernel in (
            (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5),
            (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
        ):  # fmt: skip
            for number in range(count):
                blocks.append(Excited(inputs, outputs, kernel, stride if number == 0 else 1, times))
                inputs = outputs
        self.blocks, self.last, self.head = nn.Sequential(*blocks), conv(320, 1280), nn.Linear(1280, 1000)

    def forward(self, x):
        return self.head(F.silu(self.last(self.blocks(F.silu(self.stem(x))))).mean((2, 3)))


class MobileNetV1(nn.Module):
    """Howard et al. 2017, a quarter as wide."""

    def __init__(self):
        super().__init__()
        layers, inputs = [conv(3, 8, 3, 2), nn.ReLU6()], 8
        for outputs, stride in (
            (16, 1),
            (32, 2),
            (32, 1),
            (64, 2),
            (64, 1),
            (128, 2),
            *[(128, 1)] * 5,
            (256, 2),
            (256, 1),
        ):
            layers += [conv(inputs, inputs, 3, stride, inputs), nn.ReLU6(), conv(inputs, outputs), nn.ReLU6()]
            inputs = outputs
        self.features, self.head = nn.Sequential(*layers), nn.Linear(256, 1000)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


NETWORKS = {
    "ResNet-18": ResNet18,
    "ResNet-50": ResNet50,
    "MobileNetV2": MobileNetV2,
    "EfficientNet-B0": EfficientNetB0,
    "MobileNetV1 0.25": MobileNetV1,
}


def make(name, seed=0):
    """Return a network in evaluation mode; the variance of its activations neither vanishes nor grows."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = NETWORKS[name]().eval().requires_grad_(False)
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.normal_(layer.bias, std=0.1)
        for block in network.modules():  # the branch that a shortcut adds to
            if isinstance(block, Basic):
                block.conv2.weight.mul_(0.3)
            elif isinstance(block, Bottleneck):
                block.conv3.weight.mul_(0.3)
            elif isinstance(block, Inverted | Excited):
                block.project.weight.mul_(0.5)
    return network
