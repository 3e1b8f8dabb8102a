"""Checkpoints of a training: arrays in an ``.npz`` file, the rest as JSON inside it, and never a pickle."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from qlearn.errors import MissingDataError, ModelFileError
from qlearn.integer.files import write_whole

FORMAT = "qlearn training checkpoint 1"
_TREE = "tree"
_PLAIN = (str, int, float, bool, type(None))


class Part(Protocol):
    """A network, an optimizer, a scheduler: whatever has a state dict."""

    def state_dict(self) -> Any:
        """Return the state."""

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take over a state, in place."""


def save_checkpoint(path: str | Path, parts: dict[str, Part], **progress: Any) -> None:
    """Write everything that a training needs to go on as if it had not stopped.

    The file appears whole or not at all: a crash never leaves half of one.

    Parameters
    ----------
    path : str or Path
        Conventionally ``.npz``.
    parts : dict of str to Part
        ``{"net": qat, "optimizer": optimizer, "schedule": schedule}``.
    **progress
        Numbers, strings, lists, dicts and tensors: how far the training has come.

    Raises
    ------
    ModelFileError
        If a state holds something else, such as a function, or the file cannot be written.
    """
    arrays: dict[str, Any] = {}
    content = {
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "progress": progress,
        "random": torch.get_rng_state(),
    }
    tree = json.dumps({"format": FORMAT, "content": _packed(content, arrays, "")})
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **{_TREE: np.frombuffer(tree.encode(), np.uint8)}, **arrays)
    write_whole(path, file.getvalue(), ModelFileError)


def load_checkpoint(path: str | Path, parts: dict[str, Part]) -> dict[str, Any]:
    """Put every part, and torch's random numbers, into the state that was saved; return the progress.

    Parameters
    ----------
    path : str or Path
    parts : dict of str to Part
        Built as they were for `save_checkpoint`; changed in place. After an error some may be changed: build them anew.

    Raises
    ------
    MissingDataError
        If there is no such file.
    ModelFileError
        If it is damaged, was written by something else, or has other parts.

    Examples
    --------
    >>> import tempfile
    >>> net = torch.nn.Linear(2, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_checkpoint(folder + "/run.npz", {"net": net}, epoch=3)
    ...     load_checkpoint(folder + "/run.npz", {"net": torch.nn.Linear(2, 1)})
    {'epoch': 3}
    """
    content = _read(Path(path))
    saved = content["parts"]
    if set(saved) != set(parts):
        raise ModelFileError(f"{path} holds {', '.join(sorted(saved))}, not {', '.join(sorted(parts))}")
    for name, part in parts.items():
        try:
            part.load_state_dict(saved[name])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelFileError(f"{path} does not fit {name!r}: {error}") from error
    try:
        torch.set_rng_state(content["random"])
    except (RuntimeError, TypeError) as error:
        raise ModelFileError(f"{path} does not fit torch's random numbers: {error}") from error
    progress: dict[str, Any] = content["progress"]
    return progress


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            tree = json.loads(file[_TREE].tobytes())
            if tree["format"] != FORMAT:
                raise ModelFileError(f"{path}: {tree['format']!r} is another format than {FORMAT!r}")
            content: dict[str, Any] = _unpacked(tree["content"], file)
            if not isinstance(content["parts"], dict) or not {"progress", "random"} <= content.keys():
                raise ModelFileError(f"{path}: not a checkpoint of qlearn (parts, progress or random numbers missing)")
            return content
    except FileNotFoundError as error:
        raise MissingDataError(f"no checkpoint at {path}") from error
    except ModelFileError:
        raise
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        EOFError,
        OSError,
        zipfile.BadZipFile,
    ) as error:
        raise ModelFileError(f"{path}: not a checkpoint of qlearn, or a damaged one ({error})") from error


def _packed(value: Any, arrays: dict[str, Any], where: str) -> Any:
    """JSON for a value; tensors go to `arrays`. Everything but plain values becomes ``[kind, content]``."""
    if isinstance(value, Tensor):
        key = f"array{len(arrays)}"
        arrays[key] = _array(value, where)
        return ["tensor", key]
    if isinstance(value, np.generic):
        return _packed(value.item(), arrays, where)
    if isinstance(value, _PLAIN):
        return ["plain", value]
    if isinstance(value, dict):
        kind = {Counter: "counter", OrderedDict: "ordered"}.get(type(value), "dict")
        pairs = [[_packed(k, arrays, where), _packed(v, arrays, f"{where}.{k}")] for k, v in value.items()]
        return [kind, pairs]
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return [kind, [_packed(item, arrays, f"{where}[{i}]") for i, item in enumerate(value)]]
    raise ModelFileError(
        f"a checkpoint holds tensors, numbers, strings, lists and dicts, but {where.lstrip('.')} is a "
        f"{type(value).__name__}"
    )


def _array(value: Tensor, where: str) -> Any:
    try:
        return value.detach().cpu().numpy()
    except TypeError as error:
        raise ModelFileError(f"{where.lstrip('.')}: NumPy has no {value.dtype}: {error}") from error


def _unpacked(value: Any, arrays: Any) -> Any:
    kind, content = value
    if kind == "tensor":
        return torch.from_numpy(arrays[content])
    if kind == "plain":
        return content
    if kind in ("list", "tuple"):
        items = [_unpacked(item, arrays) for item in content]
        return items if kind == "list" else tuple(items)
    table = {"counter": Counter, "ordered": OrderedDict, "dict": dict}[kind]
    return table({_unpacked(key, arrays): _unpacked(item, arrays) for key, item in content})
