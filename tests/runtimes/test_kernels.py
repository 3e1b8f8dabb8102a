"""Our kernels against the runtimes, a million random outputs for each operation and runtime: no difference."""

import dataclasses

import numpy as np
import pytest
from random_layers import LAYERS

from qlearn.integer.layers import run_layer
from qlearn.integer.profiles import profile_named
from qlearn.numbers.qparams import QParams

pytestmark = pytest.mark.runtimes
OUTPUTS = 10**6
LITERT = [
    (op, profile) for op in LAYERS if op not in ("silu", "hard_sigmoid") for profile in ("litert_reference", "xnnpack")
]
ONNX = [op for op in LAYERS if "16" not in op]


WIDE = {op for op in LAYERS if "16" in op}
"""16-bit codes have the zero point 0."""


def corners(layer, inputs):
    """What is special about a layer: the corners that random shapes and scales must not miss."""
    for codes, q in inputs:
        yield f"zero point {int(q.zero_point)}"
        if np.frexp(q.scale)[0] == 0.5:
            yield "scale 2^k"
        if codes.ndim == 4 and codes.shape[1] == 1:
            yield "1 channel"
        if codes.ndim == 4 and codes.shape[2:] == (1, 1):
            yield "1 x 1"
    yield f"output zero point {int(layer.output.zero_point)}"
    if "stride" in layer.attrs:
        yield f"stride {max(layer.attrs['stride'])}"


def expected_corners(op):
    """What at least one layer of every operation must be, where the operation has such a thing."""
    expected = {"scale 2^k"} | (set() if op in WIDE else {"zero point -128", "zero point 127"})
    if op in ("conv2d", "depthwise", "linear", "add", "subtract", "multiply", "mean", "average pool", "convert"):
        expected |= {"output zero point -128", "output zero point 127"}
    if op in ("conv2d", "add", "mean", "average pool", "max pool"):
        expected |= {"1 channel", "1 x 1"}
    if op == "depthwise":
        expected |= {"1 x 1"}
    return expected | ({"stride 3"} if op in ("conv2d", "depthwise", "average pool", "max pool") else set())


def compare(op, profile, theirs, capsys):
    """Run random layers until enough outputs are compared; print and return the number of differences."""
    rng = np.random.default_rng(sum(map(ord, op + profile)))
    compared = mismatches = layers = 0
    seen = set()
    while compared < OUTPUTS or not expected_corners(op) <= seen:
        layer, inputs = LAYERS[op](rng)
        ours = run_layer(layer, inputs, profile_named(profile))
        if ours.size == 0:
            continue
        different = ours != theirs(layer, inputs, ours.shape)
        compared, mismatches, layers = compared + ours.size, mismatches + int(different.sum()), layers + 1
        seen.update(corners(layer, inputs))
        assert layers < 20_000, f"never seen: {expected_corners(op) - seen}"
    with capsys.disabled():
        print(f"\n  {op:18} {profile:17} {layers:5} layers {compared:9} outputs {mismatches:6} mismatches", end="")
    return mismatches


@pytest.mark.parametrize(("op", "profile"), LITERT, ids=str)
def test_litert(op, profile, capsys):
    pytest.importorskip("ai_edge_litert")
    from runtime_models import litert_layer

    assert compare(op, profile, lambda *args: litert_layer(*args, profile), capsys) == 0


@pytest.mark.parametrize("op", ONNX)
def test_onnxruntime(op, capsys):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from runtime_models import onnx_layer

    assert compare(op, "onnxruntime", onnx_layer, capsys) == 0


@pytest.mark.parametrize("op", ["add", "subtract"])
def test_sums_that_xnnpack_leaves_to_litert(op, capsys):
    """One input has steps that are 256 times and more those of the output."""
    pytest.importorskip("ai_edge_litert")
    from runtime_models import litert_layer

    rng, compared, near = np.random.default_rng(7), 0, 0
    for ratio in (250.0, 255.9, 256.0, 257.0, 300.0, 1000.0, 4000.0, 16000.0) * 4:
        layer, [(a, q), (b, r)] = LAYERS[op](rng, False)
        a = np.clip(int(q.zero_point) + rng.integers(-1, 2, a.shape), -128, 127).astype(np.int8)
        output = QParams(np.float32(float(q.scale) / ratio), int(layer.output.zero_point), -128, 127)
        layer = dataclasses.replace(layer, output=output)
        inputs = [(a, q), (b, QParams(output.scale * np.float32(0.7), int(r.zero_point), -128, 127))]
        ours = run_layer(layer, inputs, profile_named("xnnpack"))
        assert np.array_equal(ours, litert_layer(layer, inputs, ours.shape, "xnnpack"))
        compared, near = compared + ours.size, near + int((abs(ours.astype(int)) < 100).sum())
    with capsys.disabled():
        print(
            f"\n  {op}, steps 250 to 16000 times finer: {compared} outputs, {near} inside the range, 0 mismatches",
            end="",
        )
    assert near > compared / 10
