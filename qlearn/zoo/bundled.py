"""Weights and pictures that ship inside the package, checked at every load."""

from __future__ import annotations

import hashlib
import io
import zipfile
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from qlearn.errors import ChecksumError, DataError, MissingDataError

SUMS = "SHA256SUMS"
"""The table of checksums, beside the assets; ``tools/checksums.py`` writes it."""


def read_asset(name: str) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of a shipped ``.npz`` file.

    Parameters
    ----------
    name : str
        File name inside ``qlearn/zoo/assets``.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    MissingDataError
        If there is no such asset.
    ChecksumError
        If its bytes are not the ones that were shipped.
    DataError
        If it is no ``.npz`` file, or would need pickle.

    Examples
    --------
    >>> pictures = read_asset("digits_evaluation.npz")
    >>> pictures["images"].shape, pictures["labels"].shape
    ((2000, 32, 32, 3), (2000,))
    """
    try:
        with np.load(io.BytesIO(read_asset_bytes(name)), allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"the asset {name} is no .npz file of plain arrays ({error})") from error


def read_asset_bytes(name: str) -> bytes:
    """Read a shipped file as bytes and compare its SHA-256 with the table.

    Raises
    ------
    MissingDataError, ChecksumError
        As for `read_asset`.
    """
    promised = parse_sums(_read(SUMS).decode())
    if name not in promised:
        raise MissingDataError(f"no asset {name!r} in qlearn; there are {', '.join(sorted(promised))}")
    content = _read(name)
    found = hashlib.sha256(content).hexdigest()
    if found != promised[name]:
        raise ChecksumError(
            f"the asset {name} is damaged: its SHA-256 should be {promised[name]}, but is {found}; "
            "install qlearn again, or, if you made the file yourself, run: python tools/checksums.py write"
        )
    return content


def parse_sums(text: str) -> dict[str, str]:
    """Read a table in the format of ``sha256sum``: file name to checksum.

    Examples
    --------
    >>> parse_sums("0a1b  weights.npz")
    {'weights.npz': '0a1b'}
    """
    pairs = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return {name.strip(): checksum for checksum, name in pairs}


def _read(name: str) -> bytes:
    """Read a file of the assets folder, wherever the package lies."""
    try:
        return (resources.files("qlearn.zoo") / "assets" / name).read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise MissingDataError(f"the asset {name} is missing from qlearn; install it again") from error
