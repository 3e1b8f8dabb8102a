"""An error budget: how much of a layer's noise comes from weights, input, bias and output (paper §7, Fig. 10)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from qlearn.analysis.lockstep import EXACT_MOVES, reference_of, run_float, walk_all
from qlearn.analysis.metrics import NoiseSums, decibels, finite
from qlearn.analysis.partly import partly
from qlearn.analysis.site_table import SiteTable
from qlearn.analysis.text import aligned, db_text
from qlearn.numbers.affine import dequantize
from qlearn.pipeline.simulate import run_layer, to_codes, to_real

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor

    from qlearn.analysis.lockstep import Step
    from qlearn.graph.model import FloatModel, Node
    from qlearn.pipeline.simulate import QuantizedLayer, QuantizedModel

PARTS = ("weights", "input", "bias", "rounding", "clipping")
"""Where a layer's noise comes from; rounding and clipping are those of its output."""


@dataclass(frozen=True)
class BudgetRow:
    """The noise at the output of one layer, in parts.

    Parameters
    ----------
    site, op : str
    signal : float
        Power of the float output: the sum of its squares.
    parts : mapping of str to float
        Noise power of each of `PARTS` alone, everything else in float.
    whole : float
        Noise power of all together.
    """

    site: str
    op: str
    signal: float
    parts: Mapping[str, float]
    whole: float

    @property
    def total(self) -> float:
        """Sum of the parts: the noise power if they did not know of each other."""
        return sum(self.parts.values())

    @property
    def cross(self) -> float:
        """What the sum of the parts leaves of the whole: positive where errors add up, negative where they cancel."""
        return self.whole - self.total

    @property
    def largest(self) -> str:
        """The part with the most noise; ``"none"`` where there is none."""
        return max(self.parts, key=lambda part: self.parts[part]) if self.total > 0 else "none"

    def share(self, part: str) -> float:
        """Return a part's share of the sum of the parts."""
        return self.parts[part] / self.total if self.total > 0 else 0.0

    def db(self, part: str) -> float:
        """Return the SQNR if only this part were there, in dB."""
        return decibels(self.signal, self.parts[part])

    @property
    def sqnr_db(self) -> float:
        """SQNR of the whole, in dB."""
        return decibels(self.signal, self.whole)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON."""
        return {
            "site": self.site,
            "op": self.op,
            "sqnr_db": finite(self.sqnr_db),
            "parts_db": {part: finite(self.db(part)) for part in self.parts},
            "shares": {part: finite(self.share(part)) for part in self.parts},
            "signal": finite(self.signal),
            "whole": finite(self.whole),
            "cross": finite(self.cross),
        }


@dataclass(frozen=True)
class ErrorBudget(SiteTable[BudgetRow]):
    """What `error_budget` measured.

    Parameters
    ----------
    model : str
    images : int
    rows : tuple of BudgetRow
        In the order in which the layers run.
    network : mapping of str to float
        SQNR of the network's output in dB with only its ``weights`` quantized, only its ``activations``, and ``all``.
    inherited : bool
        Whether ``input`` holds the noise of all layers before, or only the rounding of the input.
    """

    model: str
    images: int
    rows: tuple[BudgetRow, ...]
    network: Mapping[str, float]
    inherited: bool

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            "model": self.model,
            "images": self.images,
            "inherited": self.inherited,
            "network_sqnr_db": {name: finite(value) for name, value in self.network.items()},
            "rows": [row.to_dict() for row in self.rows],
        }

    def __str__(self) -> str:
        what = "the noise of all layers before" if self.inherited else "the rounding of the input alone"
        heads = ["layer", "op", "SQNR dB", *PARTS, "whole/sum"]
        body = [
            [
                row.site,
                row.op,
                db_text(row.sqnr_db),
                *(f"{row.share(part):.1%}" if row.total > 0 else "-" for part in PARTS),
                f"{row.whole / row.total:.2f}" if row.total > 0 else "-",
            ]
            for row in self.rows
        ]
        ends = ", ".join(f"{name} {db_text(value)}" for name, value in self.network.items())
        return "\n".join(
            [
                f"{self.model} on {self.images} pictures; shares of noise power, each part alone; input is {what}",
                aligned([heads, *body]),
                f"SQNR of the output in dB with only these quantized: {ends}",
            ]
        )


def error_budget(
    quantized: QuantizedModel,
    batches: Iterable[Any],
    *,
    reference: FloatModel | None = None,
    inherited: bool = True,
) -> ErrorBudget:
    """Split the noise at every layer's output into the parts of the paper's Fig. 10, each switched on alone.

    For a layer y = f(W x + b) of the float network, on its float input x, each part replaces one thing:
    **weights** W by the quantized weights, **bias** b by its codes, **input** x by what the quantized layer reads,
    **rounding** y by the nearest level of an endless grid, **clipping** y by its value inside the clip range.
    The whole replaces all of them: it is the integer layer.
    The powers of independent errors add up; what remains is `BudgetRow.cross`.

    Parameters
    ----------
    quantized : QuantizedModel
    batches : iterable
        Of inputs (N, C, H, W), or of tuples that start with one.
    reference : FloatModel, optional
        As for `analyze`.
    inherited : bool
        True: the input is what the quantized network computed up to here, so the whole is the total noise of `analyze`.
        False: the input is the float input, rounded to its grid: the layer by itself.

    Returns
    -------
    ErrorBudget

    Raises
    ------
    DataError
        If there are no pictures.
    GraphError
        As for `analyze`.

    References
    ----------
    Paper §7, first Fig. 10.

    Examples
    --------
    >>> import torch, qlearn as ql
    >>> net = ql.trace(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU()), torch.zeros(1, 1, 8, 8))
    >>> batch = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> row = error_budget(ql.quantize_model(net, ql.Recipe(), ql.calibrate(net, [batch], ql.Recipe())), [batch])["0"]
    >>> row.largest, row.parts["bias"] < 1e-3 * row.whole, abs(row.cross) < 0.2 * row.whole
    ('input', True, True)
    """
    float_network = reference_of(quantized, reference)
    nothing: tuple[str, ...] = ()
    halves = {"weights": partly(quantized, activations=nothing), "activations": partly(quantized, weights=nothing)}
    ends = {name: NoiseSums() for name in (*halves, "all")}
    signals = dict.fromkeys((node.name for node in float_network.nodes), 0.0)
    powers = {node.name: dict.fromkeys((*PARTS, "whole"), 0.0) for node in float_network.nodes}
    images = 0
    for x, steps in walk_all(quantized, float_network, batches, "budget"):
        images += len(x)
        for step in steps:
            name = step.node.name
            signals[name] += _power(step.float_output)
            for part, value in _parts(step, inherited=inherited):
                powers[name][part] += _power(value - step.float_output)
            if name == float_network.output:
                ends["all"] += NoiseSums.of(step.float_output, step.quantized_output)
                for half, network in halves.items():
                    ends[half] += NoiseSums.of(step.float_output, network(x))
    rows = tuple(
        BudgetRow(
            node.name,
            node.op,
            signals[node.name],
            {part: powers[node.name][part] for part in PARTS},
            powers[node.name]["whole"],
        )
        for node in float_network.nodes
    )
    return ErrorBudget(
        quantized.name, images, rows, {name: sums.sqnr_db for name, sums in ends.items()}, inherited=inherited
    )


def _power(values: Tensor) -> float:
    """Sum of squares, in float64."""
    return float(values.double().square().sum())


def _parts(step: Step, *, inherited: bool) -> Iterator[tuple[str, Tensor]]:
    """Yield the layer's output with one part switched on at a time, and with all of them."""
    node, layer, x = step.node, step.layer, step.float_inputs
    sources = step.sources
    if not inherited:
        sources = [(s, to_codes(real, s.output)) for (s, _), real in zip(step.sources, x, strict=True)]
    if sources:
        yield "input", run_float(node, [to_real(source, value) for source, value in sources])
        yield "whole", to_real(layer, run_layer(layer, sources))
    else:
        yield "whole", step.quantized_output
    if layer.weight is not None and layer.weight_qparams is not None:
        yield "weights", run_float(_with(node, weight=dequantize(layer.weight, layer.weight_qparams)), x)
    if layer.bias is not None:
        yield "bias", run_float(_with(node, bias=_real_bias(layer, sources[0][0])), x)
    if layer.output is not None and node.op not in EXACT_MOVES:
        y, scale, limits = step.float_output, float(layer.output.scale), layer.output.range
        yield "rounding", torch.round(y / scale) * scale
        yield "clipping", y.clamp(float(limits.lo), float(limits.hi))


def _with(node: Node, **params: Tensor) -> Node:
    return replace(node, params={**node.params, **params})


def _real_bias(layer: QuantizedLayer, source: QuantizedLayer) -> Tensor:
    """The bias that the integer layer adds, in real units: codes times S_x S_w."""
    assert layer.weight_qparams is not None
    assert source.output is not None
    step = torch.tensor(layer.weight_qparams.scale * source.output.scale, dtype=torch.float64)
    return (torch.from_numpy(layer.bias).double() * step).float()
