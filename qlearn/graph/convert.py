"""Turns a traced torch.fx graph into Nodes, one fx node after the other."""

from __future__ import annotations

import operator
import types
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from qlearn.errors import UntraceableError
from qlearn.graph.builders import FUNCTIONS, MODULES
from qlearn.graph.model import Node
from qlearn.graph.moves import Unsupported, part_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

Built = tuple[str, list[Any], dict[str, Any], dict[str, Tensor]]  # op, inputs, attrs, params
SPLITS = ("chunk", "split", "tensor_split", "split_with_sizes")
"""What returns a tuple of slices of its input."""
IN_PLACE_FUNCTIONS = (operator.iadd, operator.isub, operator.imul, operator.itruediv)


class Converter:
    """Turns the nodes of a traced graph into Nodes.

    Parameters
    ----------
    graph_module : fx.GraphModule
    values : mapping of fx.Node to what it gave for the example
    """

    def __init__(self, graph_module: fx.GraphModule, values: Mapping[fx.Node, Any]) -> None:
        self.modules = dict(graph_module.named_modules())
        self.values = values
        self.names: dict[fx.Node, str] = {}  # tensor-valued fx node -> the Node that computes it
        self.dependent: set[fx.Node] = set()  # fx nodes whose value depends on the input
        self.output = ""

    def convert(self, fx_node: fx.Node) -> list[Node]:
        """Return the Node for an fx node: none for constants, sizes, identities and the output."""
        if fx_node.op == "placeholder" and isinstance(self.values[fx_node], Tensor) and not self.names:
            self.names[fx_node] = "input"
            self.dependent.add(fx_node)
            return [Node("input", "input")]
        if fx_node.op == "output":
            self.output = self._output_name(fx_node.args[0])
            return []
        if not self.dependent.intersection(fx_node.all_input_nodes):
            return []  # a constant
        self.dependent.add(fx_node)
        if not isinstance(self.values[fx_node], Tensor):
            return []  # a size or a tuple of tensors: computed again where a layer needs it
        try:
            op, inputs, attrs, params = self._build(fx_node)
        except Unsupported as reason:
            op, inputs, attrs, params = self._keep_float(fx_node, str(reason))
        name = self.names[inputs[0]] if op == "identity" else self._name(fx_node)
        node = Node(
            name,
            op,
            tuple(self.names[source] for source in inputs),
            attrs,
            {key: value.detach().clone().float() for key, value in params.items()},
        )
        self.names[fx_node] = name
        if self._in_place(fx_node):  # whoever reads the changed tensor from here on reads this node
            self.names[inputs[0]] = name
        return [] if op == "identity" else [node]

    def _output_name(self, fx_node: Any) -> str:
        if fx_node not in self.names:
            raise UntraceableError("the output does not depend on the input")
        return self.names[fx_node]

    def _build(self, fx_node: fx.Node) -> Built:
        if fx_node.op == "call_module":
            module = self.modules[str(fx_node.target)]
            builder = MODULES.get(type(module))
            if builder is None:
                raise Unsupported(f"{type(module).__name__} has no integer kernel")
            inputs: list[Any] = [*fx_node.args, *fx_node.kwargs.values()][:1]
            constants = {**vars(module), **_tensors(module)}
        else:
            name = _function_name(fx_node)
            if name not in FUNCTIONS or _is_users_own(fx_node.target):
                raise Unsupported(f"{name}() has no integer kernel")
            if name == "getitem" and isinstance(self.values[fx_node.args[0]], tuple | list):  # type: ignore[index]
                return self._build_part(fx_node)
            parameters, builder = FUNCTIONS[name]
            bound = _bound(parameters, fx_node)
            inputs = [bound.pop(key) for key in parameters if key in ("input", "other") and key in bound]
            several = bound.pop("tensors", ())
            inputs += several if isinstance(several, tuple | list) else [several]
            constants = self._constants(bound, name)
        sources = self._checked_inputs(fx_node, inputs)
        constants["shapes"] = [tuple(self.values[node].shape) for node in sources]
        constants["result"] = tuple(self.values[fx_node].shape)
        op, attrs, params = builder(constants)
        return op, sources, attrs, params

    def _build_part(self, fx_node: fx.Node) -> Built:
        """One of the tensors of ``x.chunk(2, dim=1)``."""
        several: Any = fx_node.args[0]
        name = _function_name(several)
        if name not in SPLITS or several.op == "call_module" or _is_users_own(several.target):
            raise Unsupported(f"{name}() has no integer kernel")
        bound = _bound(("input", "sizes", "dim"), several)
        source = bound.get("input", bound.get("tensor"))
        dim = self._constants({"dim": bound.get("dim", 0)}, name)["dim"]
        sizes = [tuple(value.shape) for value in self.values[several]]
        op, attrs, params = part_of(sizes, int(fx_node.args[1]), int(dim))  # type: ignore[arg-type]
        return op, self._checked_inputs(fx_node, [source]), attrs, params

    def _constants(self, bound: dict[str, Any], name: str) -> dict[str, Any]:
        """Arguments other than the inputs; a weight that is computed from the input is none."""

        def value_of(node: Any) -> Any:
            if node in self.names:
                raise Unsupported(f"{name}() with an argument computed from the input has no integer kernel")
            return self.values[node]

        return dict(fx.node.map_arg(bound, value_of))

    def _checked_inputs(self, fx_node: fx.Node, inputs: list[Any]) -> list[fx.Node]:
        """Reject constants and tuples as inputs: x + 1 is no residual connection."""
        what, nodes = _function_name(fx_node), [node for node in inputs if isinstance(node, fx.Node)]
        for node in inputs:
            if not isinstance(node, fx.Node) or node not in self.names:
                raise Unsupported(f"{what} with a constant operand or a tuple of tensors has no integer kernel")
        return nodes

    def _keep_float(self, fx_node: fx.Node, reason: str) -> Built:
        """Keep the layer as the user wrote it; sizes that it needs are computed again for every batch."""
        inputs: dict[fx.Node, None] = {}
        constants: dict[fx.Node, Any] = {}

        def collect(node: fx.Node) -> None:
            for source in node.all_input_nodes:
                if source in self.names:
                    inputs[source] = None
                elif source in self.dependent:
                    collect(source)
                else:
                    constants[source] = self.values[source]

        collect(fx_node)
        order, modules = list(inputs), self.modules

        def run(*tensors: Tensor) -> Tensor:
            given = dict(zip(order, (tensor.clone() for tensor in tensors), strict=True))
            return _execute(fx_node, modules, {**constants, **given})  # type: ignore[no-any-return]

        return "float", order, {"function": run, "reason": reason}, {}

    def _in_place(self, fx_node: fx.Node) -> bool:
        if fx_node.op == "call_module":
            return bool(getattr(self.modules[str(fx_node.target)], "inplace", False))
        if fx_node.op == "call_method":
            return str(fx_node.target).endswith("_")
        name = str(getattr(fx_node.target, "__name__", ""))
        return fx_node.target in IN_PLACE_FUNCTIONS or name.endswith("_") or bool(fx_node.kwargs.get("inplace"))

    def _name(self, fx_node: fx.Node) -> str:
        base = str(fx_node.target) if fx_node.op == "call_module" else fx_node.name
        taken = set(self.names.values())
        if base not in taken:
            return base
        return next(f"{base}_{i}" for i in range(1, len(taken) + 2) if f"{base}_{i}" not in taken)


def _execute(fx_node: fx.Node, modules: Mapping[str, nn.Module], known: dict[fx.Node, Any]) -> Any:
    """Run one fx node, and before it whatever it needs that is not known."""

    def value_of(node: fx.Node) -> Any:
        return known[node] if node in known else _execute(node, modules, known)

    args, kwargs = fx.node.map_arg((fx_node.args, fx_node.kwargs), value_of)
    if fx_node.op == "call_method":
        return getattr(args[0], str(fx_node.target))(*args[1:], **kwargs)
    target: Callable[..., Any] = modules[str(fx_node.target)] if fx_node.op == "call_module" else fx_node.target  # type: ignore[assignment]
    return target(*args, **kwargs)


def _bound(parameters: tuple[str, ...], fx_node: fx.Node) -> dict[str, Any]:
    """Arguments by name; a last parameter with a star takes what is left, as in ``x.permute(0, 2, 1)``."""
    *named, last = parameters
    if not last.startswith("*"):
        return dict(zip(parameters, fx_node.args, strict=False)) | dict(fx_node.kwargs)
    bound = dict(zip(named, fx_node.args, strict=False))
    if len(fx_node.args) > len(named):
        bound[last[1:]] = fx_node.args[len(named) :]
    return {**bound, **{key: (value,) if key == last[1:] else value for key, value in fx_node.kwargs.items()}}


def _is_users_own(target: Any) -> bool:
    """Whether a function is the user's (torch.fx.wrap), whatever its name."""
    return isinstance(target, types.FunctionType) and not str(target.__module__).startswith("torch")


def _function_name(fx_node: fx.Node) -> str:
    if fx_node.op != "call_function":
        return str(fx_node.target).rstrip("_")
    return str(getattr(fx_node.target, "__name__", fx_node.target)).rstrip("_")


def _tensors(module: nn.Module) -> dict[str, Tensor | None]:
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
