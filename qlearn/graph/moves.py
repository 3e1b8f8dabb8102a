"""Builders of the operations that move values and compute nothing: reshape, transpose, slice, pad, concat.

The first axis is the batch. Whatever moves, mixes or cuts it has no integer kernel.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    Operation = tuple[str, dict[str, Any], dict[str, Tensor]]  # op, attrs, params

WHOLE = (None, None, None)
"""The bounds of ``:``, which keeps an axis as it is."""


class Unsupported(Exception):  # noqa: N818  (not an error: the layer stays in float)
    """A builder meets a variant that no integer kernel computes."""


def flatten(a: Mapping[str, Any]) -> Operation:
    """``x.flatten(1)``; other axes are a reshape, as long as the batch stays."""
    start = a.get("start_dim", 0)
    if start == 1 and a.get("end_dim", -1) == -1:
        return "flatten", {}, {}
    if start % len(a["shapes"][0]) == 0:
        raise Unsupported("flatten other than from axis 1 on has no integer kernel: it would mix the batch")
    return view(a)


def view(a: Mapping[str, Any]) -> Operation:
    """``x.view(…)``, ``x.reshape(…)``, ``x.squeeze()``, ``x.unsqueeze(1)``: shape in, shape out."""
    shape, result = a["shapes"][0], a["result"]
    if result == shape:
        return "identity", {}, {}
    if result[:1] != shape[:1]:
        raise Unsupported(f"reshape from {shape} to {result} has no integer kernel: the batch must stay the first axis")
    if result[1:] == (math.prod(shape[1:]),):
        return "flatten", {}, {}
    return "reshape", {"shape": result[1:]}, {}


def permute(a: Mapping[str, Any]) -> Operation:
    """``x.permute(0, 2, 3, 1)``."""
    dims = a["dims"]
    return _transposed([int(d) for d in (dims[0] if len(dims) == 1 else dims)], len(a["shapes"][0]))


def transpose(a: Mapping[str, Any]) -> Operation:
    """``x.transpose(1, 2)``."""
    rank = len(a["shapes"][0])
    axes = list(range(rank))
    first, second = int(a["dim0"]) % rank, int(a["dim1"]) % rank
    axes[first], axes[second] = axes[second], axes[first]
    return _transposed(axes, rank)


def _transposed(dims: Sequence[int], rank: int) -> Operation:
    axes = tuple(d % rank for d in dims)
    if axes[0] != 0:
        raise Unsupported(f"a transpose to the axes {axes} has no integer kernel: the batch must stay the first axis")
    return ("identity", {}, {}) if axes == tuple(range(rank)) else ("transpose", {"axes": axes}, {})


def index(a: Mapping[str, Any]) -> Operation:
    """``x[:, :, ::2]``, and ``x[:, :, None, None]``, which is a reshape."""
    parts = a["index"] if isinstance(a["index"], tuple) else (a["index"],)
    if parts[0] == slice(None) and all(part is None or part == slice(None) for part in parts) and None in parts:
        return view(a)
    if not all(isinstance(part, slice) for part in parts) or parts[0] != slice(None):
        raise Unsupported(f"x[{parts}] has no integer kernel, only slices that keep the whole batch")
    return "slice", {"slices": tuple((part.start, part.stop, part.step) for part in parts)}, {}


def part_of(sizes: Sequence[Sequence[int]], which: int, dim: int) -> Operation:
    """One of the tensors that ``x.chunk(2, 1)`` or ``x.split(4, 1)`` returns: a slice of x.

    Examples
    --------
    >>> part_of([(2, 3, 8, 8), (2, 5, 8, 8)], 1, dim=1)[1]
    {'slices': ((None, None, None), (3, 8, None))}
    """
    axis = dim % len(sizes[0])
    if axis == 0:
        raise Unsupported("chunk or split of the batch has no integer kernel")
    starts = [sum(size[axis] for size in sizes[:i]) for i in range(len(sizes) + 1)]
    which %= len(sizes)
    return "slice", {"slices": (*(WHOLE,) * axis, (starts[which], starts[which + 1], None))}, {}


def pad(a: Mapping[str, Any]) -> Operation:
    """``F.pad(x, (left, right, top, bottom))`` with zeros."""
    if a.get("mode", "constant") != "constant" or a.get("value") not in (None, 0, 0.0):
        raise Unsupported(f"pad with mode={a.get('mode')!r}, value={a.get('value')} has no integer kernel, only zeros")
    flat, rank = [int(v) for v in a["pad"]], len(a["shapes"][0])
    if min(flat) < 0 or len(flat) > 2 * (rank - 1):
        raise Unsupported(f"pad by {tuple(flat)} has no integer kernel: negative amounts, or the batch axis")
    amounts = [(flat[2 * i], flat[2 * i + 1]) for i in range(len(flat) // 2)][::-1]
    return "pad", {"amounts": ((0, 0),) * (rank - len(amounts)) + tuple(amounts)}, {}


def pad_module(a: Mapping[str, Any]) -> Operation:
    """``nn.ZeroPad2d`` and ``nn.ConstantPad2d``."""
    return pad({"pad": a["padding"], "value": a.get("value", 0), "shapes": a["shapes"]})


def concat(a: Mapping[str, Any]) -> Operation:
    """``torch.cat([x, y], dim=1)``."""
    axis = int(a.get("dim", a.get("axis", 0))) % len(a["shapes"][0])
    if axis == 0:
        raise Unsupported("a concatenation along the batch has no integer kernel")
    return "concat", {"axis": axis}, {}
