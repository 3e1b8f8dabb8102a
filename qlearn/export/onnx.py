"""Export to ONNX Runtime: a model in QDQ form that computes the same integers as the integer model (paper §3.5)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from qlearn.errors import ExportError
from qlearn.export.onnx_build import OnnxBuilder, OnnxEnd, OnnxGraph, Site, check_stored, refuse, stored_zero
from qlearn.export.onnx_layers import emit
from qlearn.export.onnx_parts import clamped
from qlearn.export.onnx_write import onnx_bytes
from qlearn.integer.files import write_whole

if TYPE_CHECKING:
    import os

    from qlearn.integer.model import IntegerModel

PROFILE = "onnxruntime"
"""The profile whose integers an ONNX file promises."""


def export_onnx(model: IntegerModel, path: str | os.PathLike[str], *, integers: bool = False) -> None:
    """Write an integer model as an ONNX file in QDQ form.

    Activations are uint8 (signed codes plus 128), weights int8 with one scale per channel, biases int32.
    ONNX Runtime on a CPU, with its default optimizations, fuses what is between QuantizeLinear and DequantizeLinear
    into integer kernels and computes the codes of ``model.with_policy("onnxruntime")``.
    Optimization levels below "extended" sum in float32 instead: some codes are then off by one, after many
    layers by a few.
    x86 CPUs without VNNI saturate sums of two 8-bit products: there, quantize weights with ``bits=7``.

    Parameters
    ----------
    model : IntegerModel
        Under the profile ``onnxruntime``, so that nobody compares with other integers than the file computes.
    path : path-like
        By custom ``something.onnx``.
    integers : bool
        Whether ``input`` and ``output`` are codes, uint8, instead of real numbers, float32.

    Raises
    ------
    ExportError
        If the model has another profile, or a layer that ONNX Runtime cannot compute; it is named.
        Also if the file cannot be written.
    MissingDependencyError
        If onnx is not installed.

    References
    ----------
    Paper §3.5.
    """
    if model.policy != PROFILE:
        raise ExportError(
            f"{model.name} has the policy {model.policy!r}, and ONNX Runtime computes otherwise: "
            f"export model.with_policy({PROFILE!r})"
        )
    content = onnx_bytes(onnx_graph(model, integers=integers), model.name, metadata(model))
    write_whole(path, content, ExportError)


def onnx_graph(model: IntegerModel, *, integers: bool = False) -> OnnxGraph:
    """Return what the file says, as plain values.

    Examples
    --------
    >>> from qlearn.integer.layers import IntegerLayer
    >>> from qlearn.integer.model import IntegerModel
    >>> from qlearn.numbers.qparams import QParams
    >>> q = QParams(0.1, 0, -128, 127)
    >>> layers = (IntegerLayer("x", "input", (), q), IntegerLayer("twice", "add", ("x", "x"), q))
    >>> graph = onnx_graph(IntegerModel(layers, "twice", (3,), "onnxruntime"))
    >>> [node.op for node in graph.nodes]
    ['QuantizeLinear', 'DequantizeLinear', 'Add', 'QuantizeLinear', 'DequantizeLinear']
    >>> int(graph.constants["x:zero_point"])                       # uint8 codes, 128 higher
    128
    """
    first, builder, shapes = model.layers[0], OnnxBuilder(), model.site_shapes
    check_stored(first)
    if integers:
        begin = OnnxEnd(builder.unique(f"{first.name}:codes"), "uint8", model.input_shape)
        codes = begin.name
    else:
        begin = OnnxEnd(builder.unique("input"), "float32", model.input_shape)
        codes = builder.quantized(begin.name, first.output, first.name)
    shape = (1, *model.input_shape)
    sites = {first.name: Site(clamped(builder, first, codes, shape), shape, first.output)}
    for layer in model.layers[1:]:
        known = shapes[layer.name]
        if known is None:
            raise refuse(layer, f"it runs in float ({layer.attrs.get('reason', 'no integer kernel')}). Replace it")
        sites[layer.name] = emit(builder, layer, [sites[name] for name in layer.inputs], known)
    result = sites[model.output]
    end = OnnxEnd(result.codes, "uint8", result.shape[1:])
    if not integers:
        parameters = builder.parameters(result.codes, float(result.qparams.scale), stored_zero(result.qparams))
        end = OnnxEnd(builder.node("DequantizeLinear", [result.codes, *parameters], "output"), "float32", end.shape)
    return builder.graph([begin], [end])


def metadata(model: IntegerModel) -> dict[str, str]:
    """Return what the file says about itself: profile, scales of its ends, and what turns pictures into its input."""
    record = {"policy": model.policy}
    for end, layer in (("input", model.layers[0]), ("output", model.layer(model.output))):
        record[f"{end}_scale"] = repr(float(layer.output.scale))
        record[f"{end}_zero_point"] = str(stored_zero(layer.output))
    if model.preprocess is not None:
        record["preprocess"] = json.dumps(model.preprocess.to_dict())
    return record
