"""Are these the pictures that the network was trained for? Whole numbers, and statistics of the first batch norm."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qlearn.analysis.doctor import faults
from qlearn.analysis.doctor.corrections import mistakes, normalised, numbers, other_rules, remedy_of
from qlearn.analysis.doctor.finding import Finding, Remedy
from qlearn.graph.channels import MOVES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qlearn.analysis.doctor.case import Case
    from qlearn.analysis.doctor.corrections import Correction
    from qlearn.analysis.doctor.sample import Sample
    from qlearn.graph.model import FloatModel, Node

RESAMPLES = 200


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
            layer = _statistics(model, node)
            return layer if bool(layer.alive.any()) else None
        if node.op in MOVES:
            reached.add(node.name)
    return None


def _statistics(model: FloatModel, node: Node) -> FirstLayer:
    mean, std = (value.double() for value in node.attrs["bn"])
    return FirstLayer(_up_to(model, node), mean, std, std > 1e-3 * std.max())


def _up_to(model: FloatModel, node: Node) -> Callable[[Tensor], Tensor]:
    bare = [replace(one, attrs={**one.attrs, "clamp": None}) if one is node else one for one in model.nodes]
    return model.with_nodes(bare, output=node.name)


def _normalisation(case: Case, site: str, pictures: Sample) -> Iterator[Finding]:
    stored, theirs = case.preprocess, pictures.preprocess
    what = "The evaluation pictures" if site == "pictures" else "The calibration pictures"
    if stored is not None and theirs is not None and (stored.mean, stored.std) != (theirs.mean, theirs.std):
        text = (
            f"{what} are normalised with mean {numbers(theirs.mean)} and std {numbers(theirs.std)}, "
            f"but the network was stored with mean {numbers(stored.mean)} and std {numbers(stored.std)}"
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
        yield _mismatch(case, site, layer, pictures, (off, wide))
    elif pictures.x.ndim == 4 and pictures.x.shape[1] == 3:
        yield from _colours(site, layer, pictures.x, means)


def _off(means: Tensor, squares: Tensor) -> tuple[float, float]:
    """How far mean (squared, in stds) and spread (median logarithm) are from what the batch norm expects."""
    mean = means.mean(dim=0)
    variance = (squares.mean(dim=0) - mean**2).clamp(min=1e-30)
    return float((mean**2).mean()), float(0.5 * variance.log().median())


def _channel_distances(means: Tensor, squares: Tensor) -> Tensor:
    """Kullback-Leibler divergence of normal distributions, channel by channel, in nats."""
    mean = means.mean(dim=0)
    variance = (squares.mean(dim=0) - mean**2).clamp(min=1e-30)
    return 0.5 * (variance + mean**2 - 1 - variance.log())


def _distance(means: Tensor, squares: Tensor) -> float:
    """Return the mean over the channels."""
    return float(_channel_distances(means, squares).mean())


def _mismatch(case: Case, site: str, layer: FirstLayer, pictures: Sample, seen: tuple[float, float]) -> Finding:
    """Pictures in another preparation, or a first layer that was changed: say which only where one is excluded."""
    what = "The evaluation pictures" if site == "pictures" else "The calibration pictures"
    off, wide = seen
    text = (
        f"{what} are not what the first layer's batch norm saw in training: its spread is "
        f"{math.exp(wide):.2g} times the expected one, its means are {off**0.5:.2g} standard deviations off"
    )
    means, squares = layer.per_picture(pictures.x)
    apart = _channel_distances(means, squares) > faults.CHANNEL_OFF
    evidence = {"mean_off_squared": off, "log_std_ratio": wide, "divergence": _distance(means, squares),
                "share_of_channels": float(apart.double().mean())}  # fmt: skip
    channels: tuple[int, ...] = ()
    remedy = "use the preprocessing, and the kind of pictures, of the training"
    best = _best_correction(case, layer, pictures, evidence["divergence"])
    if evidence["share_of_channels"] < faults.MOST_CHANNELS:
        channels = tuple(layer.alive.nonzero().flatten()[apart].tolist())
        text += f". Only {len(channels)} of {len(apart)} channels are off, and wrong pictures move more: rather, these "
        text, sure = text + "filters or their statistics were changed after training", 0.5
    elif best is None:
        text += ". No usual mistake explains it: other pictures, statistics that were never measured or are stale, or "
        text, sure = text + "weights that were changed after their batch norm was folded", 0.7
    else:
        evidence["divergence_if_corrected"] = best.distance
        evidence["deeper_divergence"], evidence["deeper_if_corrected"] = _deeper(case, pictures.x, best.correction)
        reason, sure = _explained(case, pictures, best, evidence)
        text += f". It looks as if {best.correction.cause}{reason}"
        remedy = remedy if best.correction.rule is None else remedy_of(best.correction.rule, pictures)
    return Finding("wrong_normalisation", site, text, sure, evidence, channels=channels, remedies=(Remedy(remedy),))


@dataclass(frozen=True, eq=False)
class Best:
    """The correction that brings the pictures closest, how close, and another rule that does nearly as well."""

    correction: Correction
    distance: float
    rival: Correction | None = None


def _best_correction(case: Case, layer: FirstLayer, pictures: Sample, here: float) -> Best | None:
    """The correction that explains the pictures; None if none does.

    Where the network has no rule of its own, the one at hand is a guess: other rules come before mistakes with it.
    """
    x, own = pictures.x, case.preprocess
    kinds = [mistakes(own or pictures.preprocess, x.shape[1])]
    if own is None:
        kinds.insert(0, other_rules(pictures))
    for corrections in kinds:
        distances = [_distance(*layer.per_picture(one.mend(x))) for one in corrections]
        places = sorted(range(len(corrections)), key=distances.__getitem__)
        if not places or distances[places[0]] * faults.EXPLAINED >= here:
            continue
        first, second = places[:2]
        close = corrections[first].rule is not None and distances[second] <= faults.RIVALS * distances[first]
        return Best(corrections[first], distances[first], corrections[second] if close else None)
    return None


def _explained(case: Case, pictures: Sample, best: Best, evidence: dict[str, float]) -> tuple[str, float]:
    """What speaks against a correction that explains the first layer, and how sure it is."""
    if evidence["deeper_if_corrected"] * 2 > evidence["deeper_divergence"]:
        return "; but no later batch norm confirms it: the first one's statistics may be stale", 0.6
    if best.correction.rule is None and pictures.preprocess is not None:
        said = "the data set says" if case.preprocess is None else "the network was stored"
        return f"; but they are normalised as {said}: its statistics may be stale", 0.6
    if best.rival is not None and best.rival.rule is not None:
        return f"; {normalised(best.rival.rule)} fits nearly as well", 0.7
    return " (a first layer with statistics stale by just as much would look the same)", 0.9


def _deeper(case: Case, x: Tensor, correction: Correction) -> tuple[float, float]:
    """Median distance in the later layers with batch norms, before and after a correction: a second opinion.

    Statistics of the first layer alone fit any pictures, if they are stale in the right way.
    """
    assert case.folded is not None
    mended = correction.mend(x)
    later = [node for node in case.folded.nodes if node.op == "conv2d" and "bn" in node.attrs][1:]
    chosen = later[:: max(1, len(later) // 4)][:4]
    if not chosen:
        return 1.0, 1.0
    layers = [_statistics(case.folded, node) for node in chosen]
    here, there = (
        torch.tensor([float(_channel_distances(*one.per_picture(part)).median()) for one in layers])
        for part in (x, mended)
    )
    return float(here.mean()), float(there.mean())


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
