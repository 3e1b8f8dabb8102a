"""The paper's Fig. 6 as a ratio on a CPU: ``python benchmarks/cpu_ratio.py`` writes a result of chapter 06.

The paper compares ResNet-50 and EfficientNet-B0 in 8 bits on a GPU. This compares int8 with float32 on this CPU,
for the same two architectures and two smaller ones, in torch and in ONNX Runtime.
All take turns in one process, on one thread. Weights are random: they change the answers, not the time.
"""

import argparse
import io
import json
import os
import platform
import time
import warnings
from importlib import metadata
from pathlib import Path

import networks
import numpy as np
import torch
from engines import ROUNDS, in_turns, onnx_session, prepared, processor, session_of

import qlearn as ql
from qlearn.analysis.mixed_precision.resources import multiplications
from qlearn.integer.profiles import profile_named

RESULTS = Path(__file__).parents[1] / "notebooks" / "results" / "cpu_ratio.json"
NETWORKS = ("ResNet-50", "ResNet-18", "EfficientNet-B0", "MobileNetV2")


def float_session(module, x):
    """The float network in ONNX Runtime, on one thread."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is deprecated
        torch.onnx.export(module, (x,), file, dynamo=False)
    return session_of(file.getvalue())


def stages(name):
    """Functions that compute one picture; how many codes of the logits differ between the two int8 ones."""
    module, model, x = prepared(name)
    picture, fast = np.ascontiguousarray(x.numpy()), model.with_engine("torch")

    def floating():
        with torch.inference_mode():
            module(x)

    found = {"torch float32": floating, "torch int8": lambda: fast(picture)}
    session = onnx_session(model)
    if session is None:
        return found, None
    theirs = float_session(module, x)
    feed = {theirs.get_inputs()[0].name: picture}
    codes = (profile_named("onnxruntime").quantize(picture, model.layers[0].output).astype(np.int16) + 128).astype("u1")
    coded = {session.get_inputs()[0].name: codes}
    found |= {
        "ONNX Runtime float32": lambda: theirs.run(None, feed),
        "ONNX Runtime int8": lambda: session.run(None, coded),
    }
    return found, int((session.run(None, coded)[0].astype(int) - 128 != fast.run(picture)).sum())


def measured(name, rounds):
    """One row: times, their ratios, and what the network is by size and work."""
    functions, differing = stages(name)
    times = in_turns(functions, rounds)
    tools = [key.removesuffix(" int8") for key in times if key.endswith(" int8")]
    traced = ql.trace(networks.make(name), torch.zeros(1, 3, 224, 224))
    row = {
        "network": name,
        "multiplications": sum(multiplications(traced).values()),
        "parameters": sum(value.numel() for node in traced.nodes for value in node.params.values()),
        "milliseconds": {key: round(value, 2) for key, value in times.items()},
        "ratio": {tool: round(times[f"{tool} float32"] / times[f"{tool} int8"], 2) for tool in tools},
        "differing_codes": differing,
    }
    print(f"{name:16} " + "   ".join(f"{tool} float32 / int8 {ratio:.2f}" for tool, ratio in row["ratio"].items()))
    return row


def versions():
    """Of the packages that compute."""
    found = {"qlearn": ql.__version__, "torch": torch.__version__, "python": platform.python_version()}
    try:
        return found | {"onnxruntime": metadata.version("onnxruntime")}
    except metadata.PackageNotFoundError:
        return found


def load():
    """The average number of busy processes in the last minute, where the system says it."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FILE", help="the file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    before = load()
    rows = [measured(name, options.rounds) for name in NETWORKS]
    result = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": "python benchmarks/cpu_ratio.py"
        + (f" --rounds {options.rounds}" if options.rounds != ROUNDS else ""),
        "versions": versions(),
        "machine": f"{platform.machine()}, {processor()}",
        "threads": 1,
        "cores": os.cpu_count(),
        "load": {"before": before, "after": load()},
        "method": f"medians of {options.rounds} rounds of processor time, all in turns; one picture of 224 x 224",
        "rows": rows,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
