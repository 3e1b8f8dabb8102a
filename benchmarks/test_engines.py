"""The engines beside torch's float32 and ONNX Runtime's int8: one thread, in turns, ratios of medians."""

import functools
import time
from pathlib import Path
from statistics import median

import networks
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import qlearn as ql
from qlearn.errors import MissingDependencyError
from qlearn.export.onnx import onnx_graph
from qlearn.export.onnx_write import onnx_bytes
from qlearn.integer.layers import run_layer
from qlearn.integer.profiles import profile_named
from qlearn.integer.torch_engine import build
from qlearn.integer.torch_values import pack, unpack

GOALS = {"ResNet-18": 2.3, "MobileNetV2": 0.9}
FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")
CL = {"memory_format": torch.channels_last}
ROUNDS = 31


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


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


def show(capsys, title, times, *, base="torch float32", goal=None):
    with capsys.disabled():
        print(f"\n{title} ({processor()})")
        for name, value in times.items():
            ratio = f"{times[base] / value:6.2f} x {base}" if base in times else ""
            wanted = f"   goal {goal}" if goal and name == "torch engine" else ""
            print(f"  {name:28}{value:9.2f} ms {ratio}{wanted}")


@functools.cache
def prepared(name):
    """The float module, channels last; the integer model of ONNX Runtime's arithmetic; a picture."""
    module = networks.make(name)
    x = torch.randn(5, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    recipe = ql.Recipe(weights=ql.TensorRecipe(scheme="symmetric_restricted", granularity="per_channel"))
    network = ql.trace(module, x[:1])
    model = ql.quantize_model(network, recipe, ql.calibrate(network, [x[1:]], recipe)).to_integer("onnxruntime")
    return module.to(**CL), model, x[:1].contiguous(**CL)


def onnx_session(model):
    """The file that `export_onnx` writes, in ONNX Runtime on one thread; None where the extra is not installed."""
    try:
        import onnxruntime

        content = onnx_bytes(onnx_graph(model, integers=True), model.name, {})
    except (ImportError, MissingDependencyError):
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", GOALS)
def test_whole_network(name, benchmark, capsys):
    module, model, x = prepared(name)
    fast, fixed = model.with_engine("torch"), model.with_policy("fixed").with_engine("torch")
    picture = x.numpy()

    def floating():
        with torch.inference_mode():
            module(x)

    stages = {
        "torch float32": floating,
        "torch engine": lambda: fast(picture),
        "torch engine, fixed": lambda: fixed(picture),
    }
    session = onnx_session(model)
    if session is not None:
        codes = profile_named("onnxruntime").quantize(picture, model.layers[0].output).astype(np.int16) + 128
        feed = {session.get_inputs()[0].name: np.ascontiguousarray(codes.astype(np.uint8))}
        stages["ONNX Runtime int8"] = lambda: session.run(None, feed)
        theirs = session.run(None, feed)[0].astype(int) - 128
        assert np.array_equal(theirs, fast.run(picture))
    assert np.array_equal(model.run(picture), fast.run(picture))
    times = in_turns(stages)
    show(capsys, f"{name}, one picture of 224 x 224", times, goal=GOALS[name])
    benchmark.extra_info.update(times)
    benchmark.pedantic(stages["torch engine"], rounds=5)


@pytest.mark.parametrize("name", GOALS)
def test_convolutions_alone(name, benchmark, capsys):
    """Each convolution on its own, from codes to codes, and the sum of all."""
    _, model, x = prepared(name)
    qparams = {layer.name: layer.output for layer in model.layers}
    codes, profile = model.codes(x.numpy()), profile_named(model.policy)
    total = {"torch float32": 0.0, "torch engine": 0.0}
    with torch.inference_mode():
        for layer in (layer for layer in model.layers if layer.op == "conv2d"):
            source, attrs = layer.inputs[0], layer.attrs
            kept, q = pack(codes[source], qparams[source]), qparams[source]
            compute = build(layer, [q], profile)
            assert np.array_equal(
                unpack(compute([kept]), layer.output), run_layer(layer, [(codes[source], q)], profile)
            )
            weight, real = torch.from_numpy(layer.weight).float().contiguous(**CL), kept.float()
            bias, (top, _, left, _) = torch.from_numpy(layer.bias).float(), attrs["padding"]
            options = (attrs["stride"], (top, left), attrs["dilation"], attrs["groups"])
            times = in_turns({
                "torch float32": functools.partial(F.conv2d, real, weight, bias, *options),
                "torch engine": functools.partial(compute, [kept]),
            }, rounds=9)  # fmt: skip
            total = {key: total[key] + times[key] for key in total}
    show(capsys, f"{name}, the sum of its convolutions", total, goal=GOALS[name])
    benchmark.extra_info.update(total)
    benchmark.pedantic(lambda: None)


def test_reference(benchmark, capsys):
    """The NumPy kernels on MobileNetV1 0.25: a second at most for a picture."""
    module, model, x = prepared("MobileNetV1 0.25")
    picture = x.numpy()
    fast = model.with_engine("torch")
    stages = {"torch float32": lambda: module(x)}
    stages |= {f"reference, {p}": functools.partial(model.with_policy(p), picture)
               for p in ("fixed", "float32", "onnxruntime")}  # fmt: skip
    times = in_turns(stages | {"torch engine": lambda: fast(picture)}, rounds=9)
    show(capsys, "MobileNetV1 0.25, one picture of 224 x 224: goal of the reference < 1000 ms", times)
    benchmark.extra_info.update(times)
    benchmark.pedantic(stages["reference, fixed"], rounds=3)
