"""MobileNetV1 for ImageNet, and the conversion of weights that Keras saved.

Input: float32 pictures of shape (N, 3, 224, 224), normalised by ``x / 127.5 - 1``. Output: 1000 logits.

References
----------
Howard et al.: MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications, table 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

MEAN = 0.5
"""Subtracted from every colour channel, after division by 255."""

STD = 0.5
"""Every colour channel is divided by this last: together ``x / 127.5 - 1``."""

BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1)),
)
"""For each separable block: channels of the full-width network, stride."""

_EPS = 1e-3  # the default of Keras, with which the weights were trained


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU6, padded as TensorFlow does it.

    Stride 1 pads all sides alike. Stride 2 on an even size needs one row and one column; TensorFlow's SAME
    puts them at the bottom and at the right.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after.
    kernel : int
        Height and width of the kernel, 1 or 3.
    stride : int
        1 or 2.
    groups : int
        1 for a full convolution, ``in_channels`` for a depthwise one.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.pad_end = stride == 2
        padding = 0 if self.pad_end else kernel // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=_EPS)
        self.relu = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride); stride 2 needs even sizes."""
        if self.pad_end:
            x = nn.functional.pad(x, (0, 1, 0, 1))
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


class MobileNetV1(nn.Module):
    """A stem and thirteen separable blocks: filter each channel alone, then mix the channels by 1x1.

    Parameters
    ----------
    alpha : float
        Width relative to the full network: 0.25, 0.5, 0.75 or 1.
    classes : int
        Number of logits.

    Examples
    --------
    >>> import torch
    >>> MobileNetV1(alpha=0.25)(torch.zeros(1, 3, 224, 224)).shape
    torch.Size([1, 1000])
    """

    def __init__(self, alpha: float = 0.25, classes: int = 1000) -> None:
        super().__init__()
        channels = int(32 * alpha)
        self.stem = ConvBlock(3, channels, kernel=3, stride=2)
        blocks: list[nn.Module] = []
        for full_width, stride in BLOCKS:
            width = int(full_width * alpha)
            blocks.append(ConvBlock(channels, channels, kernel=3, stride=stride, groups=channels))
            blocks.append(ConvBlock(channels, width, kernel=1))
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures (N, 3, 224, 224) to logits (N, classes)."""
        x = self.blocks(self.stem(x))
        logits: Tensor = self.linear(self.flatten(self.pool(x)))
        return logits


def load_keras_mobilenet(arrays: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, Tensor]:
    """Rename and transpose the arrays of Keras' MobileNet into a state dict of `MobileNetV1`.

    Parameters
    ----------
    arrays : mapping of str to ndarray, float32
        The weights by Keras' names: ``conv1/kernel`` (3, 3, 3, C), ``conv_dw_1/depthwise_kernel``
        (3, 3, C, 1), ``conv_pw_1/kernel`` (1, 1, C, D), ``conv_pw_1_bn/gamma`` (D,), ``conv_preds/kernel``
        (1, 1, C, classes) and so on. Kernels are stored height, width, in, out.

    Returns
    -------
    dict of str to Tensor, float32
        For ``MobileNetV1(alpha).load_state_dict``, where alpha is the one of the arrays.

    Raises
    ------
    KeyError
        If an array is missing.
    """
    state = _conv_block(arrays, "conv1", "kernel", "stem")
    for index in range(len(BLOCKS)):
        depthwise, pointwise = f"blocks.{2 * index}", f"blocks.{2 * index + 1}"
        state |= _conv_block(arrays, f"conv_dw_{index + 1}", "depthwise_kernel", depthwise)
        state |= _conv_block(arrays, f"conv_pw_{index + 1}", "kernel", pointwise)
    state["linear.weight"] = _tensor(arrays["conv_preds/kernel"][0, 0].T)
    state["linear.bias"] = _tensor(arrays["conv_preds/bias"])
    return state


def _conv_block(
    arrays: Mapping[str, npt.NDArray[np.float32]], layer: str, kernel: str, target: str
) -> dict[str, Tensor]:
    """Convert one convolution with its batch norm into the state of the `ConvBlock` called ``target``."""
    axes = (2, 3, 0, 1) if kernel == "depthwise_kernel" else (3, 2, 0, 1)
    names = {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    }
    state = {f"{target}.bn.{ours}": _tensor(arrays[f"{layer}_bn/{keras}"]) for ours, keras in names.items()}
    state[f"{target}.conv.weight"] = _tensor(arrays[f"{layer}/{kernel}"].transpose(axes))
    return state


def _tensor(array: npt.NDArray[np.float32]) -> Tensor:
    """Copy an array into a contiguous float32 tensor."""
    return torch.tensor(np.ascontiguousarray(array), dtype=torch.float32)
