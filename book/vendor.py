# ruff: noqa: T201  (a script, and a build that talks)
"""Fetch MathJax, so that the book's formulas need no other server: ``python book/vendor.py``.

This file is also a Sphinx extension, named in ``_config.yml``: the build fetches the file itself when it is missing.
Without npm, or without a network, the book is built all the same.
Its formulas are then drawn by the copy of MathJax that Sphinx names by default, from a public server,
and a notice says so.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

PACKAGE = "mathjax@3.2.2"
"""MathJax 3 is one file. MathJax 4 needs a second package for its fonts."""

FILES = {
    "package/es5/tex-svg.js": "d4295dc33744836935c1399feece5159577b34c5c8ffb9f1c6324cd82e03a882",
    "package/LICENSE": "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
}
"""What is taken out of the package, and its SHA-256."""

STATIC = Path(__file__).parent / "_vendor"
FOLDER = STATIC / "vendor" / "mathjax"
TIMEOUT = 120  # seconds for npm


class VendorError(Exception):
    """MathJax cannot be had here; the message says why."""


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_there(folder: Path = FOLDER) -> bool:
    """Return True if every file is in the folder with the right checksum."""
    paths = {folder / Path(name).name: wanted for name, wanted in FILES.items()}
    return all(path.is_file() and checksum(path) == wanted for path, wanted in paths.items())


def fetch(folder: Path = FOLDER) -> None:
    """Put MathJax and its licence into the folder, unless they are there already.

    Raises
    ------
    VendorError
        If npm is missing or fails, or a file is not the one that was promised.
    """
    if is_there(folder):
        return
    with tempfile.TemporaryDirectory() as temporary:
        archive = _pack(Path(temporary))
        found = _extract(archive, Path(temporary))
        folder.mkdir(parents=True, exist_ok=True)
        for path in found:
            shutil.copyfile(path, folder / path.name)


def _pack(folder: Path) -> Path:
    """Let npm fetch the package into a folder; return the archive."""
    npm = shutil.which("npm")
    if npm is None:
        raise VendorError("npm is not installed")
    command = [npm, "pack", PACKAGE, "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(  # noqa: S603  (npm, with arguments written here)
            command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise VendorError(f"npm pack {PACKAGE} took more than {TIMEOUT} s") from None
    archives = list(folder.glob("*.tgz"))
    if done.returncode or not archives:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise VendorError(f"npm pack {PACKAGE} failed: {last}")
    return archives[0]


def _extract(archive: Path, folder: Path) -> list[Path]:
    """Take the files out of the archive and compare their checksums."""
    paths = []
    with tarfile.open(archive) as tar:
        for name, wanted in FILES.items():
            try:
                member = tar.extractfile(name)
            except KeyError:
                member = None
            if member is None:
                raise VendorError(f"{PACKAGE} has no file {name}")
            path = folder / Path(name).name
            path.write_bytes(member.read())
            if checksum(path) != wanted:
                raise VendorError(f"{name} of {PACKAGE} has SHA-256 {checksum(path)}, expected {wanted}")
            paths.append(path)
    return paths


def setup(app: Sphinx) -> dict[str, Any]:
    """Let Sphinx call this extension."""
    app.connect("config-inited", _use_local_mathjax)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _use_local_mathjax(_app: Sphinx, config: Config) -> None:
    """Point the pages to the local file, or say that they will need a network."""
    try:
        fetch()
    except VendorError as reason:
        # A notice, not a warning: a warning would stop the build.
        print(f"notice: no local MathJax ({reason}). Formulas will be drawn from a public server.")
        return
    config.html_static_path.append(str(STATIC))
    config.mathjax_path = "vendor/mathjax/tex-svg.js"


def main() -> int:
    """Fetch, and say where the files are."""
    try:
        fetch()
    except VendorError as reason:
        print(f"vendor.py: {reason}", file=sys.stderr)
        return 1
    print(f"{PACKAGE}: {', '.join(sorted(path.name for path in FOLDER.iterdir()))} in book/_vendor, checksums right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
