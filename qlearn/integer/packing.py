"""Codes of fewer than 8 bits, packed without gaps: what a network with 4-bit weights takes on a disk (paper §7.3).

The engines of qlearn compute on one int8 number per weight, however few bits it needs; they never read packed codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qlearn.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from qlearn.numbers.qparams import QParams


def packed_size(count: int, bits: int) -> int:
    """Return the bytes of `count` codes of `bits` bits, one bit stream without gaps: count * bits / 8, rounded up.

    Two codes of 4 bits share a byte; eight codes of 3 bits share three.

    Examples
    --------
    >>> packed_size(3, 4), packed_size(8, 3), packed_size(5, 8)
    (2, 3, 5)
    """
    return -(-count * bits // 8)


def pack_codes(codes: ArrayLike, qparams: QParams) -> NDArray[np.uint8]:
    """Pack codes into a stream of bits, `packed_size` bytes long.

    Each code is stored as the unsigned number q - qmin, its highest bit first.

    Parameters
    ----------
    codes : array_like of int, any shape
        Within [qmin, qmax].
    qparams : QParams
        Its ``bits`` (at most 16) are the width of a code.

    Raises
    ------
    KernelError
        If a code lies outside [qmin, qmax], is no integer, or is wider than 16 bits.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> qp = QParams(0.1, 0, -8, 7)
    >>> pack_codes([-8, 7, 0], qp)                       # 0000 1111 1000 and four bits of padding
    array([ 15, 128], dtype=uint8)
    >>> unpack_codes(pack_codes([-8, 7, 0], qp), qp, shape=(3,))
    array([-8,  7,  0], dtype=int8)
    """
    array = np.asarray(codes)
    if not np.issubdtype(array.dtype, np.integer) or qparams.bits > 16:
        raise KernelError(f"pack_codes takes integers of at most 16 bits, got {array.dtype}, {qparams.bits} bits")
    if array.size and (array.min() < qparams.qmin or array.max() > qparams.qmax):
        raise KernelError(
            f"codes from {array.min()} to {array.max()} do not fit in [{qparams.qmin}, {qparams.qmax}]: "
            "quantize with these qparams first"
        )
    unsigned = (array.astype(np.int64).ravel() - qparams.qmin).astype(">u2")
    every_bit = np.unpackbits(unsigned.view(np.uint8)).reshape(-1, 16)
    return np.packbits(every_bit[:, 16 - qparams.bits :])


def unpack_codes(packed: NDArray[np.uint8], qparams: QParams, shape: Sequence[int]) -> NDArray[np.integer]:
    """Return the codes that `pack_codes` packed, in their shape, dtype ``qparams.dtype``.

    Raises
    ------
    KernelError
        If the bytes are not as many as the shape needs, or hold a code above qmax.
    """
    count, bits = int(np.prod(shape, dtype=np.int64)), qparams.bits
    data = np.asarray(packed)
    if min(shape, default=1) < 0 or data.dtype != np.uint8 or data.shape != (packed_size(count, bits),):
        raise KernelError(
            f"shape {tuple(shape)}: {count} codes of {bits} bits are {packed_size(count, bits)} bytes, "
            f"got {data.dtype} of shape {data.shape}"
        )
    narrow = np.unpackbits(data)[: count * bits].reshape(count, bits)
    wide = np.zeros((count, 16), np.uint8)
    wide[:, 16 - bits :] = narrow
    codes = np.packbits(wide).view(">u2").astype(np.int64) + qparams.qmin
    if codes.size and codes.max() > qparams.qmax:
        raise KernelError(f"a packed code is {codes.max()}, above qmax={qparams.qmax}: these bytes are something else")
    return np.asarray(codes.astype(qparams.dtype).reshape(tuple(shape)))
