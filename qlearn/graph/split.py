"""Write a function as two that a runtime knows: SiLU as a sigmoid and a product."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qlearn.graph.model import Node

if TYPE_CHECKING:
    from qlearn.graph.model import FloatModel


def split_silu(model: FloatModel) -> FloatModel:
    """Return the same function with every SiLU written as x · sigmoid(x).

    As a table of 256 codes SiLU is rounded once. Split, it is rounded twice, and reads its input twice.
    LiteRT has no 8-bit SiLU, so that a network for LiteRT is split before it is calibrated.

    Parameters
    ----------
    model : FloatModel
        Not changed.

    Returns
    -------
    FloatModel
        The product keeps the name of the SiLU; the sigmoid is called ``"<name>.sigmoid"``.

    References
    ----------
    Paper §4 (activation functions on integers).

    Examples
    --------
    >>> import torch
    >>> from qlearn.graph.trace import trace
    >>> split_silu(trace(torch.nn.Sequential(torch.nn.SiLU()), torch.zeros(1, 4)))
    FloatModel Sequential: input (4,), output 0
      input = input()
      0.sigmoid = unary(input)
      0 = multiply(input, 0.sigmoid)
    """
    nodes: list[Node] = []
    for node in model.nodes:
        if node.op != "unary" or node.attrs["function"] != "silu":
            nodes.append(node)
            continue
        gate = Node(f"{node.name}.sigmoid", "unary", node.inputs, {"function": "sigmoid"})
        nodes += [gate, replace(node, op="multiply", inputs=(*node.inputs, gate.name), attrs={})]
    return model.with_nodes(nodes)
