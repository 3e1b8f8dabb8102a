"""Measure what the calibration pictures decide: ``python tools/calibration_data.py NETWORK`` adds to a result file.

Random, selected, one-sided, no and invented pictures; then weight ranges by three calibrators at 8, 4 and 3 bits.
The file has one entry per network; a run replaces that of its network.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from provenance import head, typed, write

import qlearn as ql
from qlearn.pipeline.select import choose_pictures, picture_statistics
from qlearn.zoo.data import Dataset, Files

if TYPE_CHECKING:
    from qlearn.analysis.calibration_data import CalibrationSets

RESULTS = Path(__file__).parents[1] / "notebooks" / "results" / "calibration_data.json"
DOGS = range(151, 269)
"""Classes of ImageNet that are breeds of dogs: one kind of picture, where a class has a single photo in the pool."""


def recipe(bits: int, calibrator: str) -> ql.Recipe:
    """Activations so; weights 8 bits per channel, min-max."""
    return ql.Recipe(activations=ql.TensorRecipe(scheme="affine", bits=bits, calibrator=calibrator))


def opened(options: argparse.Namespace) -> tuple[ql.FloatModel, Dataset, list[Any], Dataset]:
    """The network with separate batch norms, the pool, evaluation batches in memory, and pictures of one kind."""
    network, data = ql.load(options.network)
    if data.selection is None:
        # the first 200 evaluation pictures served to choose settings, the second thousand is the pool
        evaluation = data.evaluation.subset(range(200, 200 + options.pictures))
        pool = data.evaluation.subset(range(1000, 1000 + options.pool))
        kind = pool.subset(np.flatnonzero(pool.labels == 1))
    else:
        files = Files((*data.calibration.source.paths, *data.selection.source.paths), network.preprocess)
        labels = np.concatenate([data.calibration.labels, data.selection.labels])
        whole = Dataset("imagenet sample", files, network.preprocess, labels)
        pool, kind = whole.subset(options.pool), whole.subset(np.flatnonzero(np.isin(labels, DOGS)))
        evaluation = data.evaluation.subset(options.pictures)
    return network, pool, list(evaluation), kind.subset(min(32, len(kind)))


def sets_of(network: ql.FloatModel, pool: Dataset, kind: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Every kind of calibration set, and how many of each."""
    folded = ql.fold_batch_norm(network)
    sets: dict[str, Any] = {"all of the pool": [pool]}
    sizes = [size for size in (8, 32, 200) if size < len(pool)]
    for size in sizes:
        draws = options.draws if size <= 32 else max(1, options.draws // 2)
        sets[f"random {size}"] = [pool.subset(size, seed=seed) for seed in range(draws)]
    statistics = picture_statistics(folded, pool)
    for size in sizes[:2]:
        for by, seeds in (("ranges", 1), ("clusters", options.clusterings), ("match", 1)):
            chosen = [choose_pictures(statistics, size, by=by, seed=seed) for seed in range(seeds)]
            sets[f"selected by {by} {size}"] = [pool.subset(one) for one in chosen]
    sets[f"one kind, {len(kind)}"] = [kind]
    sets["noise, 32"] = [noise(network, seed) for seed in range(options.invented)]
    distilled = [
        ql.distill_pictures(network, options.distilled, iterations=options.iterations, batch_size=16, seed=seed).split(
            16
        )
        for seed in range(options.invented)
    ]
    sets[f"distilled {options.distilled}"] = distilled
    sets["batch norm statistics"] = [blind]
    sets["batch norm statistics, output by distilled"] = [
        lambda model, recipes: [with_output(model, *pair) for pair in zip(
            blind(model, recipes), ql.calibrate_many(model, distilled[0], recipes), strict=True)]
    ]  # fmt: skip
    sets["batch norm statistics, output by random 8"] = [
        lambda model, recipes, draw=draw: [with_output(model, *pair) for pair in zip(
            blind(model, recipes), ql.calibrate_many(model, draw, recipes), strict=True)]
        for draw in sets["random 8"]
    ]  # fmt: skip
    return sets


def blind(model: ql.FloatModel, recipes: list[ql.Recipe]) -> list[Any]:
    """Tables without a picture."""
    return [ql.calibrate_without_pictures(model, one) for one in recipes]


def with_output(model: ql.FloatModel, table: Any, other: Any) -> dict[str, Any]:
    """A table whose output range is another table's: the output has no batch norm."""
    return {**table, model.output: other[model.output]}


def noise(network: ql.FloatModel, seed: int) -> list[torch.Tensor]:
    """32 inputs of uniform noise between the smallest and the largest pixel."""
    pixels = np.random.default_rng(seed).integers(0, 256, (32, *network.preprocess.size, 3)).astype(np.uint8)
    return list(network.preprocess(pixels).split(8))


def weight_sets(network: ql.FloatModel, evaluation: list[Any]) -> CalibrationSets:
    """Weights alone, per channel, at 8, 4 and 3 bits, by three calibrators; activations stay in float.

    The percentile keeps 99 %: 99.9 % of a channel's few hundred weights is all of them.
    """
    calibrators: dict[str, dict[str, float]] = {"minmax": {}, "mse": {}, "percentile": {"percent": 99.0}}
    recipes = {
        f"{bits} bits, {label}": ql.Recipe(
            activations=None,
            weights=ql.TensorRecipe(scheme="symmetric_restricted", bits=bits, granularity="per_channel",
                                    calibrator=label, calibrator_params=params),
        )
        for bits in (8, 4, 3)
        for label, params in calibrators.items()
    }  # fmt: skip
    return ql.compare_calibration_sets(
        ql.fold_batch_norm(network), recipes, {"weights only": [lambda model, all_: [{} for _ in all_]]}, evaluation
    )


def main() -> None:
    """Measure one network and write its entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("network", choices=["tiny_resnet", "tiny_mobilenet", "mobilenet_v1_0.25"])
    parser.add_argument("--pool", type=int, default=1000, metavar="N", help="pictures that sets are drawn from (1000)")
    parser.add_argument("--pictures", type=int, default=650, metavar="N", help="to evaluate on (650)")
    parser.add_argument("--draws", type=int, default=10, metavar="N", help="random sets of 8 and of 32 (10)")
    parser.add_argument("--clusterings", type=int, default=3, metavar="N", help="seeds of k-means (3)")
    parser.add_argument("--invented", type=int, default=3, metavar="N", help="seeds of noise and of distilling (3)")
    parser.add_argument("--distilled", type=int, default=32, metavar="N", help="pictures to distil (32)")
    parser.add_argument("--iterations", type=int, default=300, metavar="N", help="steps of distilling (300)")
    parser.add_argument(
        "--recipes", nargs="+", default=["8 minmax", "8 mse", "4 minmax", "4 mse"], metavar="'BITS CAL'"
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="the file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network, pool, evaluation, kind = opened(options)
    recipes = {f"{one.split()[0]} bits, {one.split()[1]}": recipe(int(one.split()[0]), one.split()[1])
               for one in options.recipes}  # fmt: skip
    weights = weight_sets(network, evaluation)
    print(weights, flush=True)
    activations = ql.compare_calibration_sets(
        ql.fold_batch_norm(network), recipes, sets_of(network, pool, kind, options), evaluation
    )
    print(activations)
    entry = {
        "network": options.network,
        **head(typed("calibration_data.py")),
        "pool": len(pool),
        "activations": activations.to_dict(),
        "weights": weights.to_dict(),
    }
    write_entry(options.output, entry)


def write_entry(path: Path, entry: dict[str, Any]) -> None:
    """Put the entry in the place of the network's last one."""
    entries = json.loads(path.read_text(encoding="utf-8"))["networks"] if path.exists() else []
    entries = [one for one in entries if one["network"] != entry["network"]] + [entry]
    entries.sort(key=lambda one: str(one["network"]))
    text = json.dumps({"networks": entries}, indent=1)
    compact = re.sub(r"\[([^\[\]{}]*)\]", lambda found: f"[{' '.join(found[1].split())}]", text)  # lists of numbers
    write(path, compact + "\n")


if __name__ == "__main__":
    main()
