"""The distributions that calibrators are tried on, in batches as they would arrive."""

import torch

N = 20_000
BITS = [2, 3, 4, 6, 8]


def _late_outliers(x):
    """20 outliers that arrive in the last batch."""
    x[-20:] = torch.linspace(15.0, 30.0, 20) * torch.tensor([1.0, -1.0]).repeat(10)
    return x


def _normal(seed=0):
    return torch.randn(N, generator=torch.Generator().manual_seed(seed))


def _laplace():
    u = torch.rand(N, generator=torch.Generator().manual_seed(1)) - 0.5
    return -torch.sign(u) * torch.log1p(-2 * u.abs().clamp(max=0.499999))


SHAPES = {
    "normal": _normal,
    "laplace": _laplace,
    "relu": lambda: _normal().relu(),
    "late outliers": lambda: _late_outliers(_normal()),
    "relu6": lambda: (_normal() * 4).clamp(0.0, 6.0),
    "silu": lambda: torch.nn.functional.silu(_normal() * 3),
    "constant": lambda: torch.full((500,), 0.7),
    "all negative": lambda: -_normal().abs() - 0.5,
    "one value": lambda: torch.tensor([-2.5]),
    "tiny": lambda: _normal() * 1e-38,
    "huge": lambda: _normal().clamp(-3, 3) * 1e38,
}


def batches(name, size=1000):
    return list(SHAPES[name]().split(size))
