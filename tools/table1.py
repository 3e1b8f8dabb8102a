"""Repeat the paper's Table 1 on the zoo: ``python tools/table1.py`` writes a result of chapters 02 and 11.

Rows are networks, columns say how weights are quantized. Activations are affine, 8 bits, per tensor, in all of them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import head, typed, write

import qlearn as ql
from qlearn.analysis.compare import paired_difference
from qlearn.analysis.evaluate import logits_of

RESULTS = Path(__file__).parents[1] / "notebooks" / "results" / "table1.json"
NETWORKS = {
    "tiny_resnet": "2000 bundled pictures of digits",
    "tiny_mobilenet": "2000 bundled pictures of digits",
    "resnet20": "10 000 test pictures of CIFAR-10",
    "resnet56": "10 000 test pictures of CIFAR-10",
    "mobilenet_v1_0.25": "650 photographs of the ImageNet validation set",
}
COLUMNS: dict[str, ql.TensorRecipe | None] = {
    "asymmetric, per tensor": ql.TensorRecipe(scheme="affine"),
    "symmetric, per tensor": ql.TensorRecipe(scheme="symmetric_restricted"),
    "symmetric, per channel": ql.TensorRecipe(scheme="symmetric_restricted", granularity="per_channel"),
    "asymmetric, per channel": ql.TensorRecipe(scheme="affine", granularity="per_channel"),
    "activations only": None,
}


def measured(name: str, images: int | None) -> dict[str, Any]:
    """Return one row of the table: top-1 for float and for every column, in the simulation, which is exact.

    Parameters
    ----------
    name : str
        A network of the zoo.
    images : int or None
        Evaluate on the first so many pictures only.
    """
    net, data = ql.load(name)
    net = ql.fold_batch_norm(net)
    pictures = data.evaluation if images is None else data.evaluation.subset(range(images))
    recipe = ql.Recipe()
    table = ql.calibrate(net, data.calibration, recipe)
    labels = np.asarray(pictures.labels)
    reference = logits_of(net, pictures, f"{name}: float")
    right = reference.argmax(axis=1) == labels
    row: dict[str, Any] = {
        "largest_to_median": _largest_to_median(net),
        "network": name,
        "pictures": len(labels),
        "float": round(float(right.mean()), 6),
        "columns": {},
    }
    for column, weights in COLUMNS.items():
        quantized = ql.quantize_model(net, replace(recipe, weights=weights), table)
        logits = logits_of(quantized, pictures, f"{name}: {column}")
        correct = logits.argmax(axis=1) == labels
        interval = paired_difference(correct, right)
        row["columns"][column] = {
            "accuracy": round(float(correct.mean()), 6),
            "difference": [round(value, 4) for value in (interval.difference, interval.low, interval.high)],
            "sqnr_db": round(ql.sqnr_db(reference, logits), 1),
        }
        print(f"{name:18} {column:24} {correct.mean():6.1%}  float {right.mean():6.1%}", flush=True)
    return row


def _largest_to_median(net: ql.FloatModel) -> dict[str, float]:
    """How unequal the channels of each layer are: the largest absolute weight over the median channel's largest."""
    ratios = {}
    for node in net.nodes:
        if node.op in ("conv2d", "linear"):
            reach = node.params["weight"].abs().flatten(1).amax(dim=1)
            ratios[node.name] = float(f"{float(reach.max() / reach.median()):.3g}")
    return ratios


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS), metavar="NAME")
    parser.add_argument("--images", type=int, metavar="N", help="evaluate on N pictures only")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measured(name, options.images) for name in options.networks]
    result = {
        **head(typed("table1.py")),
        "activations": "affine, 8 bits, per tensor, calibrator mse",
        "pictures": {name: NETWORKS[name] for name in options.networks},
        "rows": rows,
    }
    write(options.output, json.dumps(result, indent=1) + "\n")
    print(f"{options.output.name}: {len(rows)} networks")


if __name__ == "__main__":
    main()
