"""The engines beside torch's float32 and ONNX Runtime's int8: one thread, in turns, ratios of medians."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engines import CL, in_turns, onnx_session, prepared, processor

from qlearn.integer.layers import run_layer
from qlearn.integer.profiles import profile_named
from qlearn.integer.torch_engine import build
from qlearn.integer.torch_values import pack, unpack

GOALS = {"ResNet-18": 2.3, "MobileNetV2": 0.9}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def show(capsys, title, times, *, base="torch float32", goal=None):
    with capsys.disabled():
        print(f"\n{title} ({processor()})")
        for name, value in times.items():
            ratio = f"{times[base] / value:6.2f} x {base}" if base in times else ""
            wanted = f"   goal {goal}" if goal and name == "torch engine" else ""
            print(f"  {name:28}{value:9.2f} ms {ratio}{wanted}")


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
