"""One choice of bits, and all of them together as a recipe (paper §7.3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from qlearn.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qlearn.pipeline.recipe import Recipe, TensorRecipe

TENSORS = ("weights", "activations")

Slot = tuple[str, str]
"""A tensor whose bits can be chosen: (layer, ``"weights"`` or ``"activations"``)."""


class Choice(NamedTuple):
    """So many bits for one tensor: the weights of a layer, or its output.

    Parameters
    ----------
    layer : str
    tensor : str
        ``"weights"`` or ``"activations"``.
    bits : int

    Examples
    --------
    >>> Choice("conv1", "weights", 4).slot
    ('conv1', 'weights')
    """

    layer: str
    tensor: str
    bits: int

    @property
    def slot(self) -> Slot:
        """The tensor that the choice is about."""
        return self.layer, self.tensor


@dataclass(frozen=True)
class Allocation:
    """One choice for every tensor: what a search returns.

    Parameters
    ----------
    choices : tuple of Choice
    cost : float
        Sum of the costs of the choices.
    usage : int
        What they use of the resource: bytes or bit-operations.
    """

    choices: tuple[Choice, ...]
    cost: float
    usage: int

    def bits(self, tensor: str = "weights") -> dict[str, int]:
        """Return the bits of every layer's weights, or of its output."""
        return {choice.layer: choice.bits for choice in self.choices if choice.tensor == tensor}

    def recipe(self, base: Recipe) -> Recipe:
        """Return the recipe with these bits; all else stays as `base` has it. See `with_choices`."""
        return with_choices(base, self.choices)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        bits = {tensor: found for tensor in TENSORS if (found := self.bits(tensor))}
        return {"cost": self.cost, "usage": self.usage, "bits": bits}


def with_choices(recipe: Recipe, choices: Iterable[Choice]) -> Recipe:
    """Return a recipe in which the tensors named have the bits chosen.

    Activations of more than 8 bits become symmetric: the 16x8 format of LiteRT (16-bit activations with zero point 0,
    8-bit weights). A zero point would cost one more bit in every product.

    Raises
    ------
    RecipeError
        If the recipe leaves such a tensor in float, or a choice is about neither weights nor activations.

    Examples
    --------
    >>> from qlearn.pipeline.recipe import Recipe
    >>> mixed = with_choices(Recipe(), [Choice("conv1", "weights", 4), Choice("conv1", "activations", 16)])
    >>> mixed.for_layer("conv1").weights.bits, mixed.for_layer("conv1").activations.scheme
    (4, 'symmetric')
    """
    for choice in choices:
        if choice.tensor not in TENSORS:
            raise RecipeError(f"a choice is about {' or '.join(TENSORS)}, got {choice.tensor!r}")
        mine: TensorRecipe | None = getattr(recipe.for_layer(choice.layer), choice.tensor)
        if mine is None:
            raise RecipeError(
                f"the recipe leaves the {choice.tensor} of {choice.layer!r} in float: there are no bits to choose"
            )
        wide = choice.tensor == "activations" and choice.bits > 8
        changed = replace(mine, bits=choice.bits, scheme="symmetric" if wide else mine.scheme)
        recipe = recipe.with_layer(choice.layer, **{choice.tensor: changed})
    return recipe


def options_of(costs: Iterable[Choice]) -> dict[Slot, tuple[Choice, ...]]:
    """Group choices by tensor, fewest bits first; the tensors stay in their order."""
    options: dict[Slot, list[Choice]] = {}
    for choice in costs:
        options.setdefault(choice.slot, []).append(choice)
    return {slot: tuple(sorted(found, key=lambda choice: choice.bits)) for slot, found in options.items()}
