"""An exported network in the runtimes that happen to be installed: what chapter 03 measures, and measures again."""

from __future__ import annotations

import contextlib
import importlib
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import QLearnError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from qlearn.integer.model import IntegerModel

RUNTIMES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "ONNX Runtime": ("onnxruntime", ("onnx", "onnxruntime")),
    "LiteRT": ("xnnpack", ("ai_edge_litert",)),
    "LiteRT, reference": ("litert_reference", ("ai_edge_litert",)),
}
"""Name of a runtime -> the profile that it computes, and the packages that it needs."""


def installed(runtime: str) -> bool:
    """Whether a runtime, and what writes files for it, can be imported here.

    Raises
    ------
    QLearnError
        If the name is not one of `RUNTIMES`.
    """
    try:
        for package in _known(runtime)[1]:
            importlib.import_module(package)
    except ImportError:
        return False
    return True


def runtime_codes(runtime: str, model: IntegerModel, x: NDArray[np.float32]) -> NDArray[np.int64]:
    """Export a network, let a runtime compute it, and return the output codes.

    Parameters
    ----------
    runtime : str
        A key of `RUNTIMES`.
    model : IntegerModel
        Exported under the profile of the runtime, whatever its policy is.
    x : float32 array, shape (N, C, H, W)
        Preprocessed pictures.

    Returns
    -------
    int64 array, shape (N, classes)

    Raises
    ------
    QLearnError
        If the name is not one of `RUNTIMES`, or what it needs is not installed.
    """
    profile, packages = _known(runtime)
    if not installed(runtime):
        raise QLearnError(f"{runtime} needs {' and '.join(packages)}: python -m pip install 'qlearn[runtimes]'")
    run = _in_onnxruntime if profile == "onnxruntime" else _in_litert
    return run(model.with_policy(profile), np.asarray(x, np.float32))


def _known(runtime: str) -> tuple[str, tuple[str, ...]]:
    if runtime not in RUNTIMES:
        raise QLearnError(f"no runtime {runtime!r}: choose one of {', '.join(RUNTIMES)}")
    return RUNTIMES[runtime]


def _in_onnxruntime(model: IntegerModel, x: NDArray[np.float32]) -> NDArray[np.int64]:
    """Real numbers in and out: the file quantizes its input, and dequantizes its output exactly."""
    import onnxruntime

    from qlearn.export.onnx import export_onnx

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    content = _exported(export_onnx, model)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (real,) = session.run(None, {"input": x})
    output = model.layer(model.output).output
    return np.asarray(np.rint(np.asarray(real) / output.scale).astype(np.int64) + int(output.zero_point))


def _in_litert(model: IntegerModel, x: NDArray[np.float32]) -> NDArray[np.int64]:
    """Codes in and out, one picture at a time, channels last."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from qlearn.export.litert import export_litert
    from qlearn.integer.reference import quantize

    kind = OpResolverType.BUILTIN_REF if model.policy == "litert_reference" else OpResolverType.AUTO
    content = _exported(export_litert, model)
    with _quiet():
        interpreter = Interpreter(model_content=content, experimental_op_resolver_type=kind, num_threads=1)
        interpreter.allocate_tensors()
    begin, end = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    rows = []
    for picture in quantize(x, model.layers[0].output).transpose(0, 2, 3, 1):
        interpreter.set_tensor(begin, np.ascontiguousarray(picture[None]))
        interpreter.invoke()
        rows.append(interpreter.get_tensor(end)[0])
    return np.stack(rows).astype(np.int64)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """LiteRT greets on the standard error of the process; a chapter reads the same with and without it."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as sink:  # noqa: PTH123  (a file descriptor is wanted)
            os.dup2(sink.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _exported(export: Callable[[IntegerModel, Any], None], model: IntegerModel) -> bytes:
    """The file that an exporter writes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network"
        export(model, path)
        return path.read_bytes()
