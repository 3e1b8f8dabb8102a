"""Run the exported bundled networks in every runtime: ``python tools/runtimes.py`` writes a result of chapter 03.

It also asks the tools that the paper's section 3.5 names what they choose if nobody tells them otherwise.
"""

from __future__ import annotations

import argparse
import inspect
import json
import platform
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import head, write

import qlearn as ql
from qlearn.classroom.runtimes import RUNTIMES, runtime_codes

RESULTS = Path(__file__).parents[1] / "notebooks" / "results" / "runtimes.json"
NETWORKS = ("tiny_resnet", "tiny_mobilenet")
PACKAGES = {"onnxruntime": "onnxruntime", "xnnpack": "ai-edge-litert", "litert_reference": "ai-edge-litert"}


def compared(network: str, pictures: int) -> list[dict[str, Any]]:
    """Compare the logit codes of each runtime with the integer model under its profile, and under policy fixed."""
    net, data = ql.load(network)
    net, recipe = ql.fold_batch_norm(net), ql.Recipe()
    integer = ql.quantize_model(net, recipe, ql.calibrate(net, data.calibration, recipe)).to_integer()
    x = torch.cat([images for images, _ in data.evaluation.subset(range(pictures))]).numpy()
    fixed = integer.run(x).astype(np.int64)
    rows = []
    for runtime, (profile, _) in RUNTIMES.items():
        theirs = runtime_codes(runtime, integer, x)
        ours = integer.with_policy(profile).run(x).astype(np.int64)
        rows.append(
            {
                "network": network,
                "runtime": runtime,
                "version": metadata.version(PACKAGES[profile]),
                "profile": profile,
                "codes": int(theirs.size),
                "mismatches": int((theirs != ours).sum()),
                "mismatches_fixed": int((theirs != fixed).sum()),
                "farthest_fixed": int(np.abs(theirs - fixed).max()),
                "answers_fixed": int((theirs.argmax(1) != fixed.argmax(1)).sum()),
            }
        )
    return rows


def defaults() -> list[dict[str, str]]:
    """What two tools choose by themselves, as their own functions say."""
    from onnxruntime import quantization
    from torch.ao.quantization import get_default_qconfig

    given = {name: p.default for name, p in inspect.signature(quantization.quantize_static).parameters.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the dtypes of torch.ao are deprecated
        config = get_default_qconfig("x86")
        activation, weight = config.activation(), config.weight()
    per = "per channel" if given["per_channel"] else "per tensor"
    return [
        {
            "tool": f"ONNX Runtime {metadata.version('onnxruntime')}",
            "asked": "quantize_static",
            "weights": f"{given['weight_type'].name}, {per}",
            "activations": f"{given['activation_type'].name}, {given['calibrate_method'].name}",
        },
        {
            "tool": f"PyTorch {metadata.version('torch').split('+')[0]}",
            "asked": 'torch.ao.quantization.get_default_qconfig("x86")',
            "weights": _described(weight),
            "activations": _described(activation),
        },
    ]


def _described(observer: Any) -> str:
    kind = str(observer.qscheme).removeprefix("torch.").replace("_", " ")
    codes = f"codes {observer.quant_min} to {observer.quant_max}"
    return f"{str(observer.dtype).removeprefix('torch.')}, {kind}, {codes}, {type(observer).__name__}"


def measured(pictures: int) -> dict[str, Any]:
    """Return everything that the file holds."""
    return {
        **head(f"python tools/runtimes.py --pictures {pictures}"),
        "machine": f"{platform.machine()}, torch sees {torch.backends.cpu.get_cpu_capability()}",
        "pictures": f"{pictures} of the bundled evaluation pictures; calibrated on the bundled calibration pictures",
        "rows": [row for network in NETWORKS for row in compared(network, pictures)],
        "defaults": defaults(),
    }


def main() -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", type=int, default=200, metavar="N", help="to compare on (200)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = measured(options.pictures)
    write(options.output, json.dumps(result, indent=2) + "\n")
    for row in result["rows"]:
        print(f"{row['network']:15} {row['runtime']:18} {row['codes']} codes, {row['mismatches']} mismatches")


if __name__ == "__main__":
    main()
