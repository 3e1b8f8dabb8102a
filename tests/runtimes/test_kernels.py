"""Our kernels against the runtimes, a million random outputs for each operation and runtime: no difference."""

import numpy as np
import pytest
from random_layers import LAYERS

from qlearn.integer.layers import run_layer
from qlearn.integer.profiles import profile_named

pytestmark = pytest.mark.runtimes
OUTPUTS = 10**6
LITERT = [
    (op, profile) for op in LAYERS if op not in ("silu", "hard_sigmoid") for profile in ("litert_reference", "xnnpack")
]
ONNX = [op for op in LAYERS if "16" not in op]


def compare(op, profile, theirs, capsys):
    """Run random layers until enough outputs are compared; print and return the number of differences."""
    rng = np.random.default_rng(sum(map(ord, op + profile)))
    compared = mismatches = layers = 0
    while compared < OUTPUTS:
        layer, inputs = LAYERS[op](rng)
        ours = run_layer(layer, inputs, profile_named(profile))
        if ours.size == 0:
            continue
        different = ours != theirs(layer, inputs, ours.shape)
        compared, mismatches, layers = compared + ours.size, mismatches + int(different.sum()), layers + 1
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
