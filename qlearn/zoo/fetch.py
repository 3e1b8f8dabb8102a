"""Fetch the weights of real networks once, from where their authors publish them.

How sure the addresses in `REMOTE` are: every size and SHA-256 was taken from a copy of the very file.
The paths of ``resnet20`` and ``mobilenet_v1_0.25`` were seen in an index of the repositories, at the commit
that the address names. The path of ``resnet56`` stands in the README of its repository; the address names a
branch, because no commit was confirmed. No address was tried: the machine on which this was written has no
network. Whatever a server sends, only a file with the right SHA-256 is kept.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qlearn.errors import ChecksumError, DataError, MissingDataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK = 1 << 16  # bytes that are read at a time
TIMEOUT = 30.0  # seconds without a byte before giving up


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Parameters
    ----------
    address : str
        Where it is published.
    path : str
        Where it goes, inside the cache folder or the folder that ``QLEARN_DATA`` names.
    size : int
        Bytes.
    sha256 : str
        Checksum of the whole file, 64 hexadecimal digits.
    licence : str
        Licence of the weights, as their publisher states it.
    """

    address: str
    path: str
    size: int
    sha256: str
    licence: str


REMOTE: dict[str, RemoteFile] = {
    "mobilenet_v1_0.25": RemoteFile(
        "https://github.com/STMicroelectronics/stm32ai-modelzoo/raw/6f10965e6a40e2a28abd9c181f43cac4de4111c5/"
        "image_classification/mobilenetv1/Public_pretrainedmodel_public_dataset/ImageNet/"
        "mobilenet_v1_0.25_224/mobilenet_v1_0.25_224.h5",
        "mobilenet_v1_0.25/mobilenet_v1_0.25_224.h5",
        2161312,
        "dc1ff623e6cd99c3cc0dd2821ca0807ba013606af5a4e2afd4488fbf26a8b589",
        "Apache-2.0",
    ),
    "resnet20": RemoteFile(
        "https://github.com/akamaster/pytorch_resnet_cifar10/raw/66514ca38d5679354766dee91e912d8766bdd227/"
        "pretrained_models/resnet20-12fca82f.th",
        "cifar10_resnets/resnet20-12fca82f.th",
        1099231,
        "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
        "BSD-2-Clause",
    ),
    "resnet56": RemoteFile(
        "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/resnet56-4bfd9763.th",
        "cifar10_resnets/resnet56-4bfd9763.th",
        3471733,
        "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
        "BSD-2-Clause",
    ),
}
"""What `fetch` knows, by name."""


def cache_folder() -> Path:
    """Return where fetched files go; the folder need not exist.

    It is the folder that ``QLEARN_CACHE`` names, else ``qlearn`` in the user's cache folder:
    ``%LOCALAPPDATA%`` on Windows, ``~/Library/Caches`` on macOS, and elsewhere ``$XDG_CACHE_HOME`` or
    ``~/.cache``.

    Examples
    --------
    >>> cache_folder().name != ""
    True
    """
    chosen = os.environ.get("QLEARN_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "qlearn"


def fetch(name: str, folder: str | Path | None = None, *, progress: bool = True) -> Path:
    """Fetch the weights of a network, unless they are there already.

    The bytes go into a file ``….part`` beside the target. It is renamed only when its SHA-256 is right, so
    that the target is whole or absent. If the connection ends early, the next call goes on from there.
    Let one process at a time fetch a name.

    Parameters
    ----------
    name : str
        A key of `REMOTE`.
    folder : str or Path, optional
        Where files go; `cache_folder` if not given.
    progress : bool
        Draw a bar, if tqdm is installed and the standard error stream is a terminal.

    Returns
    -------
    Path
        The file, whose checksum is right.

    Raises
    ------
    MissingDataError
        If the name is unknown, or the server has no such file.
    ChecksumError
        If the server sends other bytes; nothing of them is kept.
    DataError
        If the server cannot be reached, the connection ends early, or the file cannot be written.

    Examples
    --------
    >>> print(REMOTE["resnet20"].path, REMOTE["resnet20"].size)
    cifar10_resnets/resnet20-12fca82f.th 1099231
    """
    if name not in REMOTE:
        raise MissingDataError(f"nothing to fetch under the name {name!r}; there are {', '.join(sorted(REMOTE))}")
    remote = REMOTE[name]
    target = Path(folder if folder is not None else cache_folder()) / remote.path
    partial = target.with_name(target.name + ".part")
    try:
        if is_intact(target, remote):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(remote, partial, name if progress else None)
        _verify(partial, remote)
        partial.replace(target)
    except OSError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"cannot write {target} ({error}); make room, or name another folder by QLEARN_CACHE"
        ) from error
    return target


def is_intact(path: Path, remote: RemoteFile) -> bool:
    """Tell whether a file is there with the right size and SHA-256."""
    return path.is_file() and path.stat().st_size == remote.size and _sha256(path) == remote.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _verify(partial: Path, remote: RemoteFile) -> None:
    """Refuse and remove a file with other bytes than promised."""
    found = _sha256(partial)
    if found != remote.sha256:
        size = partial.stat().st_size
        partial.unlink()
        raise ChecksumError(
            f"{remote.address} sent another file: expected SHA-256 {remote.sha256} ({remote.size} bytes), "
            f"got {found} ({size} bytes); it was removed, try again, and if it happens twice, "
            f"put the right file where QLEARN_DATA points, as {remote.path}"
        )


def _download(remote: RemoteFile, partial: Path, label: str | None) -> None:
    """Bring `partial` to its full size, going on where an earlier call stopped."""
    have = partial.stat().st_size if partial.exists() else 0
    if have == remote.size:
        return  # only the check and the renaming were missing
    if have > remote.size:
        have = 0
    with _open(remote, have) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            have = 0  # the server ignored the wish and sends the whole file
        with partial.open("ab" if have else "wb") as stream, _bar(label, have, remote.size) as advance:
            for chunk in _chunks(response, remote):
                stream.write(chunk)
                have += len(chunk)
                advance(len(chunk))
                if have > remote.size:
                    break  # longer than promised: the check will say so
    if have < remote.size:
        raise DataError(
            f"the connection to {remote.address} ended after {have} of {remote.size} bytes; "
            "run it again, it goes on from there"
        )


def _open(remote: RemoteFile, have: int) -> http.client.HTTPResponse:
    """Ask for the file from byte `have` on."""
    request = urllib.request.Request(remote.address, headers={"User-Agent": "qlearn"})  # noqa: S310  (see REMOTE)
    if have:
        request.add_header("Range", f"bytes={have}-")
    remedy = f"or put the file by hand where QLEARN_DATA points, as {remote.path}"
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return _open(remote, 0)
        kind = MissingDataError if error.code in (404, 410) else DataError
        raise kind(
            f"the server answered {error.code} {error.reason} for {remote.address}; try again later, {remedy}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise DataError(
            f"cannot reach {remote.address} ({reason}); check the network and try again, {remedy}"
        ) from error
    if response.status == http.HTTPStatus.PARTIAL_CONTENT and not _continues(response, have):
        response.close()
        return _open(remote, 0)
    return response


def _continues(response: http.client.HTTPResponse, have: int) -> bool:
    """Tell whether a partial answer starts at byte `have`."""
    content_range: str = response.headers.get("Content-Range", "")
    return have == 0 or content_range.startswith(f"bytes {have}-")


def _chunks(response: http.client.HTTPResponse, remote: RemoteFile) -> Iterator[bytes]:
    """Read to the end; what came before a broken connection has been yielded, and so is kept."""
    while True:
        try:
            chunk = response.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise DataError(
                f"the connection to {remote.address} broke ({error}); run it again, it goes on from there"
            ) from error
        if not chunk:
            return
        yield chunk


@contextmanager
def _bar(label: str | None, have: int, total: int) -> Iterator[Callable[[int], object]]:
    """Give a function that counts bytes, and draws them if somebody is looking."""
    try:
        from tqdm import tqdm  # optional
    except ImportError:
        tqdm = None
    if label is None or tqdm is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    with tqdm(desc=label, initial=have, total=total, unit="B", unit_scale=True) as bar:
        yield bar.update
