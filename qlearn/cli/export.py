"""``qlearn export``: a saved integer model as the file of another runtime; the extension decides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qlearn.cli.document import print_json
from qlearn.errors import ExportError
from qlearn.integer.model import IntegerModel

if TYPE_CHECKING:
    import argparse

POLICIES = {".onnx": ("onnxruntime",), ".tflite": ("xnnpack", "litert_reference")}
"""The profiles of which each kind of file computes the integers; the first is taken for models with another."""


def run(arguments: argparse.Namespace) -> int:
    """Load, export, say what was written."""
    target, suffix = Path(arguments.file), Path(arguments.file).suffix
    if suffix not in POLICIES:
        raise ExportError(f"{target}: the extension decides what is written: {' or '.join(POLICIES)}")
    if arguments.integers and suffix != ".onnx":
        raise ExportError(f"--integers is for .onnx: a {suffix} file has integers at both ends anyway")
    if not arguments.model.endswith(".qlearn"):
        raise ExportError(
            f"{arguments.model}: only saved .qlearn files are exported: "
            f"qlearn quantize {arguments.model} --output net.qlearn makes one"
        )
    saved = IntegerModel.load(arguments.model)
    model = saved if saved.policy in POLICIES[suffix] else saved.with_policy(POLICIES[suffix][0])
    _write(model, target, integers=arguments.integers)
    record: dict[str, str | int] = {
        "model": model.name,
        "file": str(target),
        "policy": model.policy,
        "saved_policy": saved.policy,
        "layers": len(model.layers),
        "bytes": target.stat().st_size,
    }
    if arguments.json:
        print_json(record)
    else:
        print(_text(record))
    return 0


def _write(model: IntegerModel, target: Path, *, integers: bool) -> None:
    if target.suffix == ".onnx":
        from qlearn.export.onnx import export_onnx

        export_onnx(model, target, integers=integers)
        return
    from qlearn.export.litert import export_litert

    export_litert(model, target)


def _text(record: dict[str, str | int]) -> str:
    line = "{file}: {model}, {layers} layers, {bytes} bytes; it computes the codes of policy {policy}".format(**record)
    if record["policy"] == record["saved_policy"]:
        return line
    return f"{line}\n(the saved model has policy {record['saved_policy']}: some of its codes differ by one)"
