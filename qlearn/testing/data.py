"""The data that calibrators see: made anew for each use, so that no check can spoil them for the next.

No value is larger than 2**7, and none but zero smaller than 2**-20:
times 2**-100 or 2**120 they are still float32 numbers, the same ones but for the exponent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from qlearn.schemes.affine import AffineScheme
from qlearn.schemes.symmetric import SymmetricScheme

if TYPE_CHECKING:
    from torch import Tensor

    from qlearn.schemes.base import Scheme

SIZE = 2048
BULK = 100_000
AFFINE8, AFFINE4 = AffineScheme(), AffineScheme(bits=4)
SYMMETRIC8, SYMMETRIC4 = SymmetricScheme(restricted=True), SymmetricScheme(bits=4, restricted=True)
MORE_SCHEMES: tuple[Scheme, ...] = (
    AffineScheme(bits=2), AffineScheme(signed=False), AffineScheme(bits=16),
    SymmetricScheme(bits=2), SymmetricScheme(), SymmetricScheme(bits=16),
)  # fmt: skip


EVERY_SCHEME: tuple[Scheme, ...] = tuple(
    scheme
    for bits in range(2, 17)
    for scheme in (
        AffineScheme(bits), AffineScheme(bits, signed=False),
        SymmetricScheme(bits), SymmetricScheme(bits, restricted=True),
    )
)  # fmt: skip
"""All formats from 2 to 16 bits."""


@dataclass(frozen=True)
class Sample:
    """A tensor with a name, and the scheme that the checks ask a range for."""

    name: str
    values: Tensor
    scheme: Scheme

    def __str__(self) -> str:
        return f"{self.name} data of shape {tuple(self.values.shape)}, {scheme_text(self.scheme)}"

    def scaled(self, factor: float) -> Sample:
        """Return the sample with all values times a factor."""
        return Sample(f"{self.name} x {factor:.6g}", self.values * factor, self.scheme)


def scheme_text(scheme: Scheme) -> str:
    """Return a scheme in a few words.

    Examples
    --------
    >>> scheme_text(AFFINE4)
    'affine, 4 bits signed'
    """
    family = "symmetric" if scheme.symmetric else "affine"
    return f"{family}, {scheme.bits} bits {'signed' if scheme.signed else 'unsigned'}"


def tidy(values: Tensor) -> Tensor:
    """Replace what is smaller than 2**-20 by zero."""
    return torch.where(values.abs() < 2.0**-20, 0.0, values)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Return normal values, the same on every machine and without a touch to the global generator.

    Examples
    --------
    >>> normal(2, 3).shape
    torch.Size([2, 3])
    """
    return tidy(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


def uniform(*shape: int, seed: int = 1) -> Tensor:
    """Return values between -1 and 1."""
    return tidy(torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2.0 - 1.0)


def samples() -> tuple[Sample, ...]:
    """Return what activations look like: bell-shaped, flat, one-sided, skewed, with an outlier, far from zero."""
    bell = normal(SIZE)
    outlier = bell.clone()
    outlier[-1] = 100.0
    return (
        Sample("normal", bell, AFFINE8),
        Sample("outlier", outlier, SYMMETRIC4),
        Sample("uniform", uniform(SIZE), AFFINE4),
        Sample("relu", normal(SIZE, seed=2).clamp(min=0.0), AFFINE8),
        Sample("negative", -normal(SIZE, seed=3).abs() - 0.5, SYMMETRIC8),
        Sample("skewed", tidy(normal(SIZE, seed=4).exp()), AFFINE4),
        Sample("far from zero", tidy(100.0 + normal(SIZE, seed=5) / 1024.0), AFFINE8),
    )


def sample(name: str) -> Sample:
    """Return one of `samples`."""
    return next(s for s in samples() if s.name == name)


def degenerate() -> tuple[Sample, ...]:
    """Return data of which nearly nothing is left: constants, zeros, one element."""
    return tuple(
        Sample(name, torch.tensor(values), scheme)
        for name, values, scheme in (
            ("all zero", [0.0] * 50, AFFINE8),
            ("one zero", [0.0], SYMMETRIC8),
            ("one positive element", [3.0], AFFINE8),
            ("one negative element", [-2.5], AFFINE4),
            ("constant", [0.7] * 50, SYMMETRIC4),
            ("negative constant", [-1e-3] * 50, AFFINE8),
            ("all positive", [5.0, 5.5, 6.0], AFFINE4),
            ("all negative", [-5.0, -5.5, -6.0], SYMMETRIC8),
            ("zero and one value", [0.0, 1.0], AFFINE8),
        )
    )


def bulk() -> Sample:
    """Return 100 000 normal values and one at 20 standard deviations."""
    values = normal(BULK + 1, seed=6)
    values[BULK // 2] = 20.0
    return Sample("normal, one value at 20 sigma", values, AFFINE4)


def channels(*shape: int, axis: int, seed: int = 7) -> Tensor:
    """Return normal values whose channels along an axis differ, in turns of five.

    Their sizes are very different; the second is all zero, the fourth is never negative, the fifth never positive.

    Examples
    --------
    >>> channels(2, 5, axis=1).abs().amax(0)[1]
    tensor(0.)
    >>> channels(2, 5, axis=1).sign()[:, 3:].tolist()
    [[1.0, -1.0], [1.0, -1.0]]
    """
    values = normal(*shape, seed=seed).movedim(axis, -1)
    kind = torch.arange(shape[axis]) % 5
    values = torch.where(kind == 3, values.abs(), torch.where(kind == 4, -values.abs(), values))
    sizes = torch.where(kind == 1, 0.0, 4.0 ** (2.0 - kind))
    return tidy(values * sizes).movedim(-1, axis).contiguous()


def scheme_for(channel_axis: int | None) -> Scheme:
    """Return the scheme to ask for where any will do: per channel one that takes no search over two ends."""
    return AFFINE8 if channel_axis is None else SYMMETRIC8


def pieces(values: Tensor, parts: int) -> tuple[Tensor, ...]:
    """Cut a tensor into uneven batches along its first axis.

    Examples
    --------
    >>> [len(piece) for piece in pieces(torch.zeros(10), 3)]
    [1, 5, 4]
    """
    return (values,) if parts == 1 else (values[:1], *torch.tensor_split(values[1:], parts - 1))
