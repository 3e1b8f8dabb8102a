"""Are these the pictures that the network was trained for? Whole numbers, and statistics of the first batch norm."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qlearn.analysis.doctor import faults
from qlearn.analysis.doctor.finding import Finding, Remedy
from qlearn.graph.channels import MOVES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qlearn.analysis.doctor.case import Case
    from qlearn.analysis.doctor.sample import Sample
    from qlearn.graph.model import FloatModel, Node
    from qlearn.graph.preprocess import Preprocess

RESAMPLES = 200
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def check_inputs(case: Case) -> Iterator[Finding]:
    """Codes, pixels, normalisation and colours, of the evaluation and of the calibration pictures."""
    for site, pictures in (("pictures", case.pictures), ("calibration", case.calibrated_on)):
        if pictures is None:
            continue
        whole = _whole_numbers(site, pictures.x)
        yield from whole
        if not whole:
            yield from _normalisation(case, site, pictures)


def _whole_numbers(site: str, x: Tensor) -> list[Finding]:
    low, high = float(x.min()), float(x.max())
    if high - low < faults.PIXEL_SPAN or bool((x != x.round()).any()):
        return []
    evidence = {"smallest": low, "largest": high}
    what = "The evaluation pictures" if site == "pictures" else "The calibration pictures"
    if low < 0 or high > 255:
        text = (
            f"{what} hold whole numbers from {low:.0f} to {high:.0f}: codes were fed where real numbers were expected"
        )
        remedies = (Remedy("dequantize them first, S (q - Z); codes go to IntegerModel.run_codes()"),)
        return [Finding("codes_as_input", site, text, 0.98, evidence, remedies=remedies)]
    text = f"{what} hold whole numbers from {low:.0f} to {high:.0f}: raw pixels, not normalised"
    return [Finding("raw_pixels", site, text, 0.98, evidence, remedies=(Remedy("normalise them as in training: "
            "model.preprocess(pictures)"),))]  # fmt: skip


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """The first layer whose batch norm remembers what it saw in training.

    Parameters
    ----------
    run : callable
        From pictures to the layer's sum, before any activation.
    mean, std : Tensor, shape (C,), float64
        What the batch norm expects of it; channels that hardly move are left out of `alive`.
    alive : Tensor, shape (C,), bool
    """

    run: Callable[[Tensor], Tensor]
    mean: Tensor
    std: Tensor
    alive: Tensor

    def per_picture(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and mean square of each channel, picture by picture, in expected stds off the expected mean: (N, C)."""
        with torch.no_grad():
            y = torch.cat([self.run(part) for part in torch.split(x, 32)]).double()
        z = (y.flatten(2) - self.mean[:, None]) / self.std.clamp(min=1e-12)[:, None]
        return z.mean(dim=2)[:, self.alive], z.square().mean(dim=2)[:, self.alive]


def first_layer(model: FloatModel | None) -> FirstLayer | None:
    """Return the convolution that reads the picture, if a batch norm was folded into it; else None.

    Between the picture and the layer there may be padding and the like, but nothing that computes.
    """
    if model is None:
        return None
    reached = {model.nodes[0].name}
    for node in model.nodes[1:]:
        if not set(node.inputs) <= reached:
            continue
        if node.op == "conv2d" and "bn" in node.attrs:
            mean, std = (value.double() for value in node.attrs["bn"])
            alive = std > 1e-3 * std.max()
            return FirstLayer(_up_to(model, node), mean, std, alive) if bool(alive.any()) else None
        if node.op in MOVES:
            reached.add(node.name)
    return None


def _up_to(model: FloatModel, node: Node) -> Callable[[Tensor], Tensor]:
    bare = [replace(one, attrs={**one.attrs, "clamp": None}) if one is node else one for one in model.nodes]
    return model.with_nodes(bare, output=node.name)


def _normalisation(case: Case, site: str, pictures: Sample) -> Iterator[Finding]:
    stored, theirs = case.preprocess, pictures.preprocess
    what = "The evaluation pictures" if site == "pictures" else "The calibration pictures"
    if stored is not None and theirs is not None and (stored.mean, stored.std) != (theirs.mean, theirs.std):
        text = (
            f"{what} are normalised with mean {_numbers(theirs.mean)} and std {_numbers(theirs.std)}, "
            f"but the network was stored with mean {_numbers(stored.mean)} and std {_numbers(stored.std)}"
        )
        evidence = {
            "mean": theirs.mean[0],
            "std": theirs.std[0],
            "stored_mean": stored.mean[0],
            "stored_std": stored.std[0],
        }
        yield Finding("wrong_normalisation", site, text, 1.0, evidence, remedies=(Remedy("use model.preprocess"),))
        return
    layer = first_layer(case.folded)
    if layer is None or len(pictures.x) < faults.FEWEST_FOR_STATISTICS:
        return
    means, squares = layer.per_picture(pictures.x)
    if float(squares.max()) == 0:
        return
    off, wide = _off(means, squares)
    if off > faults.INPUT_MEAN or abs(wide) > faults.INPUT_STD:
        yield _mismatch(case, site, layer, pictures.x, (off, wide))
    elif pictures.x.ndim == 4 and pictures.x.shape[1] == 3:
        yield from _colours(site, layer, pictures.x, means)


def _off(means: Tensor, squares: Tensor) -> tuple[float, float]:
    """How far mean (squared, in stds) and spread (median logarithm) are from what the batch norm expects."""
    mean = means.mean(dim=0)
    variance = (squares.mean(dim=0) - mean**2).clamp(min=1e-30)
    return float((mean**2).mean()), float(0.5 * variance.log().median())


def _distance(means: Tensor, squares: Tensor) -> float:
    """Kullback-Leibler divergence of normal distributions, mean over the channels, in nats."""
    mean = means.mean(dim=0)
    variance = (squares.mean(dim=0) - mean**2).clamp(min=1e-30)
    return float(0.5 * (variance + mean**2 - 1 - variance.log()).mean())


def _mismatch(case: Case, site: str, layer: FirstLayer, x: Tensor, seen: tuple[float, float]) -> Finding:
    what = "The evaluation pictures" if site == "pictures" else "The calibration pictures"
    here = _distance(*layer.per_picture(x))
    corrections = _corrections(case.preprocess, x.shape[1])
    causes = {cause: _distance(*layer.per_picture(mend(x))) for cause, mend in corrections.items()}
    cause = min(causes, key=lambda name: causes[name], default=None)
    off, wide = seen
    text = (
        f"{what} are not what the first layer's batch norm saw in training: its spread is "
        f"{math.exp(wide):.2g} times the expected one, its means are {off**0.5:.2g} standard deviations off"
    )
    evidence = {"mean_off_squared": off, "log_std_ratio": wide, "divergence": here}
    if cause is not None and causes[cause] * faults.EXPLAINED < here:
        evidence["divergence_if_corrected"] = causes[cause]
        text, sure = f"{text}. It looks as if someone {cause}", 0.97
    else:
        text = f"{text}. No usual mistake explains it: these may be other pictures, or weights that were changed"
        text, sure = f"{text} by hand after their batch norm was folded", 0.85
    remedy = Remedy("use the preprocessing, and the kind of pictures, of the training")
    return Finding("wrong_normalisation", site, text, sure, evidence, remedies=(remedy,))


def _corrections(stored: Preprocess | None, channels: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """Usual mistakes, each with what undoes it."""
    rule = ((0.5,) * 3, (0.5,) * 3) if stored is None else (stored.mean, stored.std)
    mean, std, net_mean, net_std = _columns(channels, *rule, *_IMAGENET)

    def right(pixels: Tensor) -> Tensor:
        return (pixels - mean) / std

    return {
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


def _columns(channels: int, *values: tuple[float, ...]) -> tuple[Tensor, ...]:
    """One number for each colour; their mean where the input has not three channels."""
    columns = [torch.tensor(value).reshape(-1, 1, 1) for value in values]
    return tuple(one if channels == len(one) else one.mean() for one in columns)


def colours_told_apart(layer: FirstLayer | None, x: Tensor) -> bool:
    """Whether these pictures with red and blue swapped would be noticed: in some networks the statistics are alike."""
    if layer is None or x.ndim != 4 or x.shape[1] != 3 or len(x) < faults.FEWEST_FOR_STATISTICS:
        return False
    here, there = (float(layer.per_picture(one)[0].mean(dim=0).square().mean()) for one in (x, x.flip(1)))
    return abs(there - here) >= faults.SWAP_LEAST


def _colours(site: str, layer: FirstLayer, x: Tensor, means: Tensor) -> Iterator[Finding]:
    """Compare all orders of the colours by the channel means: swapped colours move those and little else."""
    orders = [order for order in itertools.permutations(range(3)) if order != (0, 1, 2)]
    others = {order: layer.per_picture(x[:, list(order)])[0] for order in orders}
    order = min(orders, key=lambda one: float(others[one].mean(dim=0).square().mean()))
    here, there = (float(one.mean(dim=0).square().mean()) for one in (means, others[order]))
    if here < faults.SWAP_RATIO * there or here - there < faults.SWAP_LEAST:
        return
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(len(x), (RESAMPLES, len(x)), generator=generator)
    worse, better = (one[draws].mean(dim=1).square().mean(dim=1) for one in (means, others[order]))
    share = float((worse > better).double().mean())
    if share < faults.SWAP_SURE:
        return
    what = "evaluation" if site == "pictures" else "calibration"
    name = "".join("RGB"[place] for place in order)
    text = (
        f"The colours of the {what} pictures are swapped: read as {name}, their means fit the first layer's batch norm "
        f"{here / max(there, 1e-12):.3g} times better (in {share:.0%} of {RESAMPLES} resamples of {len(x)} pictures)"
    )
    evidence = {"distance": here, "distance_if_swapped": there, "resamples_that_agree": share}
    remedy = Remedy(f"give the channels in the order x[:, {list(order)}]")
    yield Finding("swapped_colours", site, text, min(share, 0.99), evidence, channels=order, remedies=(remedy,))


def _numbers(values: tuple[float, ...]) -> str:
    return ":".join(f"{value:.3g}" for value in dict.fromkeys(values))
