"""What the benchmarks of whole networks share: networks in float and in int8, and runs that take turns."""

import functools
import time
from pathlib import Path
from statistics import median

import networks
import torch

import qlearn as ql
from qlearn.errors import MissingDependencyError
from qlearn.export.onnx import onnx_graph
from qlearn.export.onnx_write import onnx_bytes

FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")
CL = {"memory_format": torch.channels_last}
ROUNDS = 31


def processor():
    """What /proc/cpuinfo says about dot products, where there is one."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    flags = next((line.split(":")[1].split() for line in text.splitlines() if line.startswith("flags")), [])
    return ", ".join(f"{flag} {'yes' if flag in flags else 'no'}" for flag in FLAGS) if flags else "unknown"


def in_turns(functions, rounds=ROUNDS):
    """Median processor time in milliseconds of each function, one round of all after the other."""
    times = {name: [] for name in functions}
    for turn in range(rounds + 3):
        for name, function in functions.items():
            start = time.process_time()
            function()
            if turn >= 3:
                times[name].append(1e3 * (time.process_time() - start))
    return {name: median(values) for name, values in times.items()}


@functools.cache
def prepared(name):
    """The float module, channels last; the integer model of ONNX Runtime's arithmetic; a picture."""
    module = networks.make(name)
    x = torch.randn(5, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    recipe = ql.Recipe(weights=ql.TensorRecipe(scheme="symmetric_restricted", granularity="per_channel"))
    network = ql.trace(module, x[:1])
    model = ql.quantize_model(network, recipe, ql.calibrate(network, [x[1:]], recipe)).to_integer("onnxruntime")
    return module.to(**CL), model, x[:1].contiguous(**CL)


def session_of(content):
    """An ONNX file in ONNX Runtime, on one thread; ImportError where the extra is not installed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def onnx_session(model):
    """The file that `export_onnx` writes, in ONNX Runtime on one thread; None where the extra is not installed."""
    try:
        return session_of(onnx_bytes(onnx_graph(model, integers=True), model.name, {}))
    except (ImportError, MissingDependencyError):
        return None
