"""From plain values to an ONNX model, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import qlearn
from qlearn.errors import ExportError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qlearn.export.onnx_build import OnnxEnd, OnnxGraph

OPSET, IR_VERSION = 17, 8
"""The version of the operators (per-channel DequantizeLinear since 13), and of the file, that goes with it."""


def onnx_bytes(graph: OnnxGraph, name: str, metadata: Mapping[str, str]) -> bytes:
    """Return the file that holds the network.

    Parameters
    ----------
    graph : OnnxGraph
    name : str
        Of the network.
    metadata : mapping of str to str
        What the file says about itself.

    Returns
    -------
    bytes

    Raises
    ------
    MissingDependencyError
        If onnx is not installed.
    ExportError
        If the checker of ONNX does not accept the model: an error of ours.
    """
    try:
        import onnx
        from onnx import checker, helper, numpy_helper
    except ImportError as error:
        raise MissingDependencyError("writing an ONNX file needs onnx: pip install 'qlearn[onnx]'") from error
    nodes = [
        helper.make_node(node.op, list(node.inputs), [node.output], name=node.output, **_plain(node.attributes))
        for node in graph.nodes
    ]
    constants = [numpy_helper.from_array(np.asarray(array), key) for key, array in graph.constants.items()]
    inputs, outputs = ([_end(onnx, end) for end in ends] for ends in (graph.inputs, graph.outputs))
    made = helper.make_graph(nodes, name, inputs, outputs, constants)
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="qlearn",
        producer_version=qlearn.__version__,
    )
    helper.set_model_props(model, dict(metadata))
    try:
        checker.check_model(model, full_check=True)
    except Exception as error:  # checker, shape inference and protobuf have exceptions of their own
        raise ExportError(
            f"{name}: the checker of ONNX does not accept the model ({error}): please report it"
        ) from error
    return bytes(model.SerializeToString())


def _end(onnx: Any, end: OnnxEnd) -> Any:
    kind = {"float32": onnx.TensorProto.FLOAT, "uint8": onnx.TensorProto.UINT8}[end.dtype]
    return onnx.helper.make_tensor_value_info(end.name, kind, ["N", *end.shape])


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Tuples of NumPy integers as lists of Python's."""
    return {
        key: [int(item) for item in value] if isinstance(value, tuple) else value for key, value in attributes.items()
    }
