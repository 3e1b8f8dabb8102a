"""Measure how many pictures calibration needs: ``python tools/calibration_size.py`` writes a result of chapter 04.

The chapter draws the same curves with fewer pictures and draws, in seconds; this run takes minutes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from provenance import head, write

import qlearn as ql

RESULTS = Path(__file__).parents[1] / "notebooks" / "results" / "calibration_size_tiny_resnet.json"
SIZES = tuple(2**k for k in range(9))
CHOICES = {
    "8 bits, minmax": ("minmax", 8),
    "4 bits, minmax": ("minmax", 4),
    "4 bits, mse": ("mse", 4),
}


def measured(draws: int, pictures: int) -> dict[str, Any]:
    """Calibrate on `draws` random sets of each size and evaluate each time on the same `pictures`.

    Parameters
    ----------
    draws, pictures : int
        Calibration sets of each size; pictures to evaluate on. The sets are drawn from the others.

    Returns
    -------
    dict
        ``rows``: for each choice and size, all accuracies and all SQNR.
    """
    net, data = ql.load("tiny_resnet")
    others = data.evaluation.subset(range(pictures, len(data.evaluation)))
    recipes = {
        name: ql.Recipe(activations=ql.TensorRecipe(scheme="affine", bits=bits, calibrator=calibrator))
        for name, (calibrator, bits) in CHOICES.items()
    }
    evaluation = data.evaluation.subset(range(pictures))
    curve = ql.calibration_size_curve(ql.fold_batch_norm(net), recipes, others, evaluation, sizes=SIZES, draws=draws)
    return {
        "network": "tiny_resnet",
        **head(f"python tools/calibration_size.py --draws {draws} --pictures {pictures}"),
        "pictures": f"{pictures} of the bundled evaluation pictures; calibrated on draws from the other {len(others)}",
        "rows": [
            {"choice": row.recipe, "size": row.size, "accuracy": [round(x, 4) for x in row.accuracy],
             "sqnr_db": [round(x, 1) for x in row.sqnr_db]}
            for row in curve.rows
        ],
    }  # fmt: skip


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--draws", type=int, default=10, metavar="N", help="calibration sets of each size (10)")
    parser.add_argument("--pictures", type=int, default=1000, metavar="N", help="to evaluate on (1000)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = measured(options.draws, options.pictures)
    top = json.dumps({key: value for key, value in result.items() if key != "rows"}, indent=2)[:-2]
    rows = ",\n".join(f"    {json.dumps(row)}" for row in result["rows"])
    write(options.output, f'{top},\n  "rows": [\n{rows}\n  ]\n}}\n')
    print(f"{options.output.name}: {len(result['rows'])} rows")


if __name__ == "__main__":
    main()
