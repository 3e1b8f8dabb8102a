"""Quantize, dequantize, fake quantize: the paper's eq. 1 and 2 on torch tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from qlearn.errors import NumbersError
from qlearn.numbers.qparams import along_axis
from qlearn.numbers.straight_through import Grid, straight_through

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    from qlearn.numbers.qparams import QParams

_TORCH_DTYPES = {"int8": torch.int8, "uint8": torch.uint8, "int16": torch.int16, "int32": torch.int32}


def quantize(x: Tensor | ArrayLike, qparams: QParams) -> Tensor:
    """Map real numbers to integers: q = clamp(round(x / S) + Z, qmin, qmax).

    This is eq. 1 with two changes that every runtime makes.
    The result is clamped to [qmin, qmax], which the paper leaves out.
    And the zero point is added after rounding, not before:
    ties round half to even, so with an odd Z the paper's order moves them to the other neighbour.
    The division is a multiplication with the float32 reciprocal of S, as in torch and XNNPACK.

    Parameters
    ----------
    x : Tensor or array_like, any shape, floating point
        Real values; computed in float32. Infinities saturate.
    qparams : QParams
        Per tensor, or per channel along ``qparams.axis``.

    Returns
    -------
    Tensor
        Shape of x, dtype ``qparams.dtype`` (int8 for [-128, 127]).

    Raises
    ------
    NumbersError
        If x holds NaN, is not floating point, or has another number of channels than qparams.

    References
    ----------
    Paper §2, eq. 1.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> qp = QParams(scale=0.5, zero_point=-1, qmin=-4, qmax=3)
    >>> quantize([-9.0, -0.6, 0.0, 0.25, 0.75, 9.0], qp)       # ties: 0.25 goes to 0, 0.75 to 2 steps
    tensor([-4, -2, -1, -1,  1,  3], dtype=torch.int8)
    """
    values = _as_float(x)
    if torch.isnan(values).any():
        raise NumbersError("quantize: x holds NaN, and no integer stands for it")
    codes = _codes(values, qparams)
    return codes.to(_TORCH_DTYPES[qparams.dtype.name])


def dequantize(q: Tensor | ArrayLike, qparams: QParams) -> Tensor:
    """Map integers back to real numbers: x = S * (q - Z), in float32.

    Parameters
    ----------
    q : Tensor or array_like, any shape, integers
    qparams : QParams

    Returns
    -------
    Tensor
        float32, shape of q.

    References
    ----------
    Paper §2, eq. 2.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> dequantize([-4, -1, 3], QParams(scale=0.5, zero_point=-1, qmin=-4, qmax=3))
    tensor([-1.5000,  0.0000,  2.0000])
    """
    codes = torch.as_tensor(np.asarray(q) if not isinstance(q, torch.Tensor) else q)
    if codes.is_floating_point():
        raise NumbersError(f"dequantize: q must hold integers, got {codes.dtype}")
    scale, zero_point = _parameters(qparams, codes)
    return (codes.to(torch.float32) - zero_point) * scale


def fake_quantize(x: Tensor | ArrayLike, qparams: QParams) -> Tensor:
    """Quantize and dequantize at once: what is left of x after a trip through the integers.

    The result is float32 and lies on the grid S * (q - Z).
    The values equal ``torch.fake_quantize_per_tensor_affine`` bit for bit.
    A gradient passes straight through, except where a value is clipped.

    Parameters
    ----------
    x : Tensor or array_like, any shape, floating point
        Infinities saturate; NaN stays NaN.
    qparams : QParams
        To learn the scale, see `fake_quantize_learned`.

    Returns
    -------
    Tensor
        float32, shape of x.

    References
    ----------
    Paper §2, eq. 1 and 2; §8.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> fake_quantize([-9.0, -0.6, 0.0, 0.3], QParams(scale=0.5, zero_point=-1, qmin=-4, qmax=3))
    tensor([-1.5000, -0.5000,  0.0000,  0.5000])
    """
    values = _as_float(x)
    _check_channels(qparams, values)
    scale = torch.tensor(qparams.scale, device=values.device)
    zero_point = torch.tensor(qparams.zero_point, device=values.device)
    return straight_through(values, scale, zero_point, Grid(qparams.qmin, qparams.qmax, qparams.axis))


def _codes(values: Tensor, qparams: QParams) -> Tensor:
    """Integers of eq. 1, still carried in float32 (exact: |q| < 2**24)."""
    scale, zero_point = _parameters(qparams, values)
    steps = torch.mul(values.detach(), scale.reciprocal()).round_()
    return steps.add_(zero_point).clamp_(qparams.qmin, qparams.qmax)


def _parameters(qparams: QParams, like: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point as float32 tensors that broadcast against `like`."""
    _check_channels(qparams, like)
    scale = along_axis(qparams.scale, qparams.axis, like.ndim)
    zero_point = along_axis(qparams.zero_point, qparams.axis, like.ndim)
    return (
        torch.tensor(scale, dtype=torch.float32, device=like.device),
        torch.tensor(zero_point, dtype=torch.float32, device=like.device),
    )


def _check_channels(qparams: QParams, like: Tensor) -> None:
    if qparams.axis is None:
        return
    channels = like.shape[qparams.axis] if -like.ndim <= qparams.axis < like.ndim else None
    if channels != qparams.channels:
        raise NumbersError(
            f"qparams have {qparams.channels} channels along axis {qparams.axis}, "
            f"but the tensor has shape {tuple(like.shape)}"
        )


def _as_float(x: Tensor | ArrayLike) -> Tensor:
    try:
        values = x if isinstance(x, torch.Tensor) else torch.as_tensor(np.asarray(x))
    except (TypeError, ValueError) as error:
        raise NumbersError(f"real numbers expected, got {type(x).__name__}: {error}") from error
    if not values.is_floating_point():
        raise NumbersError(f"real numbers expected, got {values.dtype}: pass floating point values")
    return values.to(torch.float32)
