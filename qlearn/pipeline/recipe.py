"""A recipe: scheme, bits and calibrator of weights and of activations, for all layers alike or layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from qlearn.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping

GRANULARITIES = ("per_tensor", "per_channel")


@dataclass(frozen=True, kw_only=True)
class TensorRecipe:
    """How one kind of tensor is quantized.

    Parameters
    ----------
    scheme : str
        Name of a scheme: ``"affine"``, ``"symmetric"``, ``"symmetric_restricted"``, or a plugin's.
    bits : int, 2 to 16
    granularity : str
        ``"per_tensor"`` or ``"per_channel"`` (one scale per output channel; weights only).
    calibrator : str
        Name of a calibrator: ``"minmax"``, ``"mse"``, or a plugin's.
        The default suits weights; for activations `Recipe` takes ``"mse"`` unless told.
    calibrator_params : mapping
        Passed to the calibrator: ``{"percent": 99.9}``.
    signed : bool

    Raises
    ------
    RecipeError
        If the granularity is unknown.
    """

    scheme: str
    bits: int = 8
    granularity: str = "per_tensor"
    calibrator: str = "minmax"
    calibrator_params: Mapping[str, Any] = field(default_factory=dict)
    signed: bool = True

    def __post_init__(self) -> None:
        if self.granularity not in GRANULARITIES:
            raise RecipeError(f"granularity is one of {', '.join(GRANULARITIES)}: got {self.granularity!r}")
        if "channel_axis" in self.calibrator_params:
            raise RecipeError("channel_axis is no parameter of a recipe: granularity='per_channel' sets it for weights")


@dataclass(frozen=True, kw_only=True)
class LayerRecipe:
    """How one layer is quantized: its weights, and its output.

    Parameters
    ----------
    activations : TensorRecipe or None
        For the layer's output. None leaves it in float.
    weights : TensorRecipe or None
        None leaves the layer's weights in float.

    Raises
    ------
    RecipeError
        If activations are per channel: then every input channel of a convolution would have a scale of its own,
        and its integer products could not be added up.
    """

    activations: TensorRecipe | None
    weights: TensorRecipe | None

    def __post_init__(self) -> None:
        if self.activations is not None and self.activations.granularity != "per_tensor":
            raise RecipeError(
                "activations are quantized per tensor: a scale per input channel could not leave the integer sum of a "
                "convolution. To study them per channel, use qlearn.calibrator(name, channel_axis=1)"
            )


class _Inherited:
    """What `Recipe.with_layer` takes over from the network where nothing is said: None already means float."""

    def __repr__(self) -> str:
        return "INHERITED"


INHERITED = _Inherited()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The choices for a whole network. The default is what LiteRT does (paper §3.5), but for `mse`.

    Parameters
    ----------
    activations : TensorRecipe or None
        None leaves activations in float. The default calibrator, `mse`, was chosen by ``qlearn compare`` (ADR 0011).
    weights : TensorRecipe or None
        None leaves weights in float: the column "Activation Only" of the paper's Table 1.

    layers : mapping of str to LayerRecipe
        Layers that differ, by name: mixed precision (paper §7.3). See `with_layer`.

    Raises
    ------
    RecipeError
        If activations are per channel, as for LayerRecipe.

    References
    ----------
    Paper §3.1, §3.5, §7.3, Table 1.

    Examples
    --------
    >>> Recipe().weights
    TensorRecipe(scheme='symmetric_restricted', bits=8, granularity='per_channel', calibrator='minmax', \
calibrator_params={}, signed=True)
    >>> mixed = Recipe().with_layer("conv1", weights=TensorRecipe(scheme="symmetric_restricted", bits=4))
    >>> mixed.for_layer("conv1").weights.bits, mixed.for_layer("conv2").weights.bits
    (4, 8)
    """

    activations: TensorRecipe | None = field(default_factory=lambda: TensorRecipe(scheme="affine", calibrator="mse"))
    weights: TensorRecipe | None = field(
        default_factory=lambda: TensorRecipe(scheme="symmetric_restricted", granularity="per_channel")
    )
    layers: Mapping[str, LayerRecipe] = field(default_factory=dict)

    def __post_init__(self) -> None:
        LayerRecipe(activations=self.activations, weights=self.weights)  # raises what it raises

    def for_layer(self, name: str) -> LayerRecipe:
        """Return the choices for one layer: its own, or those of the network."""
        return self.layers.get(name) or LayerRecipe(activations=self.activations, weights=self.weights)

    def with_layer(
        self,
        name: str,
        *,
        activations: TensorRecipe | _Inherited | None = INHERITED,
        weights: TensorRecipe | _Inherited | None = INHERITED,
    ) -> Recipe:
        """Return a recipe that differs in one layer; what is not given stays as it was there.

        Parameters
        ----------
        name : str
            A node of the network: ``"blocks.0.conv"``. The input is a layer without weights.
        activations, weights : TensorRecipe or None, optional
            None leaves them in float.

        Examples
        --------
        >>> Recipe().with_layer("fc", weights=None).for_layer("fc").activations.calibrator
        'mse'
        """
        before = self.for_layer(name)
        mine = LayerRecipe(
            activations=before.activations if isinstance(activations, _Inherited) else activations,
            weights=before.weights if isinstance(weights, _Inherited) else weights,
        )
        return replace(self, layers={**self.layers, name: mine})
