"""Import of an int8 .tflite file: models that nobody here made, run by our kernels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qlearn.errors import ModelFileError, QLearnError
from qlearn.export.litert_nodes import Importer
from qlearn.export.litert_ops import IMPORTERS
from qlearn.export.litert_read import is_litert, lite_graph
from qlearn.integer.checks import check_size
from qlearn.integer.files import open_model_file
from qlearn.integer.model import IntegerModel
from qlearn.integer.profiles import profile_named

if TYPE_CHECKING:
    import os

    from qlearn.export.litert_graph import LiteGraph


def import_litert(
    path: str | os.PathLike[str], policy: str = "litert_reference", name: str | None = None
) -> IntegerModel:
    """Read a fully quantized .tflite file as an integer model.

    The model takes codes or real numbers in our layout, (N, C, H, W). Each tensor of the file is a layer of its name.

    Parameters
    ----------
    path : path-like
        A file whose activations are int8 or uint8 (or int16), with a batch of one.
    policy : str
        ``"litert_reference"`` gives the integers of LiteRT's reference kernels, ``"xnnpack"`` those of its default
        interpreter on x86.
    name : str, optional
        By default that of the file.

    Returns
    -------
    IntegerModel

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, or has an operator that qlearn does not read, which is then named.
        Nothing in the file is executed, and no more memory is taken than its tensors need.
    KernelError
        If there is no such policy.
    """
    profile_named(policy)
    with open_model_file(Path(path)) as file:
        head = file.read(8)
        content = head + file.read() if is_litert(head) else head
    try:
        return integer_model(lite_graph(content), policy, Path(path).stem if name is None else name)
    except QLearnError as error:
        raise ModelFileError(f"{path}: {error}") from error


def integer_model(graph: LiteGraph, policy: str, name: str) -> IntegerModel:
    """Return the model that a graph describes."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or min(*graph.inputs, *graph.outputs) < 0:
        raise ModelFileError(
            f"the network has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs: qlearn takes one and one"
        )
    importer = Importer(graph)
    for operator in graph.operators:
        try:
            IMPORTERS[operator.op](importer, operator)
        except QLearnError as error:
            outputs = [graph.tensors[index].name for index in operator.outputs if index >= 0]
            raise ModelFileError(f"operator {operator.op} that gives {outputs}: {error}") from error
    output = importer.source(graph.outputs[0])
    model = IntegerModel(
        layers=tuple(importer.layers),
        output=output.name,
        input_shape=importer.shapes[importer.layers[0].name][1:],
        policy=policy,
        name=name,
    )
    check_size(model.layers, model.site_shapes)
    return model
