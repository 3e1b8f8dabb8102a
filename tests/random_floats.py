"""Seeded random float networks with everything that scaling channels must get right: what passes are tried on."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import qlearn as ql

SIZE = 9


class RandomNet(nn.Module):
    """A chain of random steps, with sums, concatenations and shortcuts between them."""

    def __init__(self, seed, steps=7):
        super().__init__()
        self.rng = np.random.default_rng(seed)
        self.layers = nn.ModuleList()
        self.plan = []
        channels, size = 3, SIZE
        for _ in range(steps):
            channels, size = self._grow(channels, size)
        flat = bool(self.rng.random() < 0.5)
        self.plan.append(("flatten" if flat else "mean", None))
        self.head = nn.Linear(channels * size * size if flat else channels, 5)
        self._randomize()

    def _grow(self, channels, size):
        kind = str(self.rng.choice(["dense", "dense", "depthwise", "grouped", "residual", "concat", "pool", "pad"]))
        if kind in ("dense", "depthwise", "grouped", "residual", "concat"):
            groups = {"depthwise": channels, "grouped": 2 if channels % 2 == 0 else 1}.get(kind, 1)
            same = kind in ("residual", "concat")
            outputs = channels if same else groups * int(self.rng.integers(1, 4))
            kernel = int(self.rng.choice([1, 3])) if size >= 3 else 1
            padding = kernel // 2 if same or self.rng.random() < 0.7 or size <= kernel else 0
            conv = nn.Conv2d(channels, outputs, kernel, 1, padding, groups=groups, bias=bool(self.rng.random() < 0.5))
            norm = nn.BatchNorm2d(outputs, eps=1e-3) if self.rng.random() < 0.7 else nn.Identity()
            names = ["relu", "relu", "relu6", "relu6", "none", "silu", "hardtanh"]
            self.plan.append((kind, (len(self.layers), str(self.rng.choice(names)))))
            self.layers.append(nn.Sequential(conv, norm))
            return (channels + outputs if kind == "concat" else outputs), size + 2 * padding - kernel + 1
        if kind == "pool" and size >= 4:
            name = str(self.rng.choice(["max", "avg", "avg padded"]))
            self.plan.append(("pool", name))
            return channels, size // 2 + (name == "avg padded")
        self.plan.append(("pad", None))
        return channels, size + 1

    def _randomize(self):
        generator = torch.Generator().manual_seed(int(self.rng.integers(2**31)))
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(generator=generator)
                layer.running_var.uniform_(0.1, 4.0, generator=generator)
                layer.weight.data.normal_(generator=generator)
                layer.bias.data.normal_(std=2.0, generator=generator)
            if isinstance(layer, nn.Conv2d):
                spread = torch.exp(torch.randn(layer.weight.shape[0], 1, 1, 1, generator=generator) * 1.5)
                layer.weight.data.normal_(generator=generator).mul_(spread / layer.weight[0].numel() ** 0.5)
        self.requires_grad_(False)
        for layer in self.layers:
            if self.rng.random() < 0.5:  # a dead channel
                layer[0].weight[int(self.rng.integers(len(layer[0].weight)))] = 0.0

    def forward(self, x):
        for kind, detail in self.plan:
            if kind in ("dense", "depthwise", "grouped", "residual", "concat"):
                y = _activate(self.layers[detail[0]](x), detail[1])
                x = F.relu(x + y) if kind == "residual" else torch.cat([x, y], 1) if kind == "concat" else y
            elif kind == "pool":
                x = _pool(x, detail)
            elif kind == "pad":
                x = F.pad(x, (0, 1, 0, 1))
            else:
                x = x.flatten(1) if kind == "flatten" else x.mean((2, 3))
        return self.head(x)


def _activate(x, name):
    if name == "relu":
        return F.relu(x)
    if name == "relu6":
        return F.relu6(x)
    if name == "silu":
        return F.silu(x)
    return F.hardtanh(x, -0.5, 3.0) if name == "hardtanh" else x


def _pool(x, name):
    if name == "max":
        return F.max_pool2d(x, 2)
    return F.avg_pool2d(x, 2) if name == "avg" else F.avg_pool2d(x, 2, padding=1)


def random_float_model(seed, steps=7):
    """Return a traced, folded network and pictures for it."""
    module = RandomNet(seed, steps).eval()
    x = torch.randn(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) * 2
    return ql.fold_batch_norm(ql.trace(module, x[:1], name=f"random {seed}")), x
