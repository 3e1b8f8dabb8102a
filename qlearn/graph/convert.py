"""Turns a traced torch.fx graph into Nodes, one fx node after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn

from qlearn.graph.builders import FUNCTIONS, MODULES, Operation, Unsupported
from qlearn.graph.model import Node

if TYPE_CHECKING:
    from collections.abc import Mapping

Built = tuple[str, list[Any], dict[str, Any], dict[str, Tensor]]  # op, inputs, attrs, params


class Converter:
    """Turns the nodes of a traced graph, one after the other, into Nodes.

    Parameters
    ----------
    graph_module : fx.GraphModule
    values : mapping of fx.Node to what it gave for the example
        Whatever is not a tensor (sizes, tuples) is a constant from here on.
    """

    def __init__(self, graph_module: fx.GraphModule, values: Mapping[fx.Node, Any]) -> None:
        self.modules = dict(graph_module.named_modules())
        self.values = values
        self.names: dict[fx.Node, str] = {}  # tensor-valued fx node -> the Node that computes it
        self.output = ""

    def convert(self, fx_node: fx.Node) -> list[Node]:
        """Return the Node for an fx node: none for constants, identities and the output."""
        if fx_node.op == "placeholder":
            if not isinstance(self.values[fx_node], Tensor):
                return []
            self.names[fx_node] = "input"
            return [Node("input", "input")]
        if fx_node.op == "output":
            self.output = self.names[fx_node.args[0]]  # type: ignore[index]
            return []
        if fx_node.op == "get_attr" or not isinstance(self.values[fx_node], Tensor):
            return []
        try:
            op, inputs, attrs, params = self._build(fx_node)
        except Unsupported as reason:
            op, inputs, attrs, params = self._keep_float(fx_node, str(reason))
        if op == "identity":
            self.names[fx_node] = self.names[inputs[0]]
            return []
        name = self._name(fx_node)
        self.names[fx_node] = name
        copies = {key: value.detach().clone().float() for key, value in params.items()}
        return [Node(name, op, tuple(self.names[node] for node in inputs), attrs, copies)]

    def _build(self, fx_node: fx.Node) -> Built:
        if fx_node.op == "call_module":
            module = self.modules[str(fx_node.target)]
            builder = MODULES.get(type(module))
            if builder is None:
                raise Unsupported(f"{type(module).__name__} has no integer kernel")
            return self._checked(fx_node, builder({**vars(module), **_tensors(module)}), [fx_node.args[0]])
        name = _function_name(fx_node)
        if name not in FUNCTIONS:
            raise Unsupported(f"{name}() has no integer kernel")
        parameters, builder = FUNCTIONS[name]
        bound = dict(zip(parameters, fx_node.args, strict=False)) | dict(fx_node.kwargs)
        inputs = [bound.pop(key) for key in parameters if key in ("input", "other") and key in bound]
        constants = dict(fx.node.map_arg(bound, lambda node: self.values[node]))
        constants["shapes"] = [tuple(self.values[node].shape) for node in inputs if isinstance(node, fx.Node)]
        constants["result"] = tuple(self.values[fx_node].shape)
        return self._checked(fx_node, builder(constants), inputs)

    def _checked(self, fx_node: fx.Node, built: Operation, inputs: list[Any]) -> Built:
        """Reject constants as inputs: x + 1 is no residual connection."""
        for node in inputs:
            if not isinstance(node, fx.Node) or node not in self.names:
                raise Unsupported(f"{_function_name(fx_node)} with a constant operand has no integer kernel")
        if built[0] == "add" and len({tuple(self.values[node].shape) for node in inputs}) > 1:
            raise Unsupported("add of two shapes (broadcasting) has no integer kernel")
        return built[0], inputs, built[1], built[2]

    def _keep_float(self, fx_node: fx.Node, reason: str) -> Built:
        """Wrap the layer as the user wrote it; its tensor arguments become the Node's inputs."""
        inputs = [node for node in fx_node.all_input_nodes if node in self.names]
        arguments = (fx_node.args, fx_node.kwargs)
        target: Any = self.modules[str(fx_node.target)] if fx_node.op == "call_module" else fx_node.target

        def run(*tensors: Tensor) -> Tensor:
            given = dict(zip(inputs, tensors, strict=True))
            args, kwargs = fx.node.map_arg(arguments, lambda node: given.get(node, self.values[node]))
            if fx_node.op == "call_method":
                return getattr(args[0], target)(*args[1:], **kwargs)  # type: ignore[no-any-return]
            return target(*args, **kwargs)  # type: ignore[no-any-return]

        return "float", inputs, {"function": run, "reason": reason}, {}

    def _name(self, fx_node: fx.Node) -> str:
        base = str(fx_node.target) if fx_node.op == "call_module" else fx_node.name
        taken = set(self.names.values())
        if base not in taken:
            return base
        return next(f"{base}_{i}" for i in range(1, len(taken) + 2) if f"{base}_{i}" not in taken)


def _function_name(fx_node: fx.Node) -> str:
    if fx_node.op != "call_function":
        return str(fx_node.target).rstrip("_")
    return str(getattr(fx_node.target, "__name__", fx_node.target)).rstrip("_")


def _tensors(module: nn.Module) -> dict[str, Tensor | None]:
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
