"""Keep the checksums of the shipped assets: ``python tools/checksums.py write`` or ``check``."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "qlearn" / "zoo" / "assets"
SUMS = "SHA256SUMS"
"""Name of the table inside the folder; ``sha256sum -c`` reads it too."""


def table(folder: Path) -> str:
    """Return one line ``checksum  name`` for each asset, sorted by name.

    Parameters
    ----------
    folder : Path
        The assets. The table itself, hidden files, Python files and texts (.md) do not count.

    Returns
    -------
    str
    """
    return "".join(f"{checksum}  {name}\n" for name, checksum in _checksums(folder).items())


def _checksums(folder: Path) -> dict[str, str]:
    """Compute name and checksum of every asset."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != SUMS and path.suffix not in (".py", ".md") and not path.name.startswith(".")
    }


def differences(folder: Path) -> list[str]:
    """Say how the files and the table differ, one line for each file; empty if they agree."""
    path = folder / SUMS
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    pairs = (line.split(maxsplit=1) for line in text.splitlines())
    promised = {name: checksum for checksum, name in pairs}
    found = _checksums(folder)
    lines = [f"{name}: in the table, but not there" for name in promised.keys() - found.keys()]
    lines += [f"{name}: there, but not in the table" for name in found.keys() - promised.keys()]
    lines += [f"{name}: changed" for name in promised.keys() & found.keys() if promised[name] != found[name]]
    return sorted(lines)


def main() -> int:
    """Parse the command line; return 1 if ``check`` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("action", choices=["write", "check"])
    parser.add_argument("--folder", type=Path, default=ASSETS, help="the assets")
    options = parser.parse_args()
    if options.action == "write":
        (options.folder / SUMS).write_text(table(options.folder), encoding="utf-8", newline="\n")
        return 0
    found = differences(options.folder)
    for line in found:
        print(line, file=sys.stderr)
    if found:
        print("if that is meant: python tools/checksums.py write", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
