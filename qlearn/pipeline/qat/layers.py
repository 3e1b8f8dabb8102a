"""A layer with weights, in training: its batch norm folded in every step, its weights fake-quantized (paper §8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qlearn.graph.ops import pad_spatial
from qlearn.pipeline.qat.grids import CalibratedGrid, LearnedGrid

if TYPE_CHECKING:
    from qlearn.graph.model import Node
    from qlearn.numbers.qparams import QParams

TINY = 1e-20
"""A batch norm with a smaller |γ| / σ multiplies by 0: its channel is dead."""


class FoldedLayer(nn.Module):
    """A convolution or linear layer with the batch norm behind it, if there is one.

    While statistics move, weights are folded with the *running* statistics before they are fake-quantized, so that
    their grid does not jump from batch to batch; dividing by the same factor afterwards and normalising by the
    batch's own statistics undoes it. After freezing it computes what will run: one folded layer, no batch norm.

    Parameters
    ----------
    node : Node
        The layer; its own weights, not folded.
    norm : Node or None
        The batch norm.
    grid : LearnedGrid, CalibratedGrid or None
        Of the folded weights. None leaves them in float.
    momentum : float
        Weight of a new batch in the running statistics.

    References
    ----------
    Jacob et al. (2018), §3.2. Krishnamoorthi (2018), §3.2.2.
    """

    def __init__(
        self, node: Node, norm: Node | None, grid: LearnedGrid | CalibratedGrid | None, momentum: float
    ) -> None:
        super().__init__()
        self.node, self.momentum = node, momentum
        self.weight = nn.Parameter(node.params["weight"].clone())
        self.bias = nn.Parameter(node.params["bias"].clone()) if "bias" in node.params else None
        self.norm: nn.BatchNorm2d | None = None if norm is None else _batch_norm(norm)
        self.grid = grid
        unit = self._unit()
        if isinstance(grid, LearnedGrid) and unit is not None:
            grid.measure_in(unit)
        self.estimate: tuple[Tensor, Tensor, float] | None = None

    def forward(self, x: Tensor, s_x: Tensor | None, *, live: bool) -> Tensor:
        """Run the layer.

        Parameters
        ----------
        x : Tensor
        s_x : Tensor or None
            Scale of the input: the bias is rounded to steps of S_x S_w. None leaves it in float.
        live : bool
            Normalise by the statistics of the batch, and move the running ones.
        """
        if live and self.norm is not None:
            return self._normalised(x, self.norm)
        weight, bias = self.folded()
        weight = self._on_grid(weight)
        return self._product(x, weight, bias if bias is None or s_x is None else self._rounded(bias, s_x))

    def folded(self) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias with the batch norm folded in, by `fold_batch_norm`'s arithmetic; differentiable."""
        if self.norm is None:
            return self.weight, self.bias
        factor, mean = self._factor(self.norm), self.norm.running_mean
        assert mean is not None
        bias = torch.zeros_like(factor) if self.bias is None else self.bias.double()
        offset = self.norm.bias.double() - mean.double() * factor
        weight = self.weight.double() * _per_output(factor, self.weight)
        return weight.to(self.weight.dtype), (bias * factor + offset).to(self.weight.dtype)

    @torch.no_grad()
    def set_folded_weight(self, weight: Tensor) -> None:
        """Set the weights so that, folded, they are these; those of a dead channel become 0."""
        if self.norm is None:
            self.weight.copy_(weight)
            return
        factor = self._factor(self.norm)
        undo = torch.where(factor.abs() > TINY, factor, torch.inf).reciprocal()
        self.weight.copy_(weight.double() * _per_output(undo, weight))

    def weight_qparams(self) -> QParams | None:
        """Return the grid of the folded weights as it is now; None where they stay in float."""
        if isinstance(self.grid, LearnedGrid):
            return self.grid.qparams(self._unit())
        return None if self.grid is None else self.grid.qparams(self.folded()[0])

    def estimate_with(self, weight: float) -> None:
        """Collect statistics beside the running ones from the next batch on, which counts with this weight."""
        assert self.norm is not None
        if self.estimate is None:
            size = len(self.norm.weight)
            self.estimate = (torch.zeros(size), torch.ones(size), weight)
        self.estimate = (*self.estimate[:2], weight)

    def take_estimate(self) -> None:
        """Let the collected statistics be the running ones."""
        assert self.norm is not None
        assert self.estimate is not None
        mean, variance, _ = self.estimate
        self.norm.load_state_dict({"running_mean": mean, "running_var": variance}, strict=False)
        self.estimate = None

    def _normalised(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """The factor is a constant of the step: γ learns through the batch norm."""
        factor = self._factor(norm).detach().to(self.weight.dtype)
        weight = self.weight * _per_output(factor, self.weight)
        weight = self._on_grid(weight)
        alive = factor.abs() > TINY
        undo = torch.where(alive, factor, 1.0).reciprocal() * alive
        y = self._product(x, weight * _per_output(undo, weight), self.bias)
        mean, variance, momentum = self.estimate or (norm.running_mean, norm.running_var, self.momentum)
        return F.batch_norm(y, mean, variance, norm.weight, norm.bias, training=True, momentum=momentum, eps=norm.eps)

    def _on_grid(self, weight: Tensor) -> Tensor:
        if isinstance(self.grid, LearnedGrid):
            return self.grid(weight, unit=self._unit())  # type: ignore[no-any-return]
        return weight if self.grid is None else self.grid(weight)

    def _unit(self) -> Tensor | None:
        """What step sizes per channel are measured in, float64: |γ| / σ, or 1 for a dead channel."""
        if self.norm is None or not isinstance(self.grid, LearnedGrid) or self.grid.axis is None:
            return None
        factor = self._factor(self.norm).detach().abs()
        return torch.where(factor > TINY, factor, 1.0)

    def _factor(self, norm: nn.BatchNorm2d) -> Tensor:
        """γ / √(σ² + ε), float64."""
        variance = norm.running_var
        assert variance is not None
        return norm.weight.double() / torch.sqrt(variance.double() + norm.eps)

    def _rounded(self, bias: Tensor, s_x: Tensor) -> Tensor:
        """The bias on its int32 grid, straight through."""
        qparams = self.weight_qparams()
        if qparams is None:
            return bias
        step = s_x.detach() * torch.tensor(qparams.scale)
        return bias + (torch.round(bias.detach() / step) * step - bias.detach())

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.node.op == "linear":
            return F.linear(x, weight, bias)
        attrs: Any = self.node.attrs
        top, bottom, left, right = attrs["padding"]
        even = top == bottom and left == right
        return F.conv2d(
            x if even else pad_spatial(x, attrs["padding"]),
            weight,
            bias,
            stride=attrs["stride"],
            padding=(top, left) if even else 0,
            dilation=attrs["dilation"],
            groups=attrs["groups"],
        )


def _batch_norm(norm: Node) -> nn.BatchNorm2d:
    module = nn.BatchNorm2d(len(norm.params["weight"]), eps=float(norm.attrs["eps"]))
    module.load_state_dict(dict(norm.params), strict=False)  # strict would ask for the step counter
    return module


def _per_output(values: Tensor, weight: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (weight.ndim - 1))
