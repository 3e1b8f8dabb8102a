"""The grids of a network in training: learned, moving with the data, or known beforehand (paper §8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from qlearn.errors import CalibrationError
from qlearn.numbers.qparams import LARGEST_SCALE, SMALLEST_SCALE, ClipRange, QParams
from qlearn.numbers.straight_through import Grid, lsq_gradient_scale, straight_through
from qlearn.pipeline.weights import is_qparams, weight_qparams
from qlearn.registry import calibrator, scheme

if TYPE_CHECKING:
    from qlearn.pipeline.recipe import TensorRecipe


class FixedGrid(nn.Module):
    """A grid that stays as it is: sigmoid, tanh and softmax have one (see `known_output`).

    Parameters
    ----------
    qparams : QParams
    """

    def __init__(self, qparams: QParams) -> None:
        super().__init__()
        self._qparams = qparams

    def forward(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """Fake-quantize."""
        return _on(self._qparams, x, relu=relu)

    def qparams(self) -> QParams:
        """Return scale and zero point."""
        return self._qparams


class LearnedGrid(nn.Module):
    """A grid whose step size is a parameter (LSQ), and its zero point too if that is asked for.

    Parameters
    ----------
    qparams : QParams or None
        Where training starts; None takes the range of the first batch.
    choice : TensorRecipe
        Scheme and calibrator for that first batch.
    per_picture : bool
        Activations: the gradient scale counts the values of one picture, not of the batch.
    learn_zero_point : bool

    Notes
    -----
    The step size is kept in float64 and used in float32. That of weights per channel may be measured in a `unit`:
    the factor γ / σ of the batch norm that is folded into them. The weights that training moves are those before
    folding; measured in their unit, steps and weights learn at the same pace, and codes do not move with the factor.
    """

    zero_point: Tensor
    started: Tensor

    def __init__(
        self, qparams: QParams | None, choice: TensorRecipe, *, per_picture: bool, learn_zero_point: bool = False
    ) -> None:
        super().__init__()
        self.choice, self.per_picture = choice, per_picture
        target = scheme(choice.scheme, bits=choice.bits, signed=choice.signed)
        start = QParams(1.0, max(target.qmin, 0), target.qmin, target.qmax) if qparams is None else qparams
        self.qmin, self.qmax, self.axis = start.qmin, start.qmax, start.axis
        self.scale = nn.Parameter(torch.tensor(start.scale, dtype=torch.float64))
        zero_point = torch.tensor(start.zero_point, dtype=torch.float32)
        if learn_zero_point:
            self.zero_point = nn.Parameter(zero_point)
        else:
            self.register_buffer("zero_point", zero_point)
        self.register_buffer("started", torch.tensor(qparams is not None))

    def forward(self, x: Tensor, *, relu: bool = False, unit: Tensor | None = None) -> Tensor:
        """Fake-quantize, with gradients for x, the step size and the zero point."""
        if not self.started:
            self._start(x.relu() if relu else x)
        sharing = x[0].numel() if self.per_picture else x.numel() // self.scale.numel()
        factor = lsq_gradient_scale(sharing, self.qmax - float(self.zero_point.detach().min()))
        return straight_through(
            x, self.used_scale(unit), self.zero_point, Grid(self.qmin, self.qmax, self.axis, relu, factor)
        )

    def used_scale(self, unit: Tensor | None = None) -> Tensor:
        """Return the step size as it is used, float32: one that training took below zero is mirrored."""
        scale = self.scale.abs() if unit is None else self.scale.abs() * unit
        return scale.clamp(SMALLEST_SCALE, LARGEST_SCALE).to(torch.float32)

    def qparams(self, unit: Tensor | None = None) -> QParams:
        """Return scale and zero point."""
        if not self.started:
            raise CalibrationError("a step size without a start: give prepare_qat() a table, or train on a batch first")
        scale, zero_point = self.used_scale(unit).detach(), self.zero_point.detach()
        if bool(scale.isnan().any() or zero_point.isnan().any()):
            raise CalibrationError(
                "a learned step size or zero point is NaN: look for NaN in pictures and loss, lower the rate"
            )
        zero_point = zero_point.round().clamp(self.qmin, self.qmax).to(torch.int32)
        return QParams(scale.numpy(), zero_point.numpy(), self.qmin, self.qmax, self.axis)

    @torch.no_grad()
    def measure_in(self, unit: Tensor) -> None:
        """Go over from steps in real numbers to steps in this unit."""
        self.scale.div_(unit)

    def clip_range(self) -> ClipRange:
        """Return the real numbers that the grid reaches."""
        return self.qparams().range

    @torch.no_grad()
    def _start(self, x: Tensor) -> None:
        observer = calibrator(self.choice.calibrator, **self.choice.calibrator_params)
        observer.observe(x.detach())
        target = scheme(self.choice.scheme, bits=self.choice.bits, signed=self.choice.signed)
        qparams = is_qparams(target.qparams(observer.compute_range(target)), self.choice.scheme)
        self.scale.copy_(torch.tensor(qparams.scale))
        self.zero_point.copy_(torch.tensor(qparams.zero_point))
        self.started.fill_(True)


class MovingGrid(nn.Module):
    """A grid that follows the data: moving averages of each batch's smallest and largest value (Jacob et al. 2018).

    Parameters
    ----------
    clip_range : ClipRange or None
        Where it starts; None takes the first batch's.
    choice : TensorRecipe
        Its scheme turns the range into scale and zero point. Its calibrator is not used.
    momentum : float
        Weight of a new batch.
    """

    lo: Tensor
    hi: Tensor
    started: Tensor

    def __init__(self, clip_range: ClipRange | None, choice: TensorRecipe, momentum: float) -> None:
        super().__init__()
        self.choice, self.momentum = choice, momentum
        lo, hi = (0.0, 0.0) if clip_range is None else (float(clip_range.lo), float(clip_range.hi))
        self.register_buffer("lo", torch.tensor(lo, dtype=torch.float64))
        self.register_buffer("hi", torch.tensor(hi, dtype=torch.float64))
        self.register_buffer("started", torch.tensor(clip_range is not None))

    def forward(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """Fake-quantize with a straight-through gradient; in training, move the range first."""
        if self.training:
            self._move(x.detach(), relu=relu)
        return _on(self.qparams(), x, relu=relu)

    def qparams(self) -> QParams:
        """Return scale and zero point."""
        if not self.started:
            raise CalibrationError("a range without a start: give prepare_qat() a table, or train on a batch first")
        target = scheme(self.choice.scheme, bits=self.choice.bits, signed=self.choice.signed)
        return is_qparams(target.qparams(self.clip_range()), self.choice.scheme)

    def clip_range(self) -> ClipRange:
        """Return the averages."""
        return ClipRange(float(self.lo), float(self.hi))

    @torch.no_grad()
    def _move(self, x: Tensor, *, relu: bool) -> None:
        lo, hi = (extreme.double() for extreme in torch.aminmax(x))
        lo, hi = (lo.clamp(min=0.0) if relu else lo).clamp(max=0.0), hi.clamp(min=0.0)
        if not (torch.isfinite(lo) and torch.isfinite(hi)):
            raise CalibrationError("values in training are NaN or Inf: lower the learning rate")
        weight = self.momentum if self.started else 1.0
        self.lo.lerp_(lo, weight)
        self.hi.lerp_(hi, weight)
        self.started.fill_(True)


class CalibratedGrid(nn.Module):
    """The grid of weights that are calibrated anew in every step, as a recipe says.

    Parameters
    ----------
    choice : TensorRecipe
    """

    def __init__(self, choice: TensorRecipe) -> None:
        super().__init__()
        self.choice = choice

    def forward(self, weight: Tensor) -> Tensor:
        """Fake-quantize with a straight-through gradient."""
        return _on(self.qparams(weight), weight, relu=False)

    def qparams(self, weight: Tensor) -> QParams:
        """Return scale and zero point for these weights."""
        return weight_qparams(np.ascontiguousarray(weight.detach().numpy()), self.choice, None, None)


def _on(qparams: QParams, x: Tensor, *, relu: bool) -> Tensor:
    scale, zero_point = torch.tensor(qparams.scale), torch.tensor(qparams.zero_point)
    return straight_through(x, scale, zero_point, Grid(qparams.qmin, qparams.qmax, qparams.axis, relu))
