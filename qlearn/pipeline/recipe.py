"""A recipe: which scheme, how many bits, which calibrator, for weights and for activations."""

from __future__ import annotations

from dataclasses import dataclass, field
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
class Recipe:
    """The choices for a whole network. The default is what LiteRT does (paper §3.5), but for `mse`.

    Parameters
    ----------
    activations : TensorRecipe or None
        None leaves activations in float. The default calibrator, `mse`, was chosen by ``qlearn compare`` (ADR 0011).
    weights : TensorRecipe or None
        None leaves weights in float: the column "Activation Only" of the paper's Table 1.

    Raises
    ------
    RecipeError
        If activations are per channel: then every input channel of a convolution would have a scale of its own,
        and its integer products could not be added up.

    References
    ----------
    Paper §3.1, §3.5, Table 1.

    Examples
    --------
    >>> Recipe().weights
    TensorRecipe(scheme='symmetric_restricted', bits=8, granularity='per_channel', calibrator='minmax', \
calibrator_params={}, signed=True)
    """

    activations: TensorRecipe | None = field(default_factory=lambda: TensorRecipe(scheme="affine", calibrator="mse"))
    weights: TensorRecipe | None = field(
        default_factory=lambda: TensorRecipe(scheme="symmetric_restricted", granularity="per_channel")
    )

    def __post_init__(self) -> None:
        if self.activations is not None and self.activations.granularity != "per_tensor":
            raise RecipeError(
                "activations are quantized per tensor: a scale per input channel could not leave the integer sum of a "
                "convolution. To study them per channel, use qlearn.calibrator(name, channel_axis=1)"
            )
