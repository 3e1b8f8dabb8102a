"""Model files: written and read without pickle, refused unless every byte is as it was written.

A file is 8 bytes of magic, 4 bytes of format version, the SHA-256 of the rest, and the rest:
an uncompressed ``.npz`` archive with one JSON text (the graph) and the arrays it names.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import ModelFileError, QLearnError
from qlearn.graph.preprocess import Preprocess
from qlearn.integer.kernels import KERNELS
from qlearn.integer.layers import IntegerLayer
from qlearn.integer.model import IntegerModel
from qlearn.numbers.qparams import QParams

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

MAGIC = b"\x93QLEARN\n"
FORMAT_VERSION = 1
_HEAD = len(MAGIC) + 4 + 32


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
    target = Path(path)
    if target.is_dir() or not target.name:
        raise ModelFileError(f"{path}: cannot be written (it is a folder): name a file such as net.qlearn")
    temporary = target.with_name(target.name + ".part")
    try:
        temporary.write_bytes(MAGIC + FORMAT_VERSION.to_bytes(4, "little") + hashlib.sha256(body).digest() + body)
        temporary.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ModelFileError(f"{target}: cannot be written ({error.strerror})") from error


def load(path: str | os.PathLike[str]) -> IntegerModel:
    """Read an integer model from a file. Nothing in it is ever executed.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, written by something else, or of a newer format.
    """
    body = _checked_body(Path(path))
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ModelFileError(f"{path}: the archive inside is compressed, which qlearn never writes")
        with np.load(io.BytesIO(body), allow_pickle=False) as contents:
            arrays = {key: contents[key] for key in contents.files}
        return _model_from_json(json.loads(bytes(arrays.pop("graph")).decode()), arrays)
    except QLearnError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except Exception as error:  # whatever a hostile file provokes, the answer is ours
        raise ModelFileError(
            f"{path}: not a model that this qlearn can read ({type(error).__name__}: {error})"
        ) from error


def _checked_body(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from error
    if not data.startswith(MAGIC):
        raise ModelFileError(f"{path}: not a qlearn model file (its first bytes are {data[:8]!r})")
    version = int.from_bytes(data[len(MAGIC) : len(MAGIC) + 4], "little")
    if len(data) < _HEAD:
        raise ModelFileError(f"{path}: truncated after {len(data)} bytes: write it again, or copy it again")
    if version != FORMAT_VERSION:
        raise ModelFileError(f"{path}: format {version}, this qlearn reads format {FORMAT_VERSION}: upgrade qlearn")
    body = data[_HEAD:]
    if hashlib.sha256(body).digest() != data[_HEAD - 32 : _HEAD]:
        raise ModelFileError(f"{path}: damaged (the checksum does not match): write it again, or copy it again")
    return body


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
    op = record["op"]
    if op != "input" and (op not in KERNELS or op == "float"):
        raise ModelFileError(f"layer {record['name']!r} has the unknown operation {op!r}")
    weight_qparams = record["weight_qparams"]
    if op in ("conv2d", "linear") and (record["weight"] is None or weight_qparams is None):
        raise ModelFileError(f"layer {record['name']!r} has no weights")
    return IntegerLayer(
        name=record["name"],
        op=op,
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
    known: set[str] = set()
    for index, layer in enumerate(layers):
        if (layer.op == "input") != (index == 0) or not known.issuperset(layer.inputs):
            raise ModelFileError(f"layer {layer.name!r} reads what does not exist yet")
        known.add(layer.name)
    if graph["output"] not in known:
        raise ModelFileError(f"the output {graph['output']!r} is no layer")
    preprocess = graph["preprocess"]
    return IntegerModel(
        layers=layers,
        output=graph["output"],
        input_shape=tuple(int(size) for size in graph["input_shape"]),
        policy=graph["policy"],
        name=graph["name"],
        preprocess=None if preprocess is None else Preprocess.from_dict(preprocess),
    )


def _limit(value: int | list[int]) -> int | NDArray[np.int32]:
    """One code for all channels, or one per channel."""
    return np.array(value, np.int32) if isinstance(value, list) else int(value)


def _tuples(value: Any) -> Any:
    """JSON knows lists only; attributes are tuples."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
