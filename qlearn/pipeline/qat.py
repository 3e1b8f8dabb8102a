"""Quantization-aware training: the network feels in training what its integers will do to it (paper §3.4, 8)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qlearn.errors import CalibrationError, GraphError, RecipeError
from qlearn.graph.fold import fold_batch_norm, norms_behind
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.model import FloatModel
from qlearn.graph.ops import FLOAT_OPS
from qlearn.integer.layers import SHARING_OPS
from qlearn.numbers.affine import dequantize, fake_quantize, quantize
from qlearn.pipeline.calibrate import CalibrationTable, calibration_plan
from qlearn.pipeline.exact import EXACT_OPS
from qlearn.pipeline.known import known_output
from qlearn.pipeline.observe import input_of
from qlearn.pipeline.qat_grids import CalibratedGrid, FixedGrid, LearnedGrid, MovingGrid
from qlearn.pipeline.qat_layers import FoldedLayer
from qlearn.pipeline.quantize import WEIGHTED_OPS, as_it_runs, quantize_sites, site_qparams
from qlearn.pipeline.simulate import QuantizedLayer
from qlearn.pipeline.weights import PINNED, weight_grid
from qlearn.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from qlearn.graph.model import Node
    from qlearn.graph.preprocess import Preprocess
    from qlearn.numbers.qparams import ClipRange, QParams
    from qlearn.pipeline.recipe import Recipe
    from qlearn.pipeline.simulate import QuantizedModel

RANGES = ("learned", "moving_average")


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

    def __init__(
        self, graph: FloatModel, recipe: Recipe, sites: Mapping[str, nn.Module], layers: Mapping[str, FoldedLayer]
    ) -> None:
        super().__init__()
        self.graph, self.recipe = graph, recipe
        self.sites = nn.ModuleDict({_key(name): site for name, site in sites.items()})
        self.layers = nn.ModuleDict({_key(name): layer for name, layer in layers.items()})
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
        self.frozen.fill_(True)  # type: ignore[operator]

    def table(self) -> CalibrationTable:
        """Return the ranges that training found, to quantize other weights of this network with (paper §8)."""
        plan = calibration_plan(self.graph, self.recipe)
        return CalibrationTable({name: self._site(name).clip_range() for name in plan}, int(self.images))

    def quantized(self) -> QuantizedModel:
        """Return ``convert(self)``, made again only after something has changed."""
        state = tuple((id(value), value._version) for value in (*self.parameters(), *self.buffers()))  # noqa: SLF001
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
        site = self._site_or_none(node.name)
        if _key(node.name) in self.layers:
            source = self._site_or_none(node.inputs[0])
            layer: FoldedLayer = self.layers[_key(node.name)]  # type: ignore[assignment]
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

    def _site_or_none(self, name: str) -> Any:
        key = _key(self._owners[name])
        return self.sites[key] if key in self.sites else None

    def _site(self, name: str) -> Any:
        return self.sites[_key(name)]

    def _qparams_if_known(self) -> dict[str, QParams | None]:
        """Scale and zero point of every output that has them by now."""
        sites = {node.name: self._site_or_none(node.name) for node in self.graph.nodes}
        return {
            name: site.qparams() if site is not None and bool(getattr(site, "started", True)) else None
            for name, site in sites.items()
        }

    def __repr__(self) -> str:
        return f"QATModel {self.name}: {len(self.layers)} layers with weights, {len(self.sites)} sites"


def prepare_qat(
    model: FloatModel,
    recipe: Recipe,
    table: Mapping[str, ClipRange] | None = None,
    *,
    ranges: str = "learned",
    learn_zero_points: bool = False,
    momentum: float = 0.01,
) -> QATModel:
    """Return a trainable copy of a network, with fake quantization at every site of the quantized network.

    Parameters
    ----------
    model : FloatModel
        Not changed. Batch norms may be separate: those behind a convolution or linear layer are folded anew in every
        step; all others are folded for good, as `fold_batch_norm` does.
    recipe : Recipe
    table : mapping of site to ClipRange, optional
        From ``calibrate(fold_batch_norm(model), ...)``: training starts where post-training quantization ends.
        Without a table every site starts at the range of the first batch.
    ranges : str
        ``"learned"``: step sizes are parameters, with LSQ's gradient.
        ``"moving_average"``: activations follow the extremes of the batches, weights are calibrated in every step.
    learn_zero_points : bool
        Learn the zero points of activations, too.
    momentum : float, 0 to 1
        Weight of a new batch in the statistics of batch norms and in moving ranges.

    Returns
    -------
    QATModel
        In training mode.

    Raises
    ------
    GraphError
        If model is not a traced network.
    RecipeError
        If ``ranges`` is unknown, or the recipe names a layer that the network does not have.
    CalibrationError
        If the table lacks a site.

    References
    ----------
    Paper §3.4, §8. Jacob et al. (2018), Krishnamoorthi (2018), Esser et al. (2020).

    Examples
    --------
    >>> from qlearn.graph.trace import trace
    >>> from qlearn.pipeline.recipe import Recipe
    >>> net = trace(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()), torch.zeros(1, 1, 8, 8))
    >>> qat = prepare_qat(net, Recipe())
    >>> optimizer = torch.optim.SGD(qat.parameters(), lr=0.01)
    >>> qat(torch.randn(4, 1, 8, 8)).square().mean().backward()
    >>> optimizer.step()
    >>> qat.quantized()
    QuantizedModel Sequential: 2 layers, 26 bytes of weights
    """
    if not isinstance(model, FloatModel):
        raise GraphError(f"prepare_qat() takes a traced network, got {type(model).__name__}: use qlearn.trace()")
    if ranges not in RANGES:
        raise RecipeError(f"ranges is one of {', '.join(RANGES)}: got {ranges!r}")
    if not 0 < momentum <= 1:
        raise RecipeError(f"momentum lies between 0 and 1: got {momentum}")
    graph = fuse_activations(fold_batch_norm(model))
    plan = calibration_plan(graph, recipe)  # refuses unknown layers
    starts = dict.fromkeys(node.name for node in graph.nodes) if table is None else site_qparams(graph, recipe, table)
    sites: dict[str, nn.Module] = {}
    for node in graph.nodes:
        choice = recipe.for_layer(node.name).activations
        if choice is None or node.op in SHARING_OPS:
            continue
        known = known_output(node, choice.bits, signed=choice.signed)
        if known is not None:
            sites[node.name] = FixedGrid(known)
        elif ranges == "learned":
            sites[node.name] = LearnedGrid(
                starts[node.name], plan[node.name], per_picture=True, learn_zero_point=learn_zero_points
            )
        else:
            start = None if table is None else table[node.name]
            sites[node.name] = MovingGrid(start, plan[node.name], momentum)
    layers = _layers(model, graph, recipe, starts, learned=ranges == "learned", momentum=momentum)
    return QATModel(graph, recipe, sites, layers)


def _layers(
    model: FloatModel,
    graph: FloatModel,
    recipe: Recipe,
    outputs: Mapping[str, QParams | None],
    *,
    learned: bool,
    momentum: float,
) -> dict[str, FoldedLayer]:
    norms = norms_behind(model)
    layers: dict[str, FoldedLayer] = {}
    for node in graph.nodes:
        if node.op not in WEIGHTED_OPS:
            continue
        choice = recipe.for_layer(node.name).weights
        norm = norms.get(node.name)
        grid: LearnedGrid | CalibratedGrid | None = None
        if choice is not None and learned:
            x = outputs[node.inputs[0]]
            start = weight_grid(node, choice, None if x is None else x.scale)
            grid = LearnedGrid(start, choice, per_picture=False)
        elif choice is not None:
            grid = CalibratedGrid(choice)
        own = node if norm is None else replace(node, params=model.node(node.name).params)
        layers[node.name] = FoldedLayer(own, norm, grid, momentum)
    return layers


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
        sites = {node.name: qat._site_or_none(node.name) for node in nodes}  # noqa: SLF001
        outputs = {name: None if site is None else site.qparams() for name, site in sites.items()}
        return quantize_sites(replace(qat.graph, nodes=tuple(nodes)), qat.recipe, outputs)


def _with_trained_weights(qat: QATModel, node: Node) -> Node:
    if _key(node.name) not in qat.layers:
        return node
    layer: FoldedLayer = qat.layers[_key(node.name)]  # type: ignore[assignment]
    weight, bias = layer.folded()
    weight = weight.detach().clone(memory_format=torch.contiguous_format)
    if not torch.isfinite(weight).all():
        raise CalibrationError(f"the weights of layer {node.name!r} are NaN or Inf: lower the learning rate")
    params = {"weight": weight} if bias is None else {"weight": weight, "bias": bias.detach().clone()}
    if not isinstance(layer.grid, LearnedGrid):
        return node.with_params(**params)
    qparams = layer.grid.qparams()
    params["weight"] = fake_quantize(weight, qparams)
    return node.with_params(**params).with_attrs(**{PINNED: qparams})


def reestimate_batch_norm(qat: QATModel, batches: Iterable[Any]) -> QATModel:
    """Return a copy whose batch norms hold the mean statistics of these batches, with everything quantized.

    In training the running statistics lag behind the weights; at few bits that costs accuracy.
    A learned step size per channel moves with the factor γ / σ that is folded into its weights,
    so that the codes of the weights stay as they were learned.

    Parameters
    ----------
    qat : QATModel
        Not changed.
    batches : iterable
        Of input tensors, or of tuples that start with one. About a hundred are enough.

    Returns
    -------
    QATModel
        Frozen, in the mode that ``qat`` was in.

    Raises
    ------
    CalibrationError
        If there are no batches.

    References
    ----------
    Paper §8. Nagel et al.: Overcoming Oscillations in Quantization-Aware Training (2022), §3.2.
    """
    fresh = copy.deepcopy(qat)
    normed = [layer for layer in fresh.layers.values() if isinstance(layer, FoldedLayer) and layer.norm is not None]
    fresh.frozen.fill_(False)  # type: ignore[operator]
    fresh.train()
    seen = 0
    with torch.no_grad():
        for batch in progress(batches, "re-estimate batch norm", unit="batch"):
            seen += 1
            for layer in normed:
                layer.estimate_with(1.0 / seen)
            fresh(input_of(batch))
        if seen == 0:
            raise CalibrationError(f"{qat.name}: no batches to re-estimate on (an iterator that was already used up?)")
        for layer in normed:
            layer.take_estimate()
    fresh.images.copy_(qat.images)  # type: ignore[operator]
    fresh.freeze_batch_norm()
    return fresh.train(qat.training)


def _averaged(node: Node, x: Tensor, qparams: QParams) -> Tensor:
    """Averages of codes tie often: forward they are rounded by the rule of the integers, backward as if they were not."""
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


def _key(name: str) -> str:
    """A module's name must hold no dot and must not be one of nn.ModuleDict's own."""
    return "/" + name.replace(".", "/")
