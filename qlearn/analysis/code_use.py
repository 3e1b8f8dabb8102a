"""How well a layer uses its integers: codes that are never used, values that are clipped, channels that drown."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.analysis.metrics import NoiseSums, finite
from qlearn.numbers.affine import dequantize
from qlearn.numbers.qparams import along_axis

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from qlearn.numbers.qparams import QParams
    from qlearn.pipeline.simulate import QuantizedLayer


def code_counts(codes: Tensor, qparams: QParams) -> NDArray[np.int64]:
    """Return how often each code from qmin to qmax occurs; codes are integers carried as floats.

    Examples
    --------
    >>> import torch
    >>> from qlearn.numbers.qparams import QParams
    >>> code_counts(torch.tensor([-2.0, 0.0, 0.0, 1.0]), QParams(0.5, 0, -2, 1)).tolist()
    [1, 0, 2, 1]
    """
    places = (codes.numpy().ravel() - qparams.qmin).astype(np.int64)
    return np.bincount(places, minlength=qparams.qmax - qparams.qmin + 1)


@dataclass(frozen=True)
class CodeUse:
    """Which codes a site uses.

    Parameters
    ----------
    total : int
        Values seen.
    clipped_low, clipped_high : int
        Values that lie more than half a step below the level of qmin or above that of qmax, so that they were cut.
        What a ReLU or ReLU6 cuts is meant to be cut, and does not count.
    at_low, at_high : int
        Values that have the smallest or the largest code that the layer can give.
    reachable : int
        Codes that the layer can give: qmin to qmax, or what its clamp leaves of them.
    used : int
        Codes that it gave at least once.
    entropy_bits : float
        Entropy of the codes in bits: what a perfect compressor would need for one.
    """

    total: int
    clipped_low: int
    clipped_high: int
    at_low: int
    at_high: int
    reachable: int
    used: int
    entropy_bits: float

    @classmethod
    def of(cls, layer: QuantizedLayer, counts: NDArray[np.int64], clipped: tuple[int, int]) -> CodeUse:
        """Summarise how often each code from qmin to qmax occurred."""
        assert layer.output is not None
        low, high = (np.asarray(limit) for limit in layer.clamp or (layer.output.qmin, layer.output.qmax))
        first, last = int(low.min()) - layer.output.qmin, int(high.max()) - layer.output.qmin
        share = counts[counts > 0] / max(int(counts.sum()), 1)
        return cls(
            int(counts.sum()),
            *clipped,
            int(counts[first]),
            int(counts[last]),
            last - first + 1,
            int((counts > 0).sum()),
            float(-(share * np.log2(share)).sum()) + 0.0,
        )

    @property
    def clipped_share(self) -> float:
        """Share of values that were cut at either end."""
        return (self.clipped_low + self.clipped_high) / self.total if self.total else 0.0

    @property
    def dead_levels(self) -> int:
        """Codes that the layer can give and never gave."""
        return max(self.reachable - self.used, 0)

    @property
    def bits_used(self) -> float:
        """Bits that the used codes would need: log2 of their number."""
        return math.log2(self.used) if self.used else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON."""
        return dict(
            vars(self), clipped_share=self.clipped_share, dead_levels=self.dead_levels, bits_used=self.bits_used
        )


@dataclass(frozen=True, eq=False)
class WeightUse:
    """The weights of one layer, channel by channel.

    Parameters
    ----------
    ranges : ndarray, float64, shape (C, 2)
        Smallest and largest float weight of each output channel.
    scales : ndarray, float64, shape (C,)
        Scale of each output channel; all equal per tensor.
    noise : NoiseSums
        Quantized against float weights.
    silenced : tuple of int
        Output channels whose float weights are not all zero and whose quantized weights all are:
        their range is below half a step.
    all_zero : tuple of int
        Output channels whose float weights are all zero.
    """

    ranges: NDArray[np.float64]
    scales: NDArray[np.float64]
    noise: NoiseSums
    silenced: tuple[int, ...]
    all_zero: tuple[int, ...]

    @classmethod
    def of(cls, layer: QuantizedLayer, weight: Tensor | None) -> WeightUse | None:
        """Compare a layer's float weights (C, …) with its quantized ones; None if it has none."""
        if layer.weight is None or layer.weight_qparams is None or weight is None:
            return None
        channels = layer.weight.shape[0]
        rows = weight.numpy().reshape(channels, -1).astype(np.float64)
        zero = along_axis(layer.weight_qparams.zero_point, layer.weight_qparams.axis, layer.weight.ndim)
        codes_zero = (layer.weight.astype(np.int64) - zero).reshape(channels, -1)
        none, none_left = ~rows.any(axis=1), ~codes_zero.any(axis=1)
        return cls(
            np.stack([rows.min(axis=1), rows.max(axis=1)], axis=1),
            np.broadcast_to(layer.weight_qparams.scale.astype(np.float64), channels),
            NoiseSums.of(weight, dequantize(layer.weight, layer.weight_qparams)),
            tuple(np.flatnonzero(none_left & ~none).tolist()),
            tuple(np.flatnonzero(none).tolist()),
        )

    @property
    def largest(self) -> NDArray[np.float64]:
        """Largest absolute weight of each output channel, shape (C,)."""
        return np.asarray(np.abs(self.ranges).max(axis=1))

    @property
    def max_over_median(self) -> float:
        """Largest channel range over the median one: 1 where all are alike; inf if most channels are zero."""
        largest = self.largest
        median = float(np.median(largest))
        if median == 0.0:
            return math.inf if largest.max() > 0 else 1.0
        return float(largest.max()) / median

    @property
    def sqnr_db(self) -> float:
        """SQNR of the weights, in dB."""
        return self.noise.sqnr_db

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON."""
        return {
            "max_over_median": finite(self.max_over_median),
            "sqnr_db": finite(self.sqnr_db),
            "silenced": list(self.silenced),
            "all_zero": list(self.all_zero),
            "ranges": self.ranges.tolist(),
        }
