"""A traced network as a value: nodes in the order in which they run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from qlearn.errors import GraphError
from qlearn.graph.ops import FLOAT_OPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor

    from qlearn.graph.preprocess import Preprocess


@dataclass(frozen=True, eq=False)
class Node:
    """One operation of a network.

    Parameters
    ----------
    name : str
        The layer's name in the user's module (``"blocks.0.conv"``), or the function's (``"add_1"``).
        The output of a node is a site: calibration and analysis speak of it by this name.
    op : str
        A key of ``qlearn.graph.ops.FLOAT_OPS``: ``"conv2d"``, ``"add"``, …, or ``"float"`` for a layer without an
        integer kernel.
    inputs : tuple of str
        Names of the nodes whose outputs it reads.
    attrs : mapping
        What is fixed: strides, padding, a fused clamp ``(lo, hi)``, two numbers or two tensors of shape (C,).
        ``"bn"`` of a folded layer is what its batch norm knew about its output, see `fold_batch_norm`.
        ``weight_qparams`` pins the grid on which the weights lie already, so that `quantize_model` keeps their codes.
    params : mapping of Tensor, float32
        What was learned: weight, bias, batch-norm statistics.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Tensor] = field(default_factory=dict)

    def with_attrs(self, **attrs: Any) -> Node:
        """Return a node with some attributes changed."""
        return replace(self, attrs={**self.attrs, **attrs})

    def with_params(self, **params: Tensor) -> Node:
        """Return a node with some parameters changed.

        A grid that was pinned to the weights (``attrs["weight_qparams"]``) is dropped when they change.

        Examples
        --------
        >>> layer = Node("fc", "linear", ("x",), {"weight_qparams": "a grid"}, {"weight": torch.ones(1, 2)})
        >>> "weight_qparams" in layer.with_params(bias=torch.ones(1)).attrs
        True
        >>> "weight_qparams" in layer.with_params(weight=torch.zeros(1, 2)).attrs
        False
        """
        dropped = {"weight_qparams"} if "weight" in params else set()
        attrs = {key: value for key, value in self.attrs.items() if key not in dropped}
        return replace(self, attrs=attrs, params={**self.params, **params})

    def __repr__(self) -> str:
        shapes = "".join(f", {key}{list(value.shape)}" for key, value in self.params.items())
        return f"{self.name} = {self.op}({', '.join(self.inputs)}{shapes})"


@dataclass(frozen=True, eq=False)
class FloatModel:
    """A float network that can be called, read and transformed. ``qlearn.trace`` makes it from an ``nn.Module``.

    Parameters
    ----------
    nodes : tuple of Node
        In the order in which they run; the first is the input.
    output : str
        The node whose value the network returns.
    input_shape : tuple of int
        Shape of one input, without the batch: (C, H, W).
    name : str
    preprocess : Preprocess or None
        What turns uint8 pictures into the input; kept by every later stage.
    """

    nodes: tuple[Node, ...]
    output: str
    input_shape: tuple[int, ...]
    name: str = "network"
    preprocess: Preprocess | None = None

    def __call__(self, x: Tensor, watch: Callable[[Node, Tensor], None] | None = None) -> Tensor:
        """Run the network.

        Parameters
        ----------
        x : Tensor, shape (N, *input_shape), float32
        watch : callable, optional
            Called with every node and its value, as soon as it is computed.

        Returns
        -------
        Tensor
            The value of the output node: logits (N, classes) for a classifier.

        Raises
        ------
        GraphError
            If x has another shape than ``input_shape`` after the batch, is empty, or is not floating point.
        """
        self.check_input(x)
        readers = self.reader_counts()
        values: dict[str, Tensor] = {}
        with torch.no_grad():
            for node in self.nodes:
                value = x.float() if node.op == "input" else self._run(node, [values[name] for name in node.inputs])
                values[node.name] = value
                if watch is not None:
                    watch(node, value)
                for name in node.inputs:  # a value that nobody reads again is let go
                    readers[name] -= 1
                    if readers[name] == 0 and name != self.output:
                        values.pop(name, None)
        return values[self.output]

    def node(self, name: str) -> Node:
        """Return the node of that name; GraphError lists the names if there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise GraphError(f"no node {name!r} in {self.name}; there are: {', '.join(n.name for n in self.nodes)}")

    def reader_counts(self) -> dict[str, int]:
        """Return, for every node, how many times its value is read."""
        counts = {node.name: 0 for node in self.nodes}
        for node in self.nodes:
            for name in node.inputs:
                counts[name] += 1
        return counts

    def with_nodes(self, nodes: Iterable[Node], output: str | None = None) -> FloatModel:
        """Return a network with other nodes; what nothing reads is left out."""
        wanted = {output or self.output}
        kept: list[Node] = []
        for node in reversed(tuple(nodes)):
            if node.name in wanted or node.op == "input":
                kept.append(node)
                wanted.update(node.inputs)
        return replace(self, nodes=tuple(reversed(kept)), output=output or self.output)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters as float32."""
        return sum(4 * value.numel() for node in self.nodes for value in node.params.values())

    def check_input(self, x: Tensor) -> None:
        """Raise GraphError unless x is a floating point batch of ``input_shape``."""
        expected = "(N, " + ", ".join(map(str, self.input_shape)) + ")"
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
            raise GraphError(f"{self.name} takes a float tensor of shape {expected}, got {kind}")
        if tuple(x.shape[1:]) != self.input_shape or x.shape[0] == 0:
            raise GraphError(f"{self.name} takes a batch of shape {expected} with N > 0, got {tuple(x.shape)}")

    def _run(self, node: Node, inputs: list[Tensor]) -> Tensor:
        try:
            return FLOAT_OPS[node.op](node, inputs)
        except Exception as error:
            shapes = ", ".join(str(tuple(value.shape)) for value in inputs)
            error.add_note(f"in layer {node.name!r} ({node.op}) of {self.name}, inputs of shape {shapes}")
            raise

    def __repr__(self) -> str:
        lines = "\n".join(f"  {node!r}" for node in self.nodes)
        return f"FloatModel {self.name}: input {self.input_shape}, output {self.output}\n{lines}"
