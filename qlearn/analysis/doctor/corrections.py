"""What may have gone wrong with the preparation of pictures, each with what undoes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from qlearn.analysis.doctor.sample import Sample
    from qlearn.graph.preprocess import Preprocess

    Rule = tuple[tuple[float, ...], tuple[float, ...]]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_NONE, _HALF, _QUARTER = (((mean,) * 3, (std,) * 3) for mean, std in ((0.0, 1.0), (0.5, 0.5), (0.5, 0.25)))

USUAL_RULES: tuple[Rule, ...] = (_NONE, _HALF, _QUARTER, IMAGENET)
"""Mean and std that trainings use most, on the scale 0 to 1."""


@dataclass(frozen=True, eq=False)
class Correction:
    """One thing that may have gone wrong.

    Parameters
    ----------
    cause : str
        Goes on from "It looks as if".
    mend : callable
        From the pictures at hand to what the network expects.
    rule : tuple of mean and std, or None
        The rule of the training, where that is what the correction supposes.
    """

    cause: str
    mend: Callable[[Tensor], Tensor]
    rule: Rule | None = None


def mistakes(rule: Preprocess | None, channels: int) -> tuple[Correction, ...]:
    """Usual mistakes with pictures that should have been prepared by a rule; 0.5 and 0.5 where it is not known."""
    mean, std, net_mean, net_std = columns(channels, *(_HALF if rule is None else (rule.mean, rule.std)), *IMAGENET)

    def right(pixels: Tensor) -> Tensor:
        return (pixels - mean) / std

    mends: dict[str, Callable[[Tensor], Tensor]] = {
        "fed numbers from 0 to 1 without normalising them": right,
        "fed numbers from 0 to 255": lambda x: right(x / 255),
        "did not divide by 255 before normalising": lambda x: right((x * std + mean) / 255),
        "divided by 255 twice": lambda x: right((x * std + mean) * 255),
        "fed numbers from -1 to 1": lambda x: right((x + 1) / 2),
        "normalised with the mean and std of ImageNet": lambda x: right(x * net_std + net_mean),
        "normalised twice": lambda x: x * std + mean,
        "did not subtract the mean": lambda x: x - mean / std,
        "did not divide by the std": lambda x: x / std,
    }
    return tuple(Correction(f"someone {cause}", mend) for cause, mend in mends.items())


def other_rules(pictures: Sample) -> tuple[Correction, ...]:
    """Return the usual rules that the training may have used instead of the one that prepared these pictures.

    That rule is what the data set says; where it says nothing, numbers from 0 to 1 are taken as not normalised.
    Of other numbers nobody knows how they were made: there is nothing to try.
    """
    x, theirs = pictures.x, pictures.preprocess
    if theirs is None and not 0 <= float(x.min()) <= float(x.max()) <= 1:
        return ()
    known = _NONE if theirs is None else (theirs.mean, theirs.std)
    return tuple(
        Correction(f"the network was trained on pictures {normalised(rule)}", _from_to(known, rule, x.shape[1]), rule)
        for rule in USUAL_RULES
        if rule != known
    )


def _from_to(known: Rule, rule: Rule, channels: int) -> Callable[[Tensor], Tensor]:
    mean, std, other_mean, other_std = columns(channels, *known, *rule)
    return lambda x: (x * std + mean - other_mean) / other_std


def normalised(rule: Rule) -> str:
    """Return a rule in words and as a user types it.

    Examples
    --------
    >>> normalised(((0.5,) * 3, (0.25,) * 3)), normalised(((0.0,) * 3, (1.0,) * 3))
    ('normalised with mean=0.5,std=0.25', 'from 0 to 1, not normalised further (mean=0,std=1)')
    """
    return f"from 0 to 1, not normalised further ({typed(rule)})" if rule == _NONE else f"normalised with {typed(rule)}"


def typed(rule: Rule) -> str:
    """Return a rule as the command line takes it.

    Examples
    --------
    >>> typed(IMAGENET)
    'mean=0.485:0.456:0.406,std=0.229:0.224:0.225'
    """
    return f"mean={numbers(rule[0])},std={numbers(rule[1])}"


def remedy_of(rule: Rule, pictures: Sample) -> str:
    """Say how to prepare the pictures by a rule, on the command line and in Python."""
    theirs = pictures.preprocess
    size = tuple(pictures.x.shape[-2:]) if theirs is None else theirs.size
    resize = None if theirs is None else theirs.resize
    side = f"{size[0]}" if size[0] == size[1] else f"{size[0]}:{size[1]}"
    option = f"size={side},{typed(rule)}" + ("" if resize is None else f",resize={resize}")
    arguments = f"size={size}, mean={rule[0]}, std={rule[1]}" + ("" if resize is None else f", resize={resize}")
    return f"prepare the pictures so: --preprocess {option}, or ql.Preprocess({arguments})"


def columns(channels: int, *values: tuple[float, ...]) -> tuple[Tensor, ...]:
    """One number for each colour; their mean where the input has not three channels."""
    colours = [torch.tensor(value).reshape(-1, 1, 1) for value in values]
    return tuple(one if channels == len(one) else one.mean() for one in colours)


def numbers(values: tuple[float, ...]) -> str:
    """Return three numbers as text, or one if they are the same.

    Examples
    --------
    >>> numbers((0.5, 0.5, 0.5)), numbers((0.5, 0.4, 0.5))
    ('0.5', '0.5:0.4:0.5')
    """
    texts = [f"{value:.3g}" for value in values]
    return texts[0] if len(set(values)) == 1 else ":".join(texts)
