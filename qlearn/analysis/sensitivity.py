"""Which layer costs how much: one layer quantized at a time, and all but one (paper §7.1, §7.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qlearn.analysis.effects import Effect, Scores
from qlearn.analysis.lockstep import reference_of, walk
from qlearn.analysis.partly import partly, sites_of
from qlearn.analysis.site_table import SiteTable
from qlearn.analysis.text import aligned
from qlearn.errors import DataError
from qlearn.pipeline.calibrate import input_of
from qlearn.pipeline.simulate import run_layer, to_codes, to_real
from qlearn.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from qlearn.graph.model import FloatModel
    from qlearn.pipeline.simulate import QuantizedLayer, QuantizedModel

    Values = dict[str, tuple[QuantizedLayer, Tensor]]

MEASURES = {"sqnr_db": True, "agreement": True, "accuracy": True, "kl": False}
"""What `Sensitivity.ranking` can sort by, and whether more is better."""

WHAT = ("both", "weights", "activations")


@dataclass(frozen=True)
class SensitivityRow:
    """One layer.

    Parameters
    ----------
    site, op : str
    alone : Effect
        Only this layer quantized.
    without : Effect or None
        All layers quantized but this one; None if that was not asked for.
    """

    site: str
    op: str
    alone: Effect
    without: Effect | None

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON."""
        without = None if self.without is None else self.without.to_dict()
        return {"site": self.site, "op": self.op, "alone": self.alone.to_dict(), "without": without}


@dataclass(frozen=True)
class Sensitivity(SiteTable[SensitivityRow]):
    """What `sensitivity` measured.

    Parameters
    ----------
    model : str
    images : int
    what : str
        ``"both"``, ``"weights"`` or ``"activations"``: what was quantized.
    float_accuracy : float or None
    all : Effect
        All layers quantized.
    rows : tuple of SensitivityRow
        In the order in which the layers run.
    """

    model: str
    images: int
    what: str
    float_accuracy: float | None
    all: Effect
    rows: tuple[SensitivityRow, ...]

    def ranking(self, by: str = "sqnr_db", *, without: bool = False) -> tuple[SensitivityRow, ...]:
        """Return the rows, the most sensitive layer first.

        Parameters
        ----------
        by : str
            ``"sqnr_db"``, ``"agreement"``, ``"accuracy"`` or ``"kl"``. Equals stay in the order of the network.
        without : bool
            False: the layer that hurts most alone comes first.
            True: the layer whose return to float helps most comes first.

        Raises
        ------
        DataError
            If that was not measured.
        """
        if by not in MEASURES:
            raise DataError(f"no measure {by!r}; there are {', '.join(MEASURES)}")
        values = {}
        for row in self.rows:
            effect = row.without if without else row.alone
            value = None if effect is None else getattr(effect, by)
            if value is None:
                what = "all but one layer" if effect is None else f"{by} (it needs labels)"
                raise DataError(f"{self.model}: {what} was not measured")
            values[row.site] = value if MEASURES[by] == without else -value
        return tuple(sorted(self.rows, key=lambda row: values[row.site], reverse=True))

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            "model": self.model,
            "images": self.images,
            "what": self.what,
            "float_accuracy": self.float_accuracy,
            "all": self.all.to_dict(),
            "rows": [row.to_dict() for row in self.rows],
        }

    def __str__(self) -> str:
        heads = ["layer", "op", "alone: SQNR dB", "agrees", "accuracy", "KL"]
        with_without = any(row.without is not None for row in self.rows)
        heads += ["all others: SQNR dB", "agrees", "accuracy", "KL"] if with_without else []
        body = [
            [row.site, row.op, *row.alone.cells(), *(() if row.without is None else row.without.cells())]
            for row in self.ranking()
        ]
        whole = "all layers: SQNR {} dB, agreement {}, accuracy {}, KL {}".format(*self.all.cells())
        return f"{self.model} on {self.images} pictures, {self.what}\n{aligned([heads, *body])}\n{whole}"


def sensitivity(
    quantized: QuantizedModel,
    batches: Iterable[Any],
    *,
    what: str = "both",
    without: bool = True,
    reference: FloatModel | None = None,
) -> Sensitivity:
    """Quantize one layer at a time, and all layers but one, and measure what it does to the output.

    Scales and zero points are those of the quantized network.
    The values before the layer are computed once, so that all layers together cost about half a forward pass per layer.
    Memory: the activations of one batch, twice.

    Parameters
    ----------
    quantized : QuantizedModel
        Of any recipe: 4 bits show more differences than 8.
    batches : iterable
        Of inputs (N, C, H, W), or of (images, labels).
    what : str
        ``"both"``, or only the ``"weights"`` or the ``"activations"`` of each layer.
    without : bool
        Measure all layers but one as well.
    reference : FloatModel, optional
        As for `analyze`; measured against, but the layers in float are those of the network that was quantized.

    Returns
    -------
    Sensitivity

    Raises
    ------
    DataError
        If there are no pictures, labels do not fit, or the output is no (N, classes).
    GraphError
        As for `analyze`.

    References
    ----------
    Paper §7.1, §7.3.

    Examples
    --------
    >>> import torch, qlearn as ql
    >>> layers = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 3))
    >>> net, batch = ql.trace(layers, torch.zeros(1, 1, 8, 8)), torch.ones(4, 1, 8, 8)
    >>> result = sensitivity(ql.quantize_model(net, ql.Recipe(), ql.calibrate(net, [batch], ql.Recipe())), [batch])
    >>> [row.site for row in result], result.ranking()[0].alone.agreement
    (['input', '0', '2'], 1.0)
    """
    if what not in WHAT:
        raise DataError(f"what is one of {', '.join(WHAT)}: got {what!r}")
    float_network = reference_of(quantized, reference)
    study = _Study.of(_only(quantized, what, None), what, without=without)
    for batch in progress(batches, "sensitivity", unit="batch"):
        labels = batch[1] if isinstance(batch, tuple | list) and len(batch) > 1 else None
        study.see(float_network, input_of(batch), None if labels is None else torch.as_tensor(labels))
    return study.result()


def _only(quantized: QuantizedModel, what: str, sites: Sequence[str] | None) -> QuantizedModel:
    """Quantize only some layers (None: all of them), and of these only what is studied."""
    nothing: tuple[str, ...] = ()
    return partly(
        quantized,
        weights=nothing if what == "activations" else sites,
        activations=nothing if what == "weights" else sites,
    )


@dataclass(eq=False)
class _Study:
    """All choices of layers, and what has been seen of each."""

    none: QuantizedModel
    every: QuantizedModel
    alone: dict[str, QuantizedModel]
    without: dict[str, QuantizedModel]
    after: dict[str, tuple[str, ...]]
    what: str
    scores: dict[tuple[str, str], Scores]

    @classmethod
    def of(cls, quantized: QuantizedModel, what: str, *, without: bool) -> _Study:
        """Prepare one network for every layer; they share their weights."""
        sites = sites_of(quantized)
        alone = {site: _only(quantized, what, [site]) for site in sites}
        others = {site: _only(quantized, what, [s for s in sites if s != site]) for site in sites if without}
        keys = [("float", ""), ("every", ""), *(("alone", site) for site in sites), *(("without", s) for s in others)]
        after = {site: _descendants(quantized, site) for site in sites}
        none = _only(quantized, what, [])
        return cls(none, quantized, alone, others, after, what, {key: Scores() for key in keys})

    def see(self, reference: FloatModel, x: Tensor, labels: Tensor | None) -> None:
        """Run one batch through every choice of layers."""
        steps = list(walk(self.every, reference, x))  # checks x
        expected = next(step.float_output for step in steps if step.node.name == reference.output)
        _check(self.none.name, expected, labels)
        probabilities = self.none.model.node(self.none.model.output).op == "softmax"

        def score(key: tuple[str, str], logits: Tensor) -> None:
            self.scores[key].see(expected, logits, labels, probabilities=probabilities)

        whole: Values = {step.node.name: (step.layer, step.value) for step in steps}
        score(("float", ""), expected)
        score(("every", ""), to_real(*whole[reference.output]))
        plain = _run_all(self.none, x)
        for kind, networks, base in (("alone", self.alone, plain), ("without", self.without, whole)):
            for site, network in networks.items():
                score((kind, site), _run_from(network, site, self.after[site], base, x))

    def result(self) -> Sensitivity:
        """Return what was seen."""
        images = self.scores["float", ""].images
        if images == 0:
            raise DataError(f"{self.none.name}: no pictures to analyse with (an iterator that was already used up?)")
        effects = {key: scores.effect() for key, scores in self.scores.items()}
        rows = tuple(
            SensitivityRow(site, self.none.model.node(site).op, effects["alone", site], effects.get(("without", site)))
            for site in self.alone
        )
        float_accuracy = effects["float", ""].accuracy
        return Sensitivity(self.none.name, images, self.what, float_accuracy, effects["every", ""], rows)


def _check(name: str, logits: Tensor, labels: Tensor | None) -> None:
    if logits.ndim != 2:
        raise DataError(f"{name}: logits of shape (N, classes) expected, got {tuple(logits.shape)}: flatten the output")
    if labels is not None and labels.shape != (len(logits),):
        raise DataError(f"{name}: {len(logits)} pictures, but labels of shape {tuple(labels.shape)}")


def _descendants(quantized: QuantizedModel, site: str) -> tuple[str, ...]:
    """The layer and all that depend on it, in the order in which they run."""
    found = {site}
    for layer in quantized.layers:
        if found.intersection(layer.node.inputs):
            found.add(layer.node.name)
    return tuple(layer.node.name for layer in quantized.layers if layer.node.name in found)


def _run_all(network: QuantizedModel, x: Tensor) -> Values:
    """Run a network on one batch and keep every value."""
    values: Values = {}
    for layer in network.layers:
        values[layer.node.name] = (layer, _value(layer, values, {}, x))
    return values


def _run_from(network: QuantizedModel, site: str, after: tuple[str, ...], base: Values, x: Tensor) -> Tensor:
    """Run only what depends on a layer; everything else is taken from `base`. Return the output of the network."""
    layers = {layer.node.name: layer for layer in network.layers}
    changed: Values = {}
    for name in after:
        changed[name] = (layers[name], _value(layers[name], changed, base, x))
    output = network.model.output
    return to_real(*(changed.get(output) or base[output]))


def _value(layer: QuantizedLayer, changed: Values, base: Values, x: Tensor) -> Tensor:
    if not layer.node.inputs:
        return to_codes(x.float(), layer.output)
    with torch.no_grad():
        return run_layer(layer, [changed.get(name) or base[name] for name in layer.node.inputs])
