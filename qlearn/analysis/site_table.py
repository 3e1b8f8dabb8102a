"""Tables with one row for each site of a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar, overload


class HasSite(Protocol):
    """A row that belongs to one place of a network."""

    @property
    def site(self) -> str:
        """Name of the layer."""


Row = TypeVar("Row", bound=HasSite)


class SiteTable(Sequence[Row]):
    """Rows in the order in which the layers run: ``table[0]``, or ``table["conv1"]`` by name."""

    rows: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @overload
    def __getitem__(self, key: str | int) -> Row: ...

    @overload
    def __getitem__(self, key: slice) -> tuple[Row, ...]: ...

    def __getitem__(self, key: Any) -> Any:
        """Return the row of that place or site; KeyError lists the sites if there is none."""
        if not isinstance(key, str):
            return self.rows[key]
        for row in self.rows:
            if row.site == key:
                return row
        raise KeyError(f"no site {key!r}; there are {', '.join(row.site for row in self.rows)}")
