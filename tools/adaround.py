"""Measure learned rounding: ``python tools/adaround.py resnet20`` writes ``notebooks/results/adaround_resnet20.json``.

Weights of 8 and of 4 bits, rounded to nearest and by `adaround`, activations of 8 bits. Calibrated and rounded on the
calibration pictures of the zoo, which the evaluation pictures do not contain. Minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from provenance import head, write

import qlearn as ql
from qlearn.analysis.compare import paired_difference
from qlearn.analysis.evaluate import logits_of

if TYPE_CHECKING:
    from qlearn.graph.model import FloatModel

RESULTS = Path(__file__).parents[1] / "notebooks" / "results"
SCHEME = "symmetric_restricted"
GRIDS = {  # what is measured unless told: bits, granularity and calibrator of the weights
    "resnet20": ["8:per_channel:minmax", "4:per_channel:mse"],
    "mobilenet_v1_0.25": ["8:per_tensor:minmax", "8:per_channel:minmax", "4:per_channel:mse"],
}


def recipe_of(grid: str) -> ql.Recipe:
    """Weights as asked, ``"4:per_channel:mse"``; activations by the default, 8 bits."""
    bits, granularity, calibrator = grid.split(":")
    weights = ql.TensorRecipe(scheme=SCHEME, bits=int(bits), granularity=granularity, calibrator=calibrator)
    return ql.Recipe(weights=weights)


def rounded(network: FloatModel, recipe: ql.Recipe, table: Any, data: Any, iterations: int) -> tuple[FloatModel, dict]:
    """Round, and measure time and memory."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = ql.adaround(network, recipe, table, data, iterations=iterations)
    seconds = {"seconds": round(time.perf_counter() - wall, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return result, seconds | {"peak_gib_of_process": round(peak, 2), "load": round(os.getloadavg()[0], 1)}


def measured(name: str, grids: list[str], iterations: list[int]) -> dict[str, Any]:
    """Round first, so that the peak of memory is that of the rounding; then evaluate everything."""
    network, data = ql.load(name)
    network = ql.fold_batch_norm(network)
    table = ql.calibrate(network, data.calibration, ql.Recipe())
    cases: list[tuple[dict[str, Any], FloatModel, ql.Recipe]] = []
    for grid in grids:
        bits, granularity, calibrator = grid.split(":")
        recipe, row = recipe_of(grid), {"bits": int(bits), "granularity": granularity, "calibrator": calibrator}
        cases.append((row | {"rounding": "nearest"}, network, recipe))
        for count in iterations:
            result, cost = rounded(network, recipe, table, data.calibration, count)
            cases.append((row | {"rounding": "adaround", "iterations": count} | cost, result, recipe))
            print(cases[-1][0], flush=True)
    labels = data.evaluation.labels
    reference = logits_of(network, data.evaluation)
    correct = reference.argmax(axis=1) == labels
    rows = [{"rounding": "float", "accuracy": float(correct.mean())}]
    print(rows[0], flush=True)
    for row, result, recipe in cases:
        logits = logits_of(ql.quantize_model(result, recipe, table), data.evaluation)
        hits = logits.argmax(axis=1) == labels
        interval = paired_difference(hits, correct)
        rows.append(row | {
            "accuracy": float(hits.mean()),
            "minus_float_points": [round(100 * v, 2) for v in (interval.difference, interval.low, interval.high)],
            "agreement": float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean()),
            "sqnr_db": round(ql.sqnr_db(reference, logits), 2),
        })  # fmt: skip
        print(rows[-1], flush=True)
    return {
        "network": name,
        **head(f"python tools/adaround.py {name} --weights {' '.join(grids)} "
               f"--iterations {' '.join(map(str, iterations))}"),
        "machine": f"{os.cpu_count()} cores shared with other work, 1 thread",
        "pictures": f"rounded on {len(data.calibration)}: {data.calibration.name}; "
        f"evaluated on {len(data.evaluation)}: {data.evaluation.name}",
        "weights": SCHEME,
        "activations": "affine, 8 bits, mse",
        "minus_float_points": "difference to float in points, and its 95 % interval (paired)",
        "rows": rows,
    }  # fmt: skip


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("network", choices=GRIDS)
    parser.add_argument("--weights", nargs="+", metavar="BITS:GRANULARITY:CALIBRATOR", help="grids of the weights")
    parser.add_argument("--iterations", type=int, nargs="+", default=[1000], metavar="N", help="of AdaRound (1000)")
    parser.add_argument("--output", type=Path, help="the file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = measured(options.network, options.weights or GRIDS[options.network], options.iterations)
    top = json.dumps({key: value for key, value in result.items() if key != "rows"}, indent=2)[:-2]
    rows = ",\n".join(f"    {json.dumps(row)}" for row in result["rows"])
    output = options.output or RESULTS / f"adaround_{options.network}.json"
    write(output, f'{top},\n  "rows": [\n{rows}\n  ]\n}}\n')
    print(f"{output.name}: {len(result['rows'])} rows")


if __name__ == "__main__":
    main()
