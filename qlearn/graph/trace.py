"""From an ``nn.Module`` to a FloatModel, with torch.fx."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from qlearn.errors import GraphError, UntraceableError
from qlearn.graph.convert import Converter
from qlearn.graph.model import FloatModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from qlearn.graph.preprocess import Preprocess


def trace(
    module: nn.Module, example: Tensor, *, name: str | None = None, preprocess: Preprocess | None = None
) -> FloatModel:
    """Read a network's operations from its ``forward``, modules and functional calls alike.

    The module is copied, put into evaluation mode and run symbolically; it is not changed.
    Layers that qlearn has no integer kernel for are kept as float layers (paper §7.1).
    Dropout and identities disappear.

    Parameters
    ----------
    module : nn.Module
        Takes one tensor and returns one tensor.
    example : Tensor, shape (N, C, H, W) or (N, features), float32
        Any input of the right shape; its values do not matter.
    name : str, optional
        Name of the network in messages; the class name if not given.
    preprocess : Preprocess, optional
        What turns uint8 pictures into the input; stored with the network.

    Returns
    -------
    FloatModel

    Raises
    ------
    GraphError
        If a weight, or a statistic of a batch norm, is not float32, or is NaN or infinite.
    UntraceableError
        If ``forward`` depends on values (``if x.sum() > 0``), or has several inputs or outputs.
        The message names the layer, the reason and the remedy.

    References
    ----------
    Paper §5.1 (what is traced can be folded and fused), §7.1.

    Examples
    --------
    >>> net = trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()), torch.zeros(1, 3, 8, 8))
    >>> net
    FloatModel Sequential: input (3, 8, 8), output 2
      input = input()
      0 = conv2d(input, weight[4, 3, 3, 3], bias[4])
      1 = clamp(0)
      2 = flatten(1)
    """
    if not isinstance(module, nn.Module):
        raise GraphError(f"trace() takes an nn.Module, got {type(module).__name__}")
    if not isinstance(example, Tensor) or example.ndim < 2 or example.shape[0] == 0:
        raise GraphError("trace() needs an example batch, such as torch.zeros(1, 3, 32, 32)")
    name = name or type(module).__name__
    _check_weights(module, name)
    module = copy.deepcopy(module).eval()
    graph_module = _symbolic_trace(module, name)
    values = _run_example(graph_module, torch.cat([example, example]), name)
    converter = Converter(graph_module, values)
    nodes = [node for fx_node in graph_module.graph.nodes for node in converter.convert(fx_node)]
    model = FloatModel((), "", tuple(example.shape[1:]), name, preprocess).with_nodes(nodes, output=converter.output)
    _check_same_function(module, model)
    return model


def _check_weights(module: nn.Module, name: str) -> None:
    statistics = [pair for pair in module.named_buffers() if pair[0].rpartition(".")[2].startswith("running_")]
    for label, value in [*module.named_parameters(), *statistics]:
        if not value.is_floating_point():
            continue
        if value.dtype != torch.float32:
            dtype = str(value.dtype).removeprefix("torch.")
            raise GraphError(f"{name}: {label} is {dtype}, float32 is expected: call module.float() first")
        bad = ~torch.isfinite(value.detach())
        if bad.any():
            first = bad.nonzero()[0].tolist()
            raise GraphError(
                f"{name}: {int(bad.sum())} of {value.numel()} values of {label} are NaN or infinite, the first at "
                f"{first}: the training diverged, or the checkpoint is damaged"
            )


class _NamingTracer(fx.Tracer):
    """Remembers which layer was being traced, so that an error can name it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = ""

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        outer, self.layer = self.layer, self.path_of_module(m)
        result = super().call_module(m, forward, args, kwargs)
        self.layer = outer  # not in a finally: after an error the innermost layer is the one to name
        return result


def _symbolic_trace(module: nn.Module, name: str) -> fx.GraphModule:
    tracer = _NamingTracer()
    try:
        graph = tracer.trace(module)
    except Exception as error:
        layer = f"layer {tracer.layer!r}" if tracer.layer else "the top-level forward()"
        raise UntraceableError(
            f"{name}: torch.fx cannot follow {layer} ({type(error).__name__}: {error}). "
            "forward() must not branch on values or shapes: replace the branch by torch.where or clamp, "
            "or put this part into a function under torch.fx.wrap, which keeps it in float"
        ) from error
    inputs = [node.target for node in graph.nodes if node.op == "placeholder" and not node.args]
    if len(inputs) != 1:
        raise UntraceableError(f"{name}: one input tensor expected, forward() takes {inputs}: bind the others first")
    try:
        return fx.GraphModule(tracer.root, graph)
    except SyntaxError as error:  # torch.fx writes the names of layers into Python code
        odd = [layer for layer, _ in module.named_modules() if not layer.isprintable() or set(layer) & {'"', "\\"}]
        raise UntraceableError(
            f"{name}: torch.fx cannot write code for the layer names {odd}: rename what has line breaks or quotes"
        ) from error


def _run_example(graph_module: fx.GraphModule, example: Tensor, name: str) -> dict[fx.Node, Any]:
    """Every value of one run: shapes and sizes that forward() computes become constants."""
    values: dict[fx.Node, Any] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            values[n] = super().run_node(n)
            return values[n]

    try:
        with torch.no_grad():
            Recorder(graph_module, garbage_collect_values=False).run(example)
    except Exception as error:
        raise UntraceableError(
            f"{name}: the example of shape {tuple(example.shape)} (your example, twice) does not run through "
            f"the network: {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error
    output = next(values[node] for node in values if node.op == "output")
    if not isinstance(output, Tensor):
        raise UntraceableError(f"{name}: one output tensor expected, forward() returns {type(output).__name__}")
    return values


def _check_same_function(module: nn.Module, model: FloatModel) -> None:
    """Compare module and traced network on random batches of two sizes: what the example hid shows here."""
    generator = torch.Generator().manual_seed(0)
    for size in (2, 3):
        x = torch.randn(size, *model.input_shape, generator=generator)
        try:
            with torch.no_grad():
                expected, ours = module(x.clone()), model(x.clone())
            span = float(expected.abs().nan_to_num(0.0, 0.0, 0.0).max())
            same = expected.shape == ours.shape and torch.allclose(
                ours, expected.float(), rtol=1e-4, atol=1e-5 * span, equal_nan=True
            )
        except Exception as error:
            raise UntraceableError(
                f"{model.name}: a random batch of {size} does not run ({type(error).__name__}: "
                f"{str(error).splitlines()[0]}). Networks must take any batch size"
            ) from error
        if not same:
            raise UntraceableError(
                f"{model.name}: the traced network gives other values than the module on a random batch of {size}. "
                "forward() depends on values (.item(), dropout that is always on), on the batch size, on hooks, or "
                "changes a tensor in place that is used under another name"
            )
