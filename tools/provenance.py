"""Where a results file comes from, and how it is written: whole, or not at all."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import platform
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import qlearn as ql

if TYPE_CHECKING:
    from collections.abc import Iterator


def head(command: str) -> dict[str, Any]:
    """Return what stands at the top of every results file: the day (UTC), the command and the versions.

    Examples
    --------
    >>> list(head("python tools/table1.py"))
    ['date', 'command', 'versions']
    """
    versions = {"qlearn": ql.__version__, "torch": torch.__version__, "numpy": np.__version__}
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "command": command,
        "versions": versions | {"python": platform.python_version()},
    }


def typed(tool: str, arguments: list[str] | None = None) -> str:
    """Return the command line of a tool, but for where the file went.

    Examples
    --------
    >>> typed("table1.py", ["--images", "100", "--output", "here.json"])
    'python tools/table1.py --images 100'
    """
    words = sys.argv[1:] if arguments is None else arguments
    kept = [word for before, word in zip(["", *words], words, strict=False) if "--output" not in (before, word)]
    return shlex.join(["python", f"tools/{tool}", *kept])


def formatted(document: dict[str, Any]) -> str:
    """Return JSON with one line per network, layer and point of a front, numbers to six digits."""

    def short(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.6g}")
        if isinstance(value, dict):
            return {key: short(one) for key, one in value.items()}
        return [short(one) for one in value] if isinstance(value, list) else value

    def lines(value: Any, depth: int) -> str:
        indent = " " * (depth + 1)
        if depth < 3 and isinstance(value, dict) and any(isinstance(one, dict | list) for one in value.values()):
            inner = [f"{indent}{json.dumps(key)}: {lines(one, depth + 1)}" for key, one in value.items()]
            return "{\n" + ",\n".join(inner) + "\n" + indent[1:] + "}"
        if isinstance(value, list) and any(isinstance(one, dict) for one in value):
            inner = [indent + json.dumps(one, ensure_ascii=False) for one in value]
            return "[\n" + ",\n".join(inner) + "\n" + indent[1:] + "]"
        return json.dumps(value, ensure_ascii=False)

    return lines(short(document), 0) + "\n"


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a place to write to, and move what was written there to `path`: whoever stops it leaves the old file whole.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder, whole(Path(folder) / "a.json") as part:
    ...     _ = part.write_text("{}")
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder:
        part = Path(folder) / path.name
        yield part
        part.replace(path)


def write(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")
