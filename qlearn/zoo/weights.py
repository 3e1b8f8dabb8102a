"""Find published weights, check them, read them, and put them into a network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qlearn.errors import ChecksumError, DataError, MissingDataError
from qlearn.zoo.bundled import read_asset
from qlearn.zoo.fetch import REMOTE, cache_folder, is_intact
from qlearn.zoo.models.mobilenet import load_keras_mobilenet

_COUNTER = "num_batches_tracked"  # batch norm's step counter: nothing reads it in evaluation


def data_folder() -> Path | None:
    """Return the folder that ``QLEARN_DATA`` names, or None if it is not set.

    Raises
    ------
    MissingDataError
        If it is set, but there is no such folder.
    """
    named = os.environ.get("QLEARN_DATA")
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise MissingDataError(f"QLEARN_DATA names {named!r}, which is no folder; correct it or unset it")
    return folder


def find_weights(name: str) -> Path:
    """Find the file of a network in the folder that ``QLEARN_DATA`` names, else in the cache of `fetch`.

    Parameters
    ----------
    name : str
        A key of `REMOTE`.

    Returns
    -------
    Path
        The file, whose SHA-256 is right.

    Raises
    ------
    MissingDataError
        If it is in neither place.
    ChecksumError
        If it is there, but damaged.
    """
    remote = REMOTE[name]
    roots = [root for root in (data_folder(), cache_folder()) if root is not None]
    for root in roots:
        path = root / remote.path
        if path.is_file():
            if not is_intact(path, remote):
                raise ChecksumError(
                    f"{path} is damaged: expected {remote.size} bytes with SHA-256 {remote.sha256}; "
                    f"remove it and run: qlearn fetch {name}"
                )
            return path
    looked = " and ".join(str(root / remote.path) for root in roots)
    raise MissingDataError(
        f"no weights for {name}: looked for {looked}; run: qlearn fetch {name}, "
        "or set QLEARN_DATA to a folder that holds them"
    )


def read_bundled(name: str) -> dict[str, Tensor]:
    """Read the state dict of a network that ships with qlearn."""
    return {key: torch.from_numpy(array) for key, array in read_asset(f"{name}.npz").items()}


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a PyTorch checkpoint; nothing in it is run.

    A table under the key ``state_dict`` is used if there is one. The prefix ``module.`` that data-parallel
    training leaves is taken away.

    Raises
    ------
    MissingDataError
        If there is no such file.
    DataError
        If it is no checkpoint, or holds more than tensors, numbers and tables.
    """
    if not path.is_file():
        raise MissingDataError(f"no weights at {path}")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # foreign bytes make the reader fail in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a PyTorch checkpoint of plain tensors ({reason})") from error
    state = saved.get("state_dict", saved) if isinstance(saved, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path}: no state dict in it; save one with torch.save(net.state_dict(), path)")
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def read_mobilenet(path: Path) -> dict[str, Tensor]:
    """Read the state dict of `MobileNetV1` from the ``.h5`` file of Keras.

    Without h5py, the same arrays are taken from an ``.npz`` file beside it, if there is one.

    Raises
    ------
    DataError
        If h5py is missing and there is no ``.npz`` file, or an array is missing.
    """
    beside = path.with_suffix(".npz")
    try:
        arrays = read_keras(path)
    except ImportError as error:
        if not beside.is_file():
            raise DataError(f"reading {path} needs h5py: pip install qlearn[zoo]") from error
        with np.load(beside, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    try:
        return load_keras_mobilenet(arrays)
    except KeyError as error:
        raise DataError(f"{path}: no array {error} in it; these are not the weights of MobileNetV1") from error


def read_keras(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Read every array of a Keras ``.h5`` file, by names such as ``conv1/kernel``.

    Raises
    ------
    ImportError
        If h5py is missing.
    DataError
        If it is no such file.
    """
    import h5py  # optional

    arrays: dict[str, npt.NDArray[np.float32]] = {}

    def visit(key: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            layer, array = key.split("/")[-2:]
            arrays[f"{layer}/{array.removesuffix(':0')}"] = np.asarray(item, np.float32)

    try:
        with h5py.File(path, "r") as file:
            file["model_weights"].visititems(visit)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a network that Keras saved ({error})") from error
    return arrays


def load_state(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Put weights into a network, in place, if every one of them fits.

    Parameters
    ----------
    module : nn.Module
        The network. It is left as it was if something does not fit.
    state : mapping of str to Tensor
        What ``module.state_dict()`` asks for. Batch norm's ``num_batches_tracked`` may be absent.
    source : str
        Where the weights come from, for the message.

    Raises
    ------
    DataError
        If keys are missing or unexpected, or shapes differ.

    Examples
    --------
    >>> load_state(nn.Linear(2, 1), {"weight": torch.zeros(1, 3)}, "notes.pt")
    Traceback (most recent call last):
    qlearn.errors.DataError: notes.pt does not fit Linear: missing bias; weight is (1, 3), not (1, 2)
    """
    wanted: dict[str, Any] = dict(module.state_dict())
    missing = [key for key in wanted if key not in state and not key.endswith(_COUNTER)]
    unexpected = [key for key in state if key not in wanted]
    shapes = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    found = (("missing ", missing), ("unexpected ", unexpected), ("", shapes))
    problems = [word + _some(items) for word, items in found if items]
    if problems:
        raise DataError(f"{source} does not fit {type(module).__name__}: {'; '.join(problems)}")
    module.load_state_dict(dict(state), strict=False)  # strict would ask for the step counters


def _some(items: list[str], shown: int = 5) -> str:
    """Join the first few items and count the others."""
    rest = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + rest
