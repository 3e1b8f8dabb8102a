"""The network in quantization-aware training, and what it becomes (paper §8)."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from qlearn.errors import CalibrationError, GraphError
from qlearn.graph.ops import FLOAT_OPS
from qlearn.integer.layers import SHARING_OPS
from qlearn.numbers.affine import dequantize, fake_quantize, quantize
from qlearn.pipeline.calibrate import CalibrationTable, calibration_plan
from qlearn.pipeline.exact import EXACT_OPS
from qlearn.pipeline.qat.grids import LearnedGrid
from qlearn.pipeline.quantize import as_it_runs, quantize_sites
from qlearn.pipeline.simulate import QuantizedLayer
from qlearn.pipeline.weights import PINNED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qlearn.graph.model import FloatModel, Node
    from qlearn.graph.preprocess import Preprocess
    from qlearn.numbers.qparams import QParams
    from qlearn.pipeline.qat.layers import FoldedLayer
    from qlearn.pipeline.recipe import Recipe
    from qlearn.pipeline.simulate import QuantizedModel


class QATModel(nn.Module):
    """A network in quantization-aware training. `prepare_qat` makes it; train it like any ``nn.Module``.

    In training mode it is float arithmetic with fake quantization at every site where the quantized network
    has one, differentiable with the straight-through estimator.
    In evaluation mode it is the quantized network itself, ``convert(self)``: exact, and without gradients.

    Parameters
    ----------
    graph : FloatModel
        Folded and fused: the network that will run.
    recipe : Recipe
    sites : mapping of node name to grid
        Of the nodes whose output has a grid of its own.
    layers : mapping of node name to FoldedLayer
    """

    frozen: Tensor
    images: Tensor

    def __init__(
        self, graph: FloatModel, recipe: Recipe, sites: Mapping[str, nn.Module], layers: Mapping[str, FoldedLayer]
    ) -> None:
        super().__init__()
        self.graph, self.recipe = graph, recipe
        self.sites = nn.ModuleDict({module_key(name): site for name, site in sites.items()})
        self.layers = nn.ModuleDict({module_key(name): layer for name, layer in layers.items()})
        self.register_buffer("frozen", torch.tensor(False))
        self.register_buffer("images", torch.tensor(0))
        self._owners: dict[str, str] = {}
        for node in graph.nodes:
            self._owners[node.name] = self._owners[node.inputs[0]] if node.op in SHARING_OPS else node.name
        self._exact: tuple[Any, QuantizedModel] | None = None

    def forward(self, x: Tensor, watch: Callable[[Node, Tensor], None] | None = None) -> Tensor:
        """Run the network.

        Parameters
        ----------
        x : Tensor, shape (N, *input_shape), float32
        watch : callable, optional
            Called with every node and its value on the grid, as soon as it is computed.

        Returns
        -------
        Tensor
            The output, on its grid: logits (N, classes) for a classifier.
        """
        if not self.training:
            return self.quantized()(x, watch)
        self.graph.check_input(x)
        self.images += len(x)
        outputs = self._qparams_if_known()
        values: dict[str, Tensor] = {}
        for node in self.graph.nodes:
            inputs = [values[name] for name in node.inputs] if node.inputs else [x.float()]
            try:
                values[node.name] = self._run(as_it_runs(node, outputs), inputs)
            except Exception as error:
                error.add_note(f"in layer {node.name!r} ({node.op}) of {self.name}")
                raise
            if watch is not None:
                watch(node, values[node.name])
        return values[self.graph.output]

    def freeze_batch_norm(self) -> None:
        """Use the running statistics as they are from here on, and move them no more. Call it after the warm-up."""
        self.frozen.fill_(True)

    def table(self) -> CalibrationTable:
        """Return the ranges that training found, to quantize other weights of this network with (paper §8)."""
        plan = calibration_plan(self.graph, self.recipe)
        return CalibrationTable({name: self.site(name).clip_range() for name in plan}, int(self.images))

    def quantized(self) -> QuantizedModel:
        """Return ``convert(self)``, made again only after something has changed."""
        state = tuple(_checksum(value) for value in (*self.parameters(), *self.buffers()))
        if self._exact is None or self._exact[0] != state:
            self._exact = (state, convert(self))
        return self._exact[1]

    def train(self, mode: bool = True) -> QATModel:
        """Switch between training (fake quantization) and evaluation (the quantized network)."""
        self._exact = None
        return super().train(mode)

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.graph.name

    @property
    def preprocess(self) -> Preprocess | None:
        """What turns uint8 pictures into the input."""
        return self.graph.preprocess

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights and biases, as integers where they are quantized."""
        return self.quantized().weight_bytes

    def _run(self, node: Node, inputs: list[Tensor]) -> Tensor:
        site = self.site(node.name)
        if module_key(node.name) in self.layers:
            source = self.site(node.inputs[0])
            layer: FoldedLayer = self.layers[module_key(node.name)]  # type: ignore[assignment]
            value = layer(inputs[0], _scale_of(source), live=not bool(self.frozen))
        elif node.op == "input":
            value = inputs[0]
        elif node.op == "avg_pool2d" and site is not None:
            return _averaged(node, inputs[0], site.qparams())
        else:
            plain = {key: limits for key, limits in node.attrs.items() if key != "clamp"}
            value = inputs[0] if node.op == "clamp" else FLOAT_OPS[node.op](replace(node, attrs=plain), inputs)
        relu, value = _clamped(value, node.attrs.get("clamp"), leave_relu=site is not None)
        if site is None or (node.op in SHARING_OPS and node.op != "clamp"):
            return value
        return site(value, relu=relu)  # type: ignore[no-any-return]

    def site(self, name: str) -> Any:
        """Return the grid of a node's output, its own or its input's; None where it stays in float."""
        key = module_key(self._owners[name])
        return self.sites[key] if key in self.sites else None  # noqa: SIM401  (nn.ModuleDict has no get)

    def _qparams_if_known(self) -> dict[str, QParams | None]:
        """Scale and zero point of every output that has them by now."""
        sites = {node.name: self.site(node.name) for node in self.graph.nodes}
        return {
            name: site.qparams() if site is not None and bool(getattr(site, "started", True)) else None
            for name, site in sites.items()
        }

    def __repr__(self) -> str:
        return f"QATModel {self.name}: {len(self.layers)} layers with weights, {len(self.sites)} sites"


def convert(qat: QATModel) -> QuantizedModel:
    """Return the quantized network that training has arrived at.

    Learned weights keep their codes and step sizes (a pinned grid), learned activations their scales and zero points.

    Parameters
    ----------
    qat : QATModel
        Not changed.

    Returns
    -------
    QuantizedModel
        Its ``to_integer()`` is the integer model, under the contract of `quantize_model`.

    Raises
    ------
    CalibrationError
        If a site has no range yet, because there was no table and no training step.

    References
    ----------
    Paper §8.
    """
    if not isinstance(qat, QATModel):
        raise GraphError(f"convert() takes what prepare_qat() returned, got {type(qat).__name__}")
    with torch.no_grad():
        nodes = [_with_trained_weights(qat, node) for node in qat.graph.nodes]
        sites = {node.name: qat.site(node.name) for node in nodes}
        outputs = {name: None if site is None else site.qparams() for name, site in sites.items()}
        return quantize_sites(replace(qat.graph, nodes=tuple(nodes)), qat.recipe, outputs)


def _with_trained_weights(qat: QATModel, node: Node) -> Node:
    if module_key(node.name) not in qat.layers:
        return node
    layer: FoldedLayer = qat.layers[module_key(node.name)]  # type: ignore[assignment]
    weight, bias = layer.folded()
    weight = weight.detach().clone(memory_format=torch.contiguous_format)
    if not torch.isfinite(weight).all():
        raise CalibrationError(f"the weights of layer {node.name!r} are NaN or Inf: lower the learning rate")
    params = {"weight": weight} if bias is None else {"weight": weight, "bias": bias.detach().clone()}
    qparams = layer.weight_qparams() if isinstance(layer.grid, LearnedGrid) else None
    if qparams is None:
        return node.with_params(**params)
    params["weight"] = fake_quantize(weight, qparams)
    return node.with_params(**params).with_attrs(**{PINNED: qparams})


def _checksum(value: Tensor) -> int:
    """Of the content: torch's version counters do not see what ``vector_to_parameters`` or ``.data`` change."""
    return zlib.crc32(np.ascontiguousarray(value.detach().numpy()).data)


def module_key(name: str) -> str:
    """A module's name must hold no dot and must not be one of nn.ModuleDict's own."""
    return "/" + name.replace(".", "/")


def _averaged(node: Node, x: Tensor, qparams: QParams) -> Tensor:
    """Averages of codes tie often: forward they are rounded by the integers' rule, backward as if they were not."""
    codes = quantize(x.detach(), qparams).float()
    exact = EXACT_OPS[node.op](QuantizedLayer(node, qparams), [(codes, qparams)])
    smooth = FLOAT_OPS[node.op](node, [x])
    return dequantize(exact.to(torch.int32), qparams) + (smooth - smooth.detach())


def _clamped(value: Tensor, limits: Any, *, leave_relu: bool) -> tuple[bool, Tensor]:
    """Clamp; where a grid follows, a lower limit of 0 is left to it, which does it at no cost."""
    if limits is None:
        return False, value
    lo, hi = limits
    if isinstance(lo, Tensor) or isinstance(hi, Tensor):
        per_channel = (-1, *[1] * (value.ndim - 2))
        lo, hi = (torch.as_tensor(limit).reshape(per_channel) for limit in limits)
        return False, torch.clamp(value, lo, hi)
    if leave_relu and lo == 0:
        return True, value if hi == float("inf") else value.clamp(max=hi)
    return False, value.clamp(lo, hi)


def _scale_of(site: Any) -> Tensor | None:
    return None if site is None else torch.tensor(site.qparams().scale)
