"""Layer by layer: how far the quantized network is from the float one, and which layer did it (paper §7.1, Fig. 10)."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.analysis.code_use import CodeUse, WeightUse, code_counts
from qlearn.analysis.lockstep import reference_of, walk_all
from qlearn.analysis.metrics import NoiseSums, finite
from qlearn.analysis.site_table import SiteTable
from qlearn.analysis.text import aligned, db_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from numpy.typing import NDArray

    from qlearn.analysis.lockstep import Step
    from qlearn.graph.model import FloatModel
    from qlearn.pipeline.simulate import QuantizedLayer, QuantizedModel

IDEAL_RMSE_OVER_SCALE = 1 / math.sqrt(12)
"""RMSE in steps of rounding alone: an error that is uniform over one step, 0.289 (paper §7.1)."""


@dataclass(frozen=True)
class LayerRow:
    """What `analyze` measured at one site.

    Parameters
    ----------
    site : str
        Name of the layer.
    op : str
    scale : float or None
        S of its output; None where the output stays in float.
    total : NoiseSums
        The quantized network's value against the float network's: what all layers up to here have done.
    own : NoiseSums
        Against the float layer on the same input codes: what this layer has done.
    codes : CodeUse or None
        None where the output stays in float.
    weights : WeightUse or None
        None for layers without quantized weights.
    """

    site: str
    op: str
    scale: float | None
    total: NoiseSums
    own: NoiseSums
    codes: CodeUse | None = None
    weights: WeightUse | None = None

    @property
    def sqnr_db(self) -> float:
        """SQNR of the total error, in dB."""
        return self.total.sqnr_db

    @property
    def own_sqnr_db(self) -> float:
        """SQNR of the layer's own error, in dB; inf where it adds none."""
        return self.own.sqnr_db

    @property
    def rmse_over_scale(self) -> float:
        """Root mean square of the total error in steps: 0.289 is rounding alone. NaN in float."""
        return math.nan if self.scale is None else self.total.rmse / self.scale

    @property
    def own_rmse_over_scale(self) -> float:
        """Root mean square of the layer's own error in steps. NaN in float."""
        return math.nan if self.scale is None else self.own.rmse / self.scale

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON: infinite and undefined ones become None."""
        return {
            "site": self.site,
            "op": self.op,
            "scale": self.scale,
            "sqnr_db": finite(self.sqnr_db),
            "own_sqnr_db": finite(self.own_sqnr_db),
            "rmse_over_scale": finite(self.rmse_over_scale),
            "own_rmse_over_scale": finite(self.own_rmse_over_scale),
            "cosine": finite(self.total.cosine),
            "mean_error": finite(self.total.mean_error),
            "signal": finite(self.total.signal),
            "noise": finite(self.total.noise),
            "own_noise": finite(self.own.noise),
            "codes": None if self.codes is None else self.codes.to_dict(),
            "weights": None if self.weights is None else self.weights.to_dict(),
        }


_HEADS = ("layer", "op", "SQNR dB", "own dB", "RMSE/S", "own", "cosine", "clipped", "dead", "bits used", "w max/med")


@dataclass(frozen=True)
class LayerTable(SiteTable[LayerRow]):
    """One row per site, in the order in which the layers run.

    ``table[0]`` is a row, ``table["conv1"]`` the row of that site, ``print(table)`` shows all.

    Parameters
    ----------
    model : str
    images : int
        Pictures that were run.
    rows : tuple of LayerRow
    """

    model: str
    images: int
    rows: tuple[LayerRow, ...]

    def worst_first(self, by: str = "own_sqnr_db") -> LayerTable:
        """Return the table with the lowest SQNR at the top: the layer's own (what to mend), or ``"sqnr_db"``."""
        return replace(self, rows=tuple(sorted(self.rows, key=lambda row: float(getattr(row, by)))))

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {"model": self.model, "images": self.images, "rows": [row.to_dict() for row in self.rows]}

    def __str__(self) -> str:
        head = f"{self.model} on {self.images} pictures; RMSE/S of rounding alone: 0.289"
        return f"{head}\n{aligned([_HEADS, *(_cells(row) for row in self.rows)])}"

    def _repr_html_(self) -> str:
        """HTML table for notebooks."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in _HEADS)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(row)) + "</tr>" for row in self.rows
        )
        caption = html.escape(f"{self.model} on {self.images} pictures")
        return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(row: LayerRow) -> tuple[str, ...]:
    """One row of the printed table."""
    codes, weights = row.codes, row.weights
    return (
        row.site,
        row.op,
        db_text(row.sqnr_db),
        db_text(row.own_sqnr_db),
        "-" if row.scale is None else f"{row.rmse_over_scale:.3f}",
        "-" if row.scale is None else f"{row.own_rmse_over_scale:.3f}",
        f"{row.total.cosine:.4f}",
        "-" if codes is None else f"{codes.clipped_share:.2%}",
        "-" if codes is None else f"{codes.dead_levels}/{codes.reachable}",
        "-" if codes is None else f"{codes.bits_used:.1f}",
        "-" if weights is None else f"{weights.max_over_median:.1f}",
    )


def analyze(quantized: QuantizedModel, batches: Iterable[Any], *, reference: FloatModel | None = None) -> LayerTable:
    """Run a quantized network and its float network side by side and measure the error at every site.

    Two errors are told apart.
    The **total** error compares the two networks: it holds what all layers before have done.
    The **own** error gives the float layer the input codes of the quantized one: it holds what this layer has done.
    Only sums are kept, so memory grows with the number of sites, not of pictures.

    Parameters
    ----------
    quantized : QuantizedModel
    batches : iterable
        Of inputs (N, C, H, W), or of tuples that start with one.
    reference : FloatModel, optional
        The float network to compare with, if not the one that was quantized: for example the network before
        its biases were corrected. It must have the same layers.

    Returns
    -------
    LayerTable

    Raises
    ------
    DataError
        If there are no pictures.
    GraphError
        If the two networks do not have the same layers, or a batch does not fit.

    References
    ----------
    Paper §7.1, second Fig. 10.

    Examples
    --------
    >>> import torch, qlearn as ql
    >>> net = ql.trace(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU()), torch.zeros(1, 1, 8, 8))
    >>> batch = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> table = analyze(ql.quantize_model(net, ql.Recipe(), ql.calibrate(net, [batch], ql.Recipe())), [batch])
    >>> [row.site for row in table], table["input"].sqnr_db > 35
    (['input', '0'], True)
    """
    float_network = reference_of(quantized, reference)
    sites = [_Site.of(layer) for layer in quantized.layers]
    images = 0
    for x, steps in walk_all(quantized, float_network, batches, "analyze"):
        for site, step in zip(sites, steps, strict=True):
            site.see(step)
        images += len(x)
    rows = tuple(
        site.row(layer, reference_node.params.get("weight"))
        for site, layer, reference_node in zip(sites, quantized.layers, float_network.nodes, strict=True)
    )
    return LayerTable(quantized.name, images, rows)


@dataclass(eq=False)
class _Site:
    """The sums of one site while the batches run."""

    counts: NDArray[np.int64] | None
    total: NoiseSums = field(default_factory=NoiseSums)
    own: NoiseSums = field(default_factory=NoiseSums)
    clipped: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))

    @classmethod
    def of(cls, layer: QuantizedLayer) -> _Site:
        """Start with nothing seen."""
        levels = 0 if layer.output is None else layer.output.qmax - layer.output.qmin + 1
        return cls(None if layer.output is None else np.zeros(levels, np.int64))

    def see(self, step: Step) -> None:
        """Add one batch."""
        y, exact = step.quantized_output, step.float_on_quantized()
        self.total += NoiseSums.of(step.float_output, y)
        self.own += NoiseSums.of(exact, y)
        output = step.layer.output
        if output is None or self.counts is None:
            return
        self.counts += code_counts(step.value, output)
        half, limits = 0.5 * float(output.scale), output.range
        self.clipped[0] += int((exact < float(limits.lo) - half).sum())
        self.clipped[1] += int((exact > float(limits.hi) + half).sum())

    def row(self, layer: QuantizedLayer, weight: torch.Tensor | None) -> LayerRow:
        """Return what was seen."""
        codes = None
        if layer.output is not None and self.counts is not None:
            codes = CodeUse.of(layer, self.counts, (int(self.clipped[0]), int(self.clipped[1])))
        return LayerRow(
            layer.node.name,
            layer.node.op,
            None if layer.output is None else float(layer.output.scale),
            self.total,
            self.own,
            codes,
            WeightUse.of(layer, weight),
        )
