"""How the torch engine keeps codes: one byte each, unsigned, channels last.

An 8-bit code q is kept as q + 128 (int8) or q (uint8), so that both are bytes from 0 to 255;
codes of more than 8 bits are kept as they are, in int32.
A function of one byte is a table of 256 bytes, and one of two bytes a table of 65 536:
both are filled by the reference kernel itself, so that they cannot differ from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qlearn.integer.layers import run_layer

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from qlearn.integer.layers import IntegerLayer
    from qlearn.integer.profiles import Profile
    from qlearn.numbers.qparams import QParams


def is_byte(q: QParams) -> bool:
    """Return whether the codes fit into a byte: [-128, 127] or [0, 255] or less."""
    return (q.qmin >= -128 and q.qmax <= 127) or (q.qmin >= 0 and q.qmax <= 255)


def offset(q: QParams) -> int:
    """Return what is added to a code to keep it: 128 for int8, else 0.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> offset(QParams(0.5, 1, -128, 127)), offset(QParams(0.5, 1, 0, 255)), offset(QParams(0.5, 1, -2048, 2047))
    (128, 0, 0)
    """
    return 128 if is_byte(q) and q.qmin < 0 else 0


def pack(codes: NDArray[Any], q: QParams) -> Tensor:
    """Return codes as the engine keeps them.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> pack(np.int8([[-128, 5]]), QParams(0.5, 1, -128, 127))
    tensor([[  0, 133]], dtype=torch.uint8)
    """
    kept = torch.from_numpy(np.array(codes, np.int32 if codes.dtype.itemsize > 1 or not is_byte(q) else codes.dtype))
    if is_byte(q):
        kept = kept.to(torch.uint8).bitwise_xor_(offset(q))  # modulo 256, adding 128 is turning the first bit
    return settled(kept)


def unpack(kept: Tensor, q: QParams) -> NDArray[Any]:
    """Return the codes that the engine kept, in C order.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> unpack(torch.tensor([0, 133], dtype=torch.uint8), QParams(0.5, 1, -128, 127))
    array([-128,    5], dtype=int8)
    """
    if offset(q):
        kept = (kept ^ offset(q)).view(torch.int8)
    return np.asarray(kept.contiguous().numpy().astype(q.dtype, copy=False))


def settled(kept: Tensor) -> Tensor:
    """Return the same values, channels last in memory where there are four axes."""
    return kept.contiguous(memory_format=torch.channels_last if kept.ndim == 4 else torch.contiguous_format)


def table_of_one(layer: IntegerLayer, q: QParams, profile: Profile) -> Tensor:
    """Return what a layer gives for every byte, shape (256,)."""
    return pack(run_layer(layer, [(_every_code(q), q)], profile), layer.output)


def table_of_two(layer: IntegerLayer, a: QParams, b: QParams, profile: Profile) -> Tensor:
    """Return what a layer gives for every pair of bytes, shape (65536,): the first byte counts 256."""
    left, right = np.meshgrid(_every_code(a), _every_code(b), indexing="ij")
    return pack(run_layer(layer, [(left.ravel(), a), (right.ravel(), b)], profile), layer.output)


def look_up(table: Tensor, index: Tensor) -> Tensor:
    """Return table[index] in the layout of the index; an int32 index, laid out without gaps.

    Examples
    --------
    >>> look_up(torch.tensor([5, 6, 7]), torch.tensor([[2], [0]], dtype=torch.int32)).tolist()
    [[7], [5]]
    """
    if index.ndim == 4:
        last = index.permute(0, 2, 3, 1)
        return table.index_select(0, last.reshape(-1)).view(last.shape).permute(0, 3, 1, 2)
    return table.index_select(0, index.reshape(-1)).view(index.shape)


def _every_code(q: QParams) -> NDArray[Any]:
    """The codes that all 256 bytes stand for; bytes that stand for none, with fewer bits, get the nearest."""
    return np.clip(np.arange(256) - offset(q), q.qmin, q.qmax).astype(q.dtype)
