"""One operation of the integer model: what it holds, and how it is computed with the reference kernels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.integer.kernels import KERNELS
from qlearn.integer.packing import packed_size
from qlearn.numbers.qparams import along_axis

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from qlearn.integer.profiles import Profile
    from qlearn.numbers.qparams import QParams

    Limit = int | NDArray[np.integer[Any]]
    Real = float | NDArray[np.float32]

SHARING_OPS = frozenset({"clamp", "avg_pool2d", "max_pool2d", "flatten", "slice", "pad", "reshape", "transpose"})
"""Operations whose output has the scale and zero point of their input."""


@dataclass(frozen=True, eq=False)
class IntegerLayer:
    """One operation on integers.

    Parameters
    ----------
    name : str
        The site of its output.
    op : str
        ``"input"``, ``"conv2d"``, ``"linear"``, ``"add"``, …, or ``"float"``.
    inputs : tuple of str
    output : QParams
        Scale and zero point of its output.
    attrs : mapping
        Strides, padding and the like; ``attrs["function"]`` of a float layer takes and returns float32 arrays.
    weight, weight_qparams, bias : integer array, QParams and int32 array, or None
        bias is in steps of float32(S_x S_w). An int64 bias asks for 64-bit accumulators (16-bit activations).
    clamp : (int, int), two int arrays of shape (C,), or None
        Smallest and largest output code: qmin and qmax narrowed by a fused ReLU or ReLU6.
        One pair per channel where equalization has moved the 6 of a ReLU6.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    output: QParams
    attrs: Mapping[str, Any] = field(default_factory=dict)
    weight: NDArray[Any] | None = None
    weight_qparams: QParams | None = None
    bias: NDArray[np.integer[Any]] | None = None
    clamp: tuple[Limit, Limit] | None = None

    @property
    def limits(self) -> tuple[Limit, Limit]:
        """Smallest and largest output code."""
        return self.clamp or (self.output.qmin, self.output.qmax)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights (one per weight up to 8 bits, two above: 4-bit weights are not packed) and of the bias."""
        return sum(0 if array is None else array.nbytes for array in (self.weight, self.bias))

    @property
    def packed_bytes(self) -> int:
        """Bytes of the weights if their codes were packed without gaps, and of the bias as it is."""
        bias = 0 if self.bias is None else self.bias.nbytes
        if self.weight is None or self.weight_qparams is None:
            return bias
        return bias + packed_size(self.weight.size, self.weight_qparams.bits)


def run_layer(layer: IntegerLayer, inputs: Sequence[tuple[NDArray[Any], QParams]], profile: Profile) -> NDArray[Any]:
    """Compute the output codes of a layer from the codes and qparams of its inputs."""
    codes = KERNELS[layer.op](layer, inputs, profile)
    if layer.op in SHARING_OPS and layer.clamp is None:
        return codes.astype(layer.output.dtype, copy=False)
    axis = 1 if codes.ndim == 4 else -1  # channels of (N, C, H, W), or the last of (N, C) and (N, L, C)
    low, high = (limit if np.ndim(limit) == 0 else along_axis(np.asarray(limit), axis, codes.ndim)
                 for limit in layer.limits)  # fmt: skip
    return np.asarray(np.clip(codes, low, high).astype(layer.output.dtype))


def code_limits(clamp: tuple[Real, Real], qparams: QParams) -> tuple[Limit, Limit]:
    """Return the codes of a real clamp: Z + round(limit / S), halves away from zero, inside [qmin, qmax].

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> code_limits((0.0, 6.0), QParams(0.05, -100, -128, 127))
    (-100, 20)
    >>> code_limits((0.0, np.float32([6.0, 1.5])), QParams(0.05, -100, -128, 127))
    (-100, array([ 20, -70], dtype=int32))
    """
    low, high = clamp
    return _code_limit(low, qparams, qparams.qmin), _code_limit(high, qparams, qparams.qmax)


def _code_limit(limit: Real, qparams: QParams, outermost: int) -> Limit:
    with np.errstate(over="ignore"):  # a limit that is infinitely many steps away clips nothing
        steps = np.asarray(np.float32(limit) / qparams.scale, np.float64)
    rounded = np.sign(steps) * np.floor(np.abs(steps) + 0.5)
    codes = np.where(np.isinf(steps), outermost, np.clip(int(qparams.zero_point) + rounded, qparams.qmin, qparams.qmax))
    return int(codes) if codes.ndim == 0 else codes.astype(np.int32)
