"""What is known before calibration: outputs whose range is prescribed, and layers that wider codes rule out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qlearn.graph.model import Node
from qlearn.graph.ops import FLOAT_OPS
from qlearn.integer.reference import INT32_MAX
from qlearn.numbers.qparams import QParams
from qlearn.schemes.base import integer_limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

TABLE_BITS = 8
"""The widest codes that a table of a function, or softmax, takes: 256 entries."""

_SPANS = {"sigmoid": (0, 1), "softmax": (0, 1), "tanh": (-1, 2)}
"""Smallest value and width of the outputs that are known beforehand."""


def known_output(node: Node, bits: int, *, signed: bool) -> QParams | None:
    """Return scale and zero point of an output whose range is known whatever the data: sigmoid, tanh, softmax.

    All codes are used: sigmoid and softmax take the steps 2**-bits from 0 on, tanh the steps 2**(1-bits) from -1 on.
    At 8 bits these are the parameters that LiteRT prescribes, under every scheme and calibrator.

    Returns
    -------
    QParams or None
        None where the range must be calibrated.

    References
    ----------
    LiteRT, 8-bit quantization specification: LOGISTIC, TANH, SOFTMAX.

    Examples
    --------
    >>> gate = Node("gate", "unary", ("x",), {"function": "sigmoid"})
    >>> known_output(gate, 8, signed=True)
    QParams(scale=0.00390625, zero_point=-128, qmin=-128, qmax=127)
    >>> known_output(Node("swish", "unary", ("x",), {"function": "silu"}), 8, signed=True) is None
    True
    """
    function = _function_of(node)
    if function not in _SPANS:
        return None
    smallest, width = _SPANS[function]
    qmin, qmax = integer_limits(bits, signed)
    return QParams(width / 2**bits, qmin - smallest * 2**bits // width, qmin, qmax)


def reason_for_float(node: Node, sources: Sequence[QParams]) -> str | None:
    """Return why a layer cannot run on integers as wide as these, or None if it can.

    Examples
    --------
    >>> gate, wide = Node("gate", "unary", ("x",), {"function": "sigmoid"}), QParams(0.1, 0, -32768, 32767)
    >>> reason_for_float(gate, [wide])
    'a table of sigmoid takes codes of at most 8 bits, its input has 16'
    """
    bits = max((source.bits for source in sources), default=0)
    if node.op == "unary" and bits > TABLE_BITS:
        return f"a table of {_function_of(node)} takes codes of at most {TABLE_BITS} bits, its input has {bits}"
    if node.op == "softmax" and bits != TABLE_BITS:
        return f"softmax takes codes of {TABLE_BITS} bits, its input has {bits}"
    if node.op == "multiply":
        left, right = (max(q.qmax - int(q.zero_point), int(q.zero_point) - q.qmin) for q in sources)
        if left * right > INT32_MAX:
            return (
                f"the product of codes of {bits} bits can leave int32; "
                "a symmetric scheme (zero point 0) has one bit less"
            )
    return None


def kept_in_float(node: Node, reason: str) -> Node:
    """Return the node as a float layer that computes the same."""

    def run(*inputs: Tensor) -> Tensor:
        return FLOAT_OPS[node.op](node, inputs)

    attrs: dict[str, Any] = {"function": run, "reason": reason}
    return Node(node.name, "float", node.inputs, attrs)


def _function_of(node: Node) -> str:
    return str(node.attrs["function"]) if node.op == "unary" else node.op
