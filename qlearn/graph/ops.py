"""What each operation computes, in float: one short torch function per op.

The integer kernels of ``qlearn.integer.reference`` have the same names and the same attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qlearn.graph.model import Node

Padding = tuple[int, int, int, int]
"""Rows or columns of zeros: (top, bottom, left, right)."""

WEIGHTED_OPS = ("conv2d", "linear")
"""Operations with a weight that is multiplied with what they read."""


def conv2d(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Convolution with any stride, padding, dilation and groups."""
    attrs = node.attrs
    x = pad_spatial(inputs[0], attrs["padding"])
    y = F.conv2d(
        x,
        node.params["weight"],
        node.params.get("bias"),
        stride=attrs["stride"],
        dilation=attrs["dilation"],
        groups=attrs["groups"],
    )
    return _clamped(y, node)


def linear(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Fully connected layer over the last axis."""
    return _clamped(F.linear(inputs[0], node.params["weight"], node.params.get("bias")), node)


def batch_norm(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Batch normalization with its running statistics (paper eq. 5)."""
    p = node.params
    return F.batch_norm(
        inputs[0], p["running_mean"], p["running_var"], p["weight"], p["bias"], eps=float(node.attrs["eps"])
    )


def clamp(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """ReLU is clamp(0, inf), ReLU6 is clamp(0, 6); equalized, each channel has limits of its own."""
    return torch.clamp(inputs[0], *_limits(node, inputs[0]))


def add(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Sum of two tensors of one shape: the residual connection."""
    return _clamped(inputs[0] + inputs[1], node)


def subtract(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Difference of two tensors of one shape."""
    return inputs[0] - inputs[1]


def multiply(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Product of two tensors; a (N, C, 1, 1) tensor scales channels, as squeeze-and-excite does."""
    return inputs[0] * inputs[1]


def concat(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Tensors one behind the other along an axis."""
    return torch.cat(list(inputs), dim=node.attrs["axis"])


def unary(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """A function of one number, by name; on 8 bits a table (paper §4)."""
    return UNARY[node.attrs["function"]](inputs[0])


def softmax(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Softmax over the last axis."""
    return torch.softmax(inputs[0] * float(node.attrs["beta"]), dim=-1)


def avg_pool2d(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Mean over a window; padding counts only if ``count_include_pad``."""
    attrs = node.attrs
    return F.avg_pool2d(
        inputs[0], attrs["kernel"], attrs["stride"], attrs["padding"], count_include_pad=attrs["count_include_pad"]
    )


def max_pool2d(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Largest value of a window; padding never wins."""
    return F.max_pool2d(inputs[0], node.attrs["kernel"], node.attrs["stride"], node.attrs["padding"])


def global_avg_pool(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Mean over height and width."""
    return inputs[0].mean(dim=(2, 3), keepdim=bool(node.attrs["keepdim"]))


def mean(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Mean over some axes, never over the batch."""
    return inputs[0].mean(dim=node.attrs["axes"], keepdim=bool(node.attrs["keepdim"]))


def flatten(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """One row per picture."""
    return inputs[0].flatten(1)


def reshape(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """The same values in another shape; the batch stays."""
    return inputs[0].reshape(inputs[0].shape[0], *node.attrs["shape"])


def transpose(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """The axes in another order; the batch stays the first."""
    return inputs[0].permute(node.attrs["axes"])


def strided_slice(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Every step-th element of a window: ``x[:, :, ::2, ::2]``."""
    return inputs[0][tuple(slice(*bounds) for bounds in node.attrs["slices"])]


def pad(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """Zeros before and after along each axis, channels included."""
    flat = [amount for before_after in reversed(node.attrs["amounts"]) for amount in before_after]
    return F.pad(inputs[0], flat)


def float_layer(node: Node, inputs: Sequence[Tensor]) -> Tensor:
    """A layer without an integer kernel, as the user wrote it (paper §7.1, float fallback)."""
    function: Callable[..., Tensor] = node.attrs["function"]
    return function(*inputs)


UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "hard_swish": F.hardswish,
    "hard_sigmoid": F.hardsigmoid,
}
"""The functions that a ``unary`` node may name; `qlearn.integer.tables` has the same."""

FLOAT_OPS: dict[str, Callable[[Node, Sequence[Tensor]], Tensor]] = {
    "conv2d": conv2d,
    "linear": linear,
    "batch_norm": batch_norm,
    "clamp": clamp,
    "add": add,
    "subtract": subtract,
    "multiply": multiply,
    "concat": concat,
    "unary": unary,
    "softmax": softmax,
    "avg_pool2d": avg_pool2d,
    "max_pool2d": max_pool2d,
    "global_avg_pool": global_avg_pool,
    "mean": mean,
    "flatten": flatten,
    "reshape": reshape,
    "transpose": transpose,
    "slice": strided_slice,
    "pad": pad,
    "float": float_layer,
}


def pad_spatial(x: Tensor, padding: Padding) -> Tensor:
    """Pad height and width with zeros."""
    top, bottom, left, right = padding
    return F.pad(x, (left, right, top, bottom)) if any(padding) else x


def channel_axis(ndim: int) -> int:
    """Return the axis of the channels: 1 of (N, C, H, W), the last of (N, C) and (N, L, C)."""
    return 1 if ndim == 4 else -1


def channel_rows(value: Tensor) -> Tensor:
    """Lay a value out as one row per channel, shape (C, everything else), whatever its layout.

    Examples
    --------
    >>> channel_rows(torch.arange(8).reshape(1, 2, 2, 2)).tolist()
    [[0, 1, 2, 3], [4, 5, 6, 7]]
    >>> channel_rows(torch.tensor([[1, 2], [3, 4]])).tolist()
    [[1, 3], [2, 4]]
    """
    return value.movedim(channel_axis(value.ndim), 0).flatten(1)


def along_channels(values: Tensor, ndim: int) -> Tensor:
    """Reshape one number per channel, shape (C,), so that it broadcasts over a value with `ndim` axes."""
    shape = [1] * ndim
    shape[channel_axis(ndim)] = -1
    return values.reshape(shape)


def _clamped(y: Tensor, node: Node) -> Tensor:
    """Apply the fused clamp to a tensor that the caller has just made: in place, which saves a copy of it."""
    return y if node.attrs.get("clamp") is None else y.clamp_(*_limits(node, y))


def _limits(node: Node, y: Tensor) -> tuple[Any, Any]:
    """The ends of a clamp: two numbers, or two tensors that broadcast over y."""
    low, high = node.attrs["clamp"]
    if not isinstance(low, Tensor) and not isinstance(high, Tensor):
        return low, high
    low, high = (along_channels(torch.as_tensor(end, dtype=y.dtype).reshape(-1), y.ndim) for end in (low, high))
    return low, high
