"""The step that folding and fusing share: a node disappears into the layer before it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from qlearn.graph.model import FloatModel, Node


def absorb(
    model: FloatModel,
    op: str,
    into: Collection[str],
    merge: Callable[[Node, Node], Node],
    fits: Callable[[Node, Node], bool] = lambda layer, node: True,
) -> FloatModel:
    """Merge every node of kind `op` into the layer before it, where that leaves the function unchanged.

    The layer must be of a kind in `into`, be read by this node alone, and not clamp its value already.

    Parameters
    ----------
    model : FloatModel
        Not changed.
    op : str
        The kind of node that disappears.
    into : collection of str
        The kinds of layer that take it in.
    merge : callable
        ``merge(layer, node) -> layer``; the layer keeps its name.
    fits : callable
        ``fits(layer, node)``: whether this layer can take in this node.
    """
    reads = model.reader_counts()
    renamed: dict[str, str] = {}
    nodes: dict[str, Node] = {}
    for original in model.nodes:
        node = replace(original, inputs=tuple(renamed.get(name, name) for name in original.inputs))
        layer = nodes.get(node.inputs[0]) if node.op == op else None
        free = layer is not None and layer.op in into and reads[layer.name] == 1 and "clamp" not in layer.attrs
        if layer is None or not free or not fits(layer, node):
            nodes[node.name] = node
            continue
        nodes[layer.name] = merge(layer, node)
        renamed[node.name] = layer.name
        reads[layer.name] = reads[node.name]
    return model.with_nodes(nodes.values(), output=renamed.get(model.output, model.output))
