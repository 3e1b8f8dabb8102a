"""Pictures that nobody took: inputs made to match the statistics of the batch norms (paper §5, ref. 16)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qlearn.calibrators.base import checked_number
from qlearn.errors import CalibrationError, GraphError
from qlearn.graph.bounds import value_bounds
from qlearn.graph.model import FloatModel
from qlearn.graph.ops import FLOAT_OPS, channel_rows
from qlearn.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qlearn.graph.model import Node


@dataclass(frozen=True, eq=False)
class Target:
    """What one value of the network should be, channel by channel.

    Parameters
    ----------
    mean, std : Tensor, shape (C,), float32
    floor : float
        Added to std² where differences are measured in units of it, so that dead channels weigh nothing.
    """

    mean: Tensor
    std: Tensor
    floor: float

    def distance(self, value: Tensor) -> Tensor:
        """Return the mean over channels of ((m - mean)² + (s - std)²) / (std² + floor), a scalar.

        m and s are those of `value` over pictures and positions, shape (N, C, H, W) or (N, …, C).
        """
        rows = channel_rows(value)
        mean, variance = rows.mean(1), rows.var(1, correction=0)
        std = (variance + 1e-12).sqrt()  # the root of 0 has no slope
        return (((mean - self.mean) ** 2 + (std - self.std) ** 2) / (self.std**2 + self.floor)).mean()


def distill_pictures(
    model: FloatModel,
    count: int,
    *,
    iterations: int = 300,
    learning_rate: float = 0.03,
    batch_size: int = 32,
    seed: int = 0,
) -> Tensor:
    r"""Make inputs from noise on which every batch norm sees the mean and deviation that it knows from training.

    Gradient descent (Adam) changes the pictures, not the network.
    What falls is the sum over batch norms of `Target.distance`: how far mean and deviation of each channel of the batch
    are from the running ones, in units of the deviation.
    Pixels stay within what the preprocessing can give, where the network has one.
    More steps are not always better: a perfect match has the mean and deviation of real pictures, and not their tails.

    Parameters
    ----------
    model : FloatModel
        With batch norms, or folded by `fold_batch_norm`, which keeps their statistics. Not changed.
    count : int
        Number of pictures.
    iterations : int
        Steps; each costs about three forward passes of the pictures.
    learning_rate : float
        Of Adam, in units of the input; it falls to 0 along half a cosine.
    batch_size : int
        Statistics are matched by so many pictures at a time, together. Memory grows with it, not with `count`.
    seed : int
        Same seed, same pictures, on one machine with one number of threads.

    Returns
    -------
    Tensor, shape (count, \*input_shape), float32
        Inputs as after preprocessing: ``calibrate(model, pictures.split(32), recipe)``.

    Raises
    ------
    GraphError
        If the network has no batch norm, and no layer that keeps the statistics of one.
    CalibrationError
        If a number makes no sense, or weights or statistics are NaN.

    References
    ----------
    Y. Cai et al., "ZeroQ: a novel zero shot quantization framework", CVPR 2020, §3.1; paper §5, ref. 16.

    Examples
    --------
    >>> from torch import nn
    >>> from qlearn.graph.trace import trace
    >>> layer, norm = nn.Conv2d(3, 3, 1, groups=3, bias=False), nn.BatchNorm2d(3)
    >>> _ = nn.init.ones_(layer.weight), norm.running_mean.fill_(0.5), norm.running_var.fill_(4.0)
    >>> net = trace(nn.Sequential(layer, norm).eval(), torch.zeros(1, 3, 8, 8))
    >>> pictures = distill_pictures(net, 8, iterations=100, learning_rate=0.1)
    >>> seen = {}
    >>> _ = net(pictures, watch=lambda node, value: seen.update({node.name: value}))
    >>> round(seen["0"].mean().item(), 1), round(seen["0"].std().item(), 1)
    (0.5, 2.0)
    """
    if not isinstance(model, FloatModel):
        raise GraphError(f"distill_pictures() takes a traced network, got {type(model).__name__}: use qlearn.trace()")
    wanted, steps, size = (_whole(*pair) for pair in (("count", count), ("iterations", iterations),
                                                      ("batch_size", batch_size)))  # fmt: skip
    rate = checked_number(learning_rate, "learning_rate is a number above 0")
    targets = batch_norm_targets(model)
    generator = torch.Generator().manual_seed(seed)
    starts = torch.split(torch.randn(wanted, *model.input_shape, generator=generator), size)
    bounds = value_bounds(model)[model.nodes[0].name]
    limits = (bounds.low.float(), bounds.high.float()) if model.preprocess is not None else None
    bar = iter(progress(range(steps * len(starts)), "distill", unit="step"))
    descent = _Descent(steps, rate, limits)
    return torch.cat([descent.of(model, targets, start, bar) for start in starts])


def batch_norm_targets(model: FloatModel) -> dict[str, Target]:
    """Return which values have known statistics, by the node that puts them out, before any clamp.

    The input of a batch norm has its running mean and variance; the output of a folded layer has ``attrs["bn"]``.

    Raises
    ------
    GraphError
        If there are none.
    """
    targets = {}
    for node in model.nodes:
        if node.op == "batch_norm":
            mean, variance = node.params["running_mean"], node.params["running_var"]
            targets[node.inputs[0]] = Target(mean, variance.sqrt(), float(node.attrs["eps"]))
        elif "bn" in node.attrs:
            mean, std = node.attrs["bn"]
            targets[node.name] = Target(mean, std, 1e-3 * float((std**2).mean()) + 1e-12)
    if not targets:
        raise GraphError(
            f"{model.name} has no batch norm and no layer that keeps the statistics of one: "
            "nothing says what pictures should look like; calibrate() with real ones"
        )
    return targets


def statistics_distance(model: FloatModel, targets: Mapping[str, Target], x: Tensor) -> Tensor:
    """Return the sum of the distances of all targets on a batch, a scalar that x can be improved by."""
    last = max(place for place, node in enumerate(model.nodes) if node.name in targets)
    total = torch.zeros(())
    for node, value in _bare_values(model, x, last):
        if node.name in targets:
            total = total + targets[node.name].distance(value)
    return total


def _bare_values(model: FloatModel, x: Tensor, last: int) -> Iterator[tuple[Node, Tensor]]:
    """Run the network with gradients up to a node; yield each value as it is before a fused clamp."""
    values: dict[str, Tensor] = {}
    for node in model.nodes[: last + 1]:
        inputs = [values[name] for name in node.inputs]
        bare = node if node.op == "clamp" else node.with_attrs(clamp=None)
        value = x if node.op == "input" else FLOAT_OPS[node.op](bare, inputs)
        yield node, value
        values[node.name] = value if node.attrs.get("clamp") is None else FLOAT_OPS["clamp"](node, [value])


@dataclass(frozen=True, eq=False)
class _Descent:
    """How to go from noise to pictures: steps, rate, and between which pixels."""

    iterations: int
    learning_rate: float
    limits: tuple[Tensor, Tensor] | None

    def of(self, model: FloatModel, targets: Mapping[str, Target], noise: Tensor, bar: Iterator[int]) -> Tensor:
        """Return one batch of pictures."""
        x = self.start(noise).requires_grad_()
        optimizer = torch.optim.Adam([x], lr=self.learning_rate)
        for step in range(self.iterations):
            next(bar, None)
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * (1 + math.cos(math.pi * step / self.iterations)) / 2
            with torch.enable_grad():
                loss = statistics_distance(model, targets, x)
            if not bool(torch.isfinite(loss)):
                raise CalibrationError(
                    f"{model.name}: the distance to the statistics is {float(loss.detach())} at step {step}: "
                    "a weight or a statistic is NaN or Inf, or learning_rate is too large"
                )
            (x.grad,) = torch.autograd.grad(loss, [x])
            optimizer.step()
            if self.limits is not None:
                with torch.no_grad():
                    x.clamp_(*self.limits)
        return x.detach()

    def start(self, noise: Tensor) -> Tensor:
        """Standard normal noise to the middle of the pixels, with half of their reach as two deviations."""
        if self.limits is None:
            return noise.clone()
        low, high = self.limits
        return (noise * (high - low) / 4 + (low + high) / 2).clamp(low, high)


def _whole(name: str, value: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < 1:
        raise CalibrationError(f"{name} is a whole number of 1 or more: got {value!r}")
    return int(value)
