"""Sums of products in torch, exact: oneDNN's int8 convolution where it proves itself, a float convolution elsewhere.

Sums of integers are exact in float32 while they stay below 2**24, and in float64 below 2**53.
oneDNN adds the products in int32, converts their sum to float32 and adds the bias, which is exact up to 2**24 as well.
A sum beyond that is rounded. That does no harm in two cases: it saturates the output by far; or the requantization
begins with rounding to float32, and products and bias, each exact in float32, were rounded once, in their sum.

The int8 convolution is not a public function of torch, and on processors without dot products of bytes (VNNI, AMX)
it saturates pairs of products at int16. So each layer is tried on a picture of its own shape, with its own weights
and the inputs that saturate first, before it is used; a single wrong sum, or an error, and the float convolution runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from qlearn.integer.torch_values import is_byte, offset

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from qlearn.numbers.qparams import QParams

EXACT_IN_FLOAT32 = 2**24
FAR_BEYOND = 1024
"""Output steps at which every 8-bit output is saturated, whatever is added and however it is rounded."""


@dataclass(frozen=True)
class Window:
    """How the kernel moves: stride and dilation (rows, columns), padding (top, bottom, left, right), groups."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, ...] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


class Products:
    """Bias + Σ (q_w - Z_w) (q_x - Z_x) for every output: the accumulator of a convolution, as float numbers.

    Parameters
    ----------
    weight : int64 array, shape (O, C / groups, KH, KW)
        Z_w already subtracted.
    bias : int64 array, shape (O,)
    x : QParams
        Of the input.
    window : Window
    rounded : bool
        Whether the requantization begins with rounding to float32.
    steps : float64 array, shape (O,)
        Output steps per unit of the accumulator: S_x S_w / S_y. 0 where the output has more than 8 bits.
    """

    def __init__(
        self,
        weight: NDArray[Any],
        bias: NDArray[Any],
        x: QParams,
        window: Window,
        *,
        rounded: bool = False,
        steps: float | NDArray[np.float64] = 0.0,
    ) -> None:
        zero = int(x.zero_point)
        farthest = max(x.qmax - zero, zero - x.qmin)
        products = np.abs(weight).reshape(len(weight), -1).sum(axis=1) * farthest
        self.bound = products + np.abs(bias)
        self.weight, self.bias, self.window = weight, bias, window
        self.zero = zero + offset(x)
        self.dtype = torch.float32 if self.bound.max(initial=0) <= EXACT_IN_FLOAT32 else torch.float64
        bytes_only = is_byte(x) and weight.min(initial=0) >= -128 and weight.max(initial=0) <= 127
        saturated = steps * (EXACT_IN_FLOAT32 - np.abs(bias)) >= FAR_BEYOND
        once = rounded & (products <= EXACT_IN_FLOAT32) & (bias.astype(np.float32) == bias)
        self._may_pack = bool(bytes_only and ((self.bound <= EXACT_IN_FLOAT32) | saturated | once).all())
        self._packed: PackedConvolution | None = None
        self._tried = False
        self._float: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the sums for kept codes (N, C, H, W): float32 or float64, a tensor of its own."""
        if not self._tried:
            self._packed = self._try_to_pack(x.shape) if self._may_pack else None
            self._tried = True
        return self.in_float(x) if self._packed is None else self._packed(x)

    @property
    def packed(self) -> bool:
        """Whether the int8 convolution computes them."""
        return self._packed is not None

    def in_float(self, x: Tensor, *, bias: bool = True) -> Tensor:
        """Return the sums by a float convolution whose every partial sum is exact."""
        if self._float is None:
            self._float = (torch.from_numpy(self.weight).to(self.dtype), torch.from_numpy(self.bias).to(self.dtype))
        weight, constant = self._float
        top, bottom, left, right = self.window.padding
        centred = F.pad(x.to(self.dtype) - self.zero, (left, right, top, bottom))
        w = self.window
        return F.conv2d(centred, weight, constant if bias else None, w.stride, 0, w.dilation, w.groups)

    def _try_to_pack(self, shape: torch.Size) -> PackedConvolution | None:
        try:
            packed = PackedConvolution(self.weight, self.bias, self.zero, self.window, shape)
            bias = torch.from_numpy(self.bias).float().reshape(1, -1, 1, 1)
            for x in _trials(shape):
                if not torch.equal(packed(x), self.in_float(x, bias=False).float() + bias):
                    return None
        except Exception:  # an operator of another torch: whatever it objects to, the float convolution is exact
            return None
        return packed


class PackedConvolution:
    """oneDNN's convolution of uint8 with int8, weights packed; scales of 1 make its output the sum itself."""

    def __init__(self, weight: NDArray[Any], bias: NDArray[Any], zero: int, window: Window, shape: torch.Size) -> None:
        top, bottom, left, right = window.padding
        self.sides = None if (top, left) == (bottom, right) else (left, right, top, bottom)
        self.padding = [top, left] if self.sides is None else [0, 0]
        self.window, self.zero, outputs = window, zero, len(weight)
        self.ones, self.zeros = torch.ones(outputs), torch.zeros(outputs, dtype=torch.int64)
        self.bias = torch.from_numpy(bias).float()
        rows, columns = shape[2], shape[3]
        if self.sides is not None:
            rows, columns = rows + top + bottom, columns + left + right
        self.weight = torch.ops.onednn.qconv_prepack(
            torch.from_numpy(weight.astype(np.int8)), self.ones, 1.0, zero,
            list(window.stride), self.padding, list(window.dilation), window.groups, [1, shape[1], rows, columns],
        )  # fmt: skip

    def __call__(self, x: Tensor) -> Tensor:
        """Return the sums in float32."""
        if self.sides is not None:
            x = F.pad(x, self.sides, value=self.zero)
        w = self.window
        result: Tensor = torch.ops.onednn.qconv_pointwise(
            x, 1.0, self.zero, self.weight, self.ones, self.zeros, self.bias,
            list(w.stride), self.padding, list(w.dilation), w.groups, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return result


def _trials(shape: torch.Size) -> list[Tensor]:
    """Inputs that go wrong first: the largest byte everywhere, the smallest and the largest at random, any byte."""
    generator = torch.Generator().manual_seed(0)
    size = (1, *shape[1:])
    some = torch.randint(0, 2, size, dtype=torch.uint8, generator=generator) * 255
    any_byte = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    largest = torch.full(size, 255, dtype=torch.uint8)
    return [x.contiguous(memory_format=torch.channels_last) for x in (largest, some, any_byte)]
