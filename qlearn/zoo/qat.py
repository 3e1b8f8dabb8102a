"""Networks that were trained to be quantized, and the recipes they were trained for."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qlearn.errors import MissingDataError, ModelFileError
from qlearn.graph.trace import trace
from qlearn.numbers.affine import dequantize, quantize
from qlearn.pipeline.qat.grids import LearnedGrid
from qlearn.pipeline.qat.layers import FoldedLayer
from qlearn.pipeline.qat.prepare import prepare_qat
from qlearn.pipeline.recipe import Recipe, TensorRecipe
from qlearn.zoo.bundled import read_asset
from qlearn.zoo.load import find_entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

    from qlearn.pipeline.qat.model import QATModel


@dataclass(frozen=True)
class QATEntry:
    """A network of the zoo, and how it is quantized.

    Parameters
    ----------
    name : str
    network : str
        What `qlearn.load` takes.
    summary : str
    recipe : Recipe
    """

    name: str
    network: str
    summary: str
    recipe: Recipe

    def untrained(self) -> QATModel:
        """Return the network before training, with random weights: what a saved state fits into."""
        entry = find_entry(self.network)
        model = trace(entry.build(), torch.zeros(1, 3, *entry.preprocess.size), name=entry.name)
        return prepare_qat(model, self.recipe)


def _weights(bits: int, granularity: str = "per_channel") -> TensorRecipe:
    calibrator = "mse" if bits < 8 else "minmax"
    return TensorRecipe(scheme="symmetric_restricted", bits=bits, granularity=granularity, calibrator=calibrator)


def _activations(bits: int) -> TensorRecipe:
    return TensorRecipe(scheme="affine", bits=bits, calibrator="mse")


def _resnet20_w4a4() -> Recipe:
    """Four bits but for the first and the last layer: what the first reads, what the last reads and returns."""
    recipe = Recipe(activations=_activations(4), weights=_weights(4))
    for name in ("input", "pool"):
        recipe = recipe.with_layer(name, activations=_activations(8))
    recipe = recipe.with_layer("conv1", weights=_weights(8))
    return recipe.with_layer("linear", activations=_activations(8), weights=_weights(8))


_ENTRIES = (
    QATEntry(
        "resnet20_w8a8",
        "resnet20",
        "8 bits, weights per channel",
        Recipe(activations=_activations(8), weights=_weights(8)),
    ),
    QATEntry("resnet20_w4a4", "resnet20", "4 bits, weights per channel, first and last layer 8", _resnet20_w4a4()),
    QATEntry(
        "resnet20_all4",
        "resnet20",
        "4 bits everywhere, weights per channel",
        Recipe(activations=_activations(4), weights=_weights(4)),
    ),
    QATEntry(
        "tiny_mobilenet_w8a8",
        "tiny_mobilenet",
        "8 bits, weights per tensor",
        Recipe(activations=_activations(8), weights=_weights(8, "per_tensor")),
    ),
    QATEntry(
        "tiny_mobilenet_w4a8",
        "tiny_mobilenet",
        "weights 4 bits per channel, activations 8",
        Recipe(activations=_activations(8), weights=_weights(4)),
    ),
)


def available_qat() -> tuple[QATEntry, ...]:
    """Return what `load_qat` knows.

    Examples
    --------
    >>> for entry in available_qat():
    ...     print(f"{entry.name:21}{entry.summary}")
    resnet20_w8a8        8 bits, weights per channel
    resnet20_w4a4        4 bits, weights per channel, first and last layer 8
    resnet20_all4        4 bits everywhere, weights per channel
    tiny_mobilenet_w8a8  8 bits, weights per tensor
    tiny_mobilenet_w4a8  weights 4 bits per channel, activations 8
    """
    return _ENTRIES


def find_qat(name: str) -> QATEntry:
    """Return what is known about a trained network.

    Raises
    ------
    MissingDataError
        If there is none of that name.
    """
    entries = {entry.name: entry for entry in _ENTRIES}
    if name not in entries:
        close = difflib.get_close_matches(str(name), entries, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise MissingDataError(f"no trained network {name!r}; there are {', '.join(entries)}{hint}")
    return entries[name]


def load_qat(name: str) -> QATModel:
    """Load a network that was trained to be quantized, in training mode, to go on from there or to convert.

    Parameters
    ----------
    name : str
        One of `available_qat`.

    Returns
    -------
    QATModel

    Raises
    ------
    MissingDataError
        If there is none of that name.
    ChecksumError
        If the file is damaged.

    Examples
    --------
    >>> load_qat("tiny_mobilenet_w8a8")
    QATModel tiny_mobilenet: 21 layers with weights, 27 sites
    """
    qat = find_qat(name).untrained()
    unpack_state(qat, read_asset(f"{name}.npz"), f"the file of {name}")
    return qat


def packed_state(qat: QATModel) -> dict[str, npt.NDArray[Any]]:
    """Return the state of a trained network with its weights as codes: a quarter of the bytes, the same integers.

    What training kept of a weight beyond its code is left out: training goes on from the middle of each step.

    Parameters
    ----------
    qat : QATModel
        Trained with learned step sizes.

    Returns
    -------
    dict of str to ndarray
        The state dict, but for the weights of quantized layers, which are codes of the folded weights.
    """
    state = {key: np.ascontiguousarray(value.numpy()) for key, value in qat.state_dict().items()}
    for key, layer in _on_learned_grids(qat):
        qparams = layer.weight_qparams()
        assert qparams is not None
        state[f"{key}.weight"] = quantize(layer.folded()[0].detach(), qparams).contiguous().numpy()
    return state


def unpack_state(qat: QATModel, arrays: Mapping[str, npt.NDArray[Any]], source: str) -> None:
    """Put what `packed_state` returned into a network of the same kind, in place.

    Raises
    ------
    ModelFileError
        If it does not fit; the message starts with ``source``.
    """
    state = {key: torch.from_numpy(array) for key, array in arrays.items()}
    try:
        qat.load_state_dict(state)  # the codes stand in for the weights, until the grids are there to decode them
    except RuntimeError as error:
        raise ModelFileError(f"{source} does not fit its network: {error}") from error
    for key, layer in _on_learned_grids(qat):
        codes, qparams = state[f"{key}.weight"], layer.weight_qparams()
        if codes.is_floating_point() or qparams is None:
            raise ModelFileError(f"{source}: the weights of {key} are {codes.dtype}, not codes")
        layer.set_folded_weight(dequantize(codes, qparams))


def _on_learned_grids(qat: QATModel) -> Iterator[tuple[str, FoldedLayer]]:
    for name, layer in qat.layers.items():
        if isinstance(layer, FoldedLayer) and isinstance(layer.grid, LearnedGrid):
            yield f"layers.{name}", layer
