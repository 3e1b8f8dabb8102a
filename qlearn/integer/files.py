"""Model files: written and read without pickle, refused unless every byte is as it was written.

A file is 8 bytes of magic, 4 bytes of format version, the SHA-256 of the rest, and the rest:
an uncompressed ``.npz`` archive with one JSON text (the graph) and the arrays it names.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from qlearn.errors import ModelFileError, QLearnError
from qlearn.graph.preprocess import Preprocess
from qlearn.integer.checks import check_size
from qlearn.integer.layers import IntegerLayer
from qlearn.integer.model import IntegerModel
from qlearn.numbers.qparams import QParams

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MAGIC = b"\x93QLEARN\n"
FORMAT_VERSION = 1
_HEAD = len(MAGIC) + 4 + 32
LARGEST_FILE = 2**29
"""Bytes. The weights of the largest convolutional networks take a third of that as int8."""


def save(model: IntegerModel, path: str | os.PathLike[str]) -> None:
    """Write an integer model to a file, through a temporary file beside it.

    Parameters
    ----------
    model : IntegerModel
    path : path-like
        By custom ``something.qlearn``.

    Raises
    ------
    ModelFileError
        If a layer runs in float: its code cannot be stored without executing it again at load time.
    """
    arrays: dict[str, NDArray[Any]] = {}
    layers = [_layer_to_json(layer, arrays) for layer in model.layers]
    graph = {
        "name": model.name,
        "output": model.output,
        "input_shape": list(model.input_shape),
        "policy": model.policy,
        "preprocess": None if model.preprocess is None else model.preprocess.to_dict(),
        "layers": layers,
    }
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(graph).encode(), np.uint8)
    np.savez(buffer, allow_pickle=False, graph=text, **arrays)
    body = buffer.getvalue()
    head = MAGIC + FORMAT_VERSION.to_bytes(4, "little") + hashlib.sha256(body).digest()
    write_whole(path, head + body, ModelFileError)


def write_whole(path: str | os.PathLike[str], content: bytes, refusal: type[QLearnError]) -> None:
    """Write a file through a temporary one beside it, so that nobody ever finds half of it.

    Parameters
    ----------
    path : path-like
    content : bytes
    refusal : type
        The error to raise if it cannot be written.
    """
    target = Path(path)
    try:
        if target.is_dir() or not target.name:
            raise refusal(f"{path}: cannot be written (it is a folder): name a file in it")
        temporary = target.with_name(target.name + ".part")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # else a power cut may keep the new name and not the content
            temporary.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        if isinstance(error, QLearnError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise refusal(f"{path}: cannot be written ({reason})") from error


def load(path: str | os.PathLike[str]) -> IntegerModel:
    """Read an integer model from a file. Nothing in it is ever executed.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, written by something else, or of a newer format.
    """
    body = _checked_body(Path(path))
    try:
        arrays = _arrays(body)
        model = _model_from_json(json.loads(bytes(arrays.pop("graph")).decode()), arrays)
        check_size(model.layers, model.site_shapes)
    except QLearnError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except Exception as error:  # whatever a hostile file provokes, the answer is ours
        raise ModelFileError(
            f"{path}: not a model that this qlearn can read ({type(error).__name__}: {error})"
        ) from error
    return model


@contextlib.contextmanager
def open_model_file(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file of bearable size. Pipes and devices, which may never end, are refused.

    Raises
    ------
    ModelFileError
        If it is missing, no regular file, or larger than `LARGEST_FILE`.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ModelFileError(f"{path}: cannot be read (it is a folder or a device)")
        if size > LARGEST_FILE:
            raise ModelFileError(f"{path}: {size} bytes, and qlearn reads model files up to {LARGEST_FILE}")
        with path.open("rb") as file:
            yield file
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        if isinstance(error, ModelFileError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelFileError(f"{path}: cannot be read ({reason})") from error


def _checked_body(path: Path) -> bytes:
    """What stands behind the head; a file of another kind is not read any further than that."""
    with open_model_file(path) as file:
        head = file.read(_HEAD)
        if not head.startswith(MAGIC):
            raise ModelFileError(f"{path}: not a qlearn model file (its first bytes are {head[:8]!r})")
        if len(head) < _HEAD:
            raise ModelFileError(f"{path}: truncated after {len(head)} bytes: write it again, or copy it again")
        version = int.from_bytes(head[len(MAGIC) : len(MAGIC) + 4], "little")
        if version != FORMAT_VERSION:
            raise ModelFileError(f"{path}: format {version}, this qlearn reads format {FORMAT_VERSION}: upgrade qlearn")
        body = file.read()
    if hashlib.sha256(body).digest() != head[-32:]:
        raise ModelFileError(f"{path}: damaged (the checksum does not match): write it again, or copy it again")
    return body


def _arrays(body: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an uncompressed ``.npz`` archive; none is larger than the bytes that are there for it."""
    arrays: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ModelFileError("the archive inside is compressed, which qlearn never writes")
        if sum(entry.file_size for entry in entries) > len(body):
            raise ModelFileError("the arrays inside share bytes, which qlearn never writes")
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            arrays[name] = _array(archive.read(entry), name)
    return arrays


def _array(content: bytes, name: str) -> NDArray[Any]:
    """One array of numbers in the format of ``.npy``, version 1."""
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ModelFileError(f"array {name!r} has a format that qlearn never writes")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in "iuf" or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ModelFileError(f"array {name!r} ({dtype}, shape {shape}) does not fit its {len(content)} bytes")
    flat = np.frombuffer(content, dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="), order="C")


def _layer_to_json(layer: IntegerLayer, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    if layer.op == "float":
        raise ModelFileError(
            f"layer {layer.name!r} runs in float ({layer.attrs.get('reason', 'no integer kernel')}): a model file "
            "holds integers only. Replace the layer, or rebuild the model from its recipe where it is used"
        )
    key = str(len(arrays))
    for field in ("weight", "bias"):
        array = getattr(layer, field)
        if array is not None:
            arrays[f"{key}.{field}"] = array
    return {
        "name": layer.name,
        "op": layer.op,
        "inputs": list(layer.inputs),
        "attrs": dict(layer.attrs),
        "clamp": None if layer.clamp is None else [np.asarray(limit).tolist() for limit in layer.clamp],
        "output": _qparams_to_json(layer.output, arrays, f"{key}.output"),
        "weight": f"{key}.weight" if layer.weight is not None else None,
        "bias": f"{key}.bias" if layer.bias is not None else None,
        "weight_qparams": None
        if layer.weight_qparams is None
        else _qparams_to_json(layer.weight_qparams, arrays, f"{key}.weight"),
    }


def _qparams_to_json(qparams: QParams, arrays: dict[str, NDArray[Any]], key: str) -> dict[str, Any]:
    arrays[f"{key}_scale"], arrays[f"{key}_zero_point"] = qparams.scale, qparams.zero_point
    return {"key": key, "qmin": qparams.qmin, "qmax": qparams.qmax, "axis": qparams.axis}


def _qparams_from_json(record: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> QParams:
    key = record["key"]
    return QParams(arrays[f"{key}_scale"], arrays[f"{key}_zero_point"], record["qmin"], record["qmax"], record["axis"])


def _layer_from_json(record: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> IntegerLayer:
    if record["op"] == "float":
        raise ModelFileError(f"layer {record['name']!r} runs in float, which a file cannot hold")
    weight_qparams = record["weight_qparams"]
    return IntegerLayer(
        name=record["name"],
        op=record["op"],
        inputs=tuple(record["inputs"]),
        output=_qparams_from_json(record["output"], arrays),
        attrs={key: _tuples(value) for key, value in record["attrs"].items()},
        weight=None if record["weight"] is None else arrays[record["weight"]],
        weight_qparams=None if weight_qparams is None else _qparams_from_json(weight_qparams, arrays),
        bias=None if record["bias"] is None else arrays[record["bias"]],
        clamp=None if record["clamp"] is None else (_limit(record["clamp"][0]), _limit(record["clamp"][1])),
    )


def _model_from_json(graph: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> IntegerModel:
    layers = tuple(_layer_from_json(record, arrays) for record in graph["layers"])
    preprocess = graph["preprocess"]
    return IntegerModel(
        layers=layers,
        output=graph["output"],
        input_shape=tuple(int(size) for size in graph["input_shape"]),
        policy=graph["policy"],
        name=str(graph["name"]),
        preprocess=None if preprocess is None else Preprocess.from_dict(preprocess),
    )


def _limit(value: int | list[int]) -> int | NDArray[np.int32]:
    """One code for all channels, or one per channel."""
    return np.array(value, np.int32) if isinstance(value, list) else int(value)


def _tuples(value: Any) -> Any:
    """JSON knows lists only; attributes are tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
