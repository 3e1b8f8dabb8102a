"""How far healthy networks stay from the limits of the doctor: the evidence for `qlearn.analysis.doctor.faults`.

    python tools/doctor_margins.py [tiny_resnet tiny_mobilenet families resnet20 mobilenet_v1_0.25] [--output FILE]

Prints or writes the worst value of every sign over all networks, calibrators and granularities, beside its limit.
For the share of the first layer's channels that are off, also the smallest one under a usual mistake with the pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from provenance import head, typed, write

import qlearn as ql
from qlearn.analysis.doctor import faults
from qlearn.analysis.doctor.answers import classes_in
from qlearn.analysis.doctor.case import Case, open_case
from qlearn.analysis.doctor.corrections import IMAGENET, columns
from qlearn.analysis.doctor.inputs import _channel_distances, _off, first_layer
from qlearn.analysis.doctor.remedies import effect_of
from qlearn.analysis.doctor.weights import _alive, _sizes
from qlearn.errors import FallbackWarning
from qlearn.graph.dead import dead_inputs
from qlearn.integer.layers import SHARING_OPS
from qlearn.zoo.models.families import FAMILIES, family

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORKS = ("tiny_resnet", "tiny_mobilenet", "families", "resnet20", "mobilenet_v1_0.25")
CALIBRATORS = ("mse", "minmax", "percentile")
PER_TENSOR_IS_HEALTHY = ("tiny_resnet", "tiny_mobilenet", "resnet20", *FAMILIES)


def networks(names: list[str]) -> Iterator[tuple[str, Any, Any, Any]]:
    for name in names:
        if name == "families":
            for one in FAMILIES:
                generator = torch.Generator().manual_seed(1)
                sets = [[torch.randn(32, 3, 32, 32, generator=generator)] for _ in range(2)]
                yield one, ql.trace(family(one), torch.zeros(1, 3, 32, 32), name=one), *sets
        else:
            net, data = ql.load(name)
            yield name, net, data.calibration.subset(64), data.evaluation


def signs(case: Case) -> Iterator[tuple[str, float]]:
    """Every sign with its size: larger is worse, but for decibels and agreement, which are negated."""
    assert case.quantized is not None
    for layer in case.quantized.layers:
        facts = case.facts.sites[layer.node.name]
        if layer.output is not None and layer.node.op not in SHARING_OPS:
            limits = layer.output.range
            if facts.span:
                yield "TOO_WIDE", float(limits.hi - limits.lo) / facts.span
            yield "TOO_NARROW_DB", -facts.clip_db
    yield from _signs_of_pictures(case)
    yield from _signs_of_weights(case)
    effect, _ = effect_of(case)
    if effect is not None:
        yield "COLLAPSE_AGREEMENT", -effect.agreement
        yield "COLLAPSE_DB", -effect.sqnr_db


def _signs_of_pictures(case: Case) -> Iterator[tuple[str, float]]:
    layer = first_layer(case.folded)
    for sample in (case.pictures, case.calibrated_on):
        if layer is not None and sample is not None:
            mean, std = _off(*layer.per_picture(sample.x))
            yield "INPUT_MEAN", mean
            yield "INPUT_STD", abs(std)
    codes, limits = case.facts.codes, case.facts.limits
    if codes is not None and limits is not None:
        yield "SATURATED", float(((codes >= limits[1]).sum(1) > 1).double().mean())
    if case.calibrated_on is not None and case.folded is not None and case.facts.float_logits is not None:
        answers = torch.cat([case.folded(x).flatten(1).argmax(1) for x in case.calibrated_on.batches()])
        yield "FEW_CLASSES", classes_in(case.facts.float_logits.argmax(1)) / classes_in(answers)


def _signs_of_weights(case: Case) -> Iterator[tuple[str, float]]:
    assert case.quantized is not None
    outputs = {layer.node.name: layer.output for layer in case.quantized.layers}
    dead = dead_inputs(case.quantized.model)
    for layer in case.quantized.layers:
        if layer.weight is None or layer.weight_qparams is None:
            continue
        sizes, alive = _sizes(layer), _alive(layer, [one for one in dead if one.layer == layer.node.name])
        if layer.weight_qparams.axis is None:
            largest = np.where(alive, sizes, 0).max(axis=1)
            largest = largest[largest > 0]
            yield "FEW_STEP_CHANNELS", float((largest / largest.max() * 127 < faults.FEW_STEPS).mean())
        x = outputs[layer.node.inputs[0]]
        if layer.bias is not None and x is not None and layer.output is not None:
            step = (np.float32(x.scale) * layer.weight_qparams.scale).astype(np.float64)
            off = np.abs(layer.bias * step - layer.node.params["bias"].double().numpy())
            yield "COARSE_BIAS", float(off.max() / layer.output.scale)


def channel_shares(net: ql.FloatModel, pictures: torch.Tensor) -> Iterator[tuple[str, float]]:
    """Share of the first layer's channels that are off: with these pictures, and with every mistake that is seen."""
    layer = first_layer(ql.fold_batch_norm(net))
    if layer is None:
        return
    for name, x in {"healthy": pictures, **mistaken(net, pictures)}.items():
        means, squares = layer.per_picture(x)
        mean, std = _off(means, squares)
        if name == "healthy" or mean > faults.INPUT_MEAN or abs(std) > faults.INPUT_STD:
            yield name, float((_channel_distances(means, squares) > faults.CHANNEL_OFF).double().mean())


def mistaken(net: ql.FloatModel, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the same pictures as somebody would prepare them who forgets one step or does it twice."""
    rule = ((0.5,) * 3, (0.5,) * 3) if net.preprocess is None else (net.preprocess.mean, net.preprocess.std)
    mean, std, net_mean, net_std = columns(x.shape[1], *rule, *IMAGENET)
    share = x * std + mean  # of white: 0 to 1
    return {
        "0 to 1": share,
        "0 to 255": share * 255,
        "not divided by 255": (share * 255 - mean) / std,
        "divided by 255 twice": (share / 255 - mean) / std,
        "-1 to 1": share * 2 - 1,
        "normalised as ImageNet": (share - net_mean) / net_std,
        "normalised twice": (x - mean) / std,
        "mean not subtracted": share / std,
        "not divided by std": share - mean,
    }


def _extremes(shares: list[tuple[float, str, str]]) -> dict[str, Any]:
    most = max(one for one in shares if one[1] == "healthy")
    fewest = sorted(one for one in shares if one[1] != "healthy")[:5]
    return {
        "most of the healthy": {"share": most[0], "where": most[2]},
        "fewest under a mistake": [{"share": share, "where": f"{name}, {mistake}"} for share, mistake, name in fewest],
        "mistakes seen": sum(one[1] != "healthy" for one in shares),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"which of {', '.join(NETWORKS)} (all)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there instead of printing")
    options = parser.parse_args()
    warnings.simplefilter("ignore", FallbackWarning)
    torch.set_num_threads(1)
    worst: dict[str, tuple[float, str]] = {}
    shares: list[tuple[float, str, str]] = []
    for name, net, calibration, evaluation in networks(options.networks or list(NETWORKS)):
        pictures = torch.cat([one[0] if isinstance(one, tuple) else one for one in calibration])
        shares += [(share, mistake, name) for mistake, share in channel_shares(net, pictures)]
        for calibrator in CALIBRATORS:
            for granularity in ("per_channel", "per_tensor")[: 1 + (name in PER_TENSOR_IS_HEALTHY)]:
                recipe = ql.Recipe(
                    activations=ql.TensorRecipe(scheme="affine", calibrator=calibrator),
                    weights=ql.TensorRecipe(scheme="symmetric_restricted", granularity=granularity),
                )
                more: dict[str, Any] = {"table": None, "reference": None, "outputs": None, "images": 64}
                case = open_case(net, evaluation, recipe=recipe, calibration=calibration, **more)
                for sign, value in signs(case):
                    if value > worst.get(sign, (-np.inf, ""))[0]:
                        worst[sign] = (value, f"{name}, {calibrator}, {granularity}")
        print(name, file=sys.stderr)
    rows = {
        sign: {"limit": getattr(faults, sign), "worst healthy": abs(value) if value else 0.0, "where": where}
        for sign, (value, where) in worst.items()
    }
    channels = {"limit": faults.MOST_CHANNELS, "channel_off": faults.CHANNEL_OFF, **_extremes(shares)}
    text = json.dumps({**head(typed("doctor_margins.py")), "signs": rows, "share_of_channels": channels}, indent=2)
    if options.output is None:
        print(text)
    else:
        write(options.output, text + "\n")


if __name__ == "__main__":
    main()
