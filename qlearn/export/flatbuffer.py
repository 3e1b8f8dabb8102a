"""Reading a flatbuffer that may be damaged or hostile: every offset is checked, and the work is bounded by the file.

A flatbuffer is a tree of tables. A table begins with the distance back to its vtable; the vtable says at which distance
each field lies, 0 for one that is left out. Vectors begin with their length. All numbers are little-endian.

References
----------
https://flatbuffers.dev/internals/
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import ModelFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = {
    "bool": "<B", "int8": "<b", "uint8": "<B", "uint16": "<H", "int32": "<i", "uint32": "<I", "int64": "<q",
    "uint64": "<Q", "float32": "<f",
}  # fmt: skip
READS_PER_BYTE = 4
"""Parts of a file may be referred to many times; what is read in all may be this many times its size."""


class Flatbuffer:
    """Checked access to the bytes of a flatbuffer. Positions are counted from the start of the file."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.budget = READS_PER_BYTE * len(content) + 1024

    def root(self) -> int:
        """Return the position of the root table."""
        return self.follow(0)

    def number(self, position: int, kind: str) -> Any:
        """Return the number at a position."""
        code = KINDS[kind]
        size = struct.calcsize(code)
        self._check(position, size)
        return struct.unpack_from(code, self.content, position)[0]

    def follow(self, position: int) -> int:
        """Return where the offset at a position points to."""
        target = position + int(self.number(position, "uint32"))
        self._check(target, 4)
        return target

    def field(self, table: int, slot: int) -> int | None:
        """Return the position of a field of a table, None where it is left out."""
        vtable = table - int(self.number(table, "int32"))
        size = int(self.number(vtable, "uint16"))
        entry = 4 + 2 * slot
        if entry + 2 > size:
            return None
        distance = int(self.number(vtable + entry, "uint16"))
        return table + distance if distance else None

    def scalar(self, table: int, slot: int, kind: str, default: Any) -> Any:
        """Return a number of a table."""
        position = self.field(table, slot)
        return default if position is None else self.number(position, kind)

    def table(self, table: int, slot: int) -> int | None:
        """Return the position of a table inside a table."""
        position = self.field(table, slot)
        return None if position is None else self.follow(position)

    def vector(self, table: int, slot: int, dtype: str) -> NDArray[Any] | None:
        """Return a vector of numbers as an array, without copying; None where it is left out."""
        position = self.field(table, slot)
        if position is None:
            return None
        start = self.follow(position)
        count, item = int(self.number(start, "uint32")), np.dtype(dtype).newbyteorder("<")
        self._check(start + 4, count * item.itemsize)
        return np.frombuffer(self.content, item, count, start + 4)

    def tables(self, table: int, slot: int) -> list[int]:
        """Return the positions of the tables of a vector."""
        position = self.field(table, slot)
        if position is None:
            return []
        start = self.follow(position)
        count = int(self.number(start, "uint32"))
        self._check(start + 4, 4 * count)
        return [self.follow(start + 4 + 4 * index) for index in range(count)]

    def text(self, table: int, slot: int) -> str:
        """Return a string; what is not UTF-8 is replaced."""
        letters = self.vector(table, slot, "uint8")
        return "" if letters is None else letters.tobytes().decode("utf-8", "replace")

    def _check(self, position: int, size: int) -> None:
        if position < 0 or size < 0 or position + size > len(self.content):
            raise ModelFileError(f"damaged: {size} bytes at {position} lie outside its {len(self.content)} bytes")
        self.budget -= size
        if self.budget < 0:
            raise ModelFileError("damaged: it refers to the same bytes again and again")
