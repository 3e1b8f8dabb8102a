"""The benchmarks are not run by the tests, but they can be imported, and compare with the file that we export."""

import ast
import importlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
OWN = ("networks", "engines", "ort_entropy")
FILES = sorted(BENCHMARKS.glob("*.py"))


def loaded(path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in OWN:  # the tests have modules of the same name
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.spec_from_file_location(f"benchmarks_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in OWN:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return module


@pytest.mark.skipif(not FILES, reason="the benchmarks are not part of this copy")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_name_that_a_benchmark_imports_exists(path, monkeypatch):
    loaded(path, monkeypatch)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "qlearn":
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)


@pytest.mark.runtimes
@pytest.mark.skipif(not FILES, reason="the benchmarks are not part of this copy")
def test_the_benchmark_of_the_engines_compares_the_same_integers(monkeypatch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    benchmark = loaded(BENCHMARKS / "test_engines.py", monkeypatch)
    _, model, x = benchmark.prepared("MobileNetV1 0.25")
    session = benchmark.onnx_session(model)
    codes = benchmark.profile_named("onnxruntime").quantize(x.numpy(), model.layers[0].output)
    feed = {session.get_inputs()[0].name: (codes.astype(np.int16) + 128).astype(np.uint8)}
    theirs = session.run(None, feed)[0].astype(int) - 128
    assert np.array_equal(theirs, model.run_codes(codes))
    assert np.array_equal(theirs, model.with_engine("torch").run_codes(codes))


@pytest.mark.runtimes
@pytest.mark.skipif(not FILES, reason="the benchmarks are not part of this copy")
def test_the_ratio_on_a_cpu_is_float_over_int8_of_networks_that_agree(monkeypatch, capsys):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    row = loaded(BENCHMARKS / "cpu_ratio.py", monkeypatch).measured("MobileNetV1 0.25", rounds=1)
    times = row["milliseconds"]
    for tool in ("torch", "ONNX Runtime"):
        found = times[f"{tool} float32"] / times[f"{tool} int8"]
        assert row["ratio"][tool] == pytest.approx(found, rel=0.02, abs=0.01)  # all three are rounded
    assert row["differing_codes"] == 0
    assert row["multiplications"] == MOBILENET_BY_HAND


def _mobilenet_multiplications():
    """Of MobileNetV1 0.25 at 224 x 224, from its table of blocks."""
    size, inputs = 112, 8
    total = size**2 * 9 * 3 * inputs
    blocks = [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)]
    for outputs, stride in blocks:
        size //= stride
        total += size**2 * (9 * inputs + inputs * outputs)
        inputs = outputs
    return total + inputs * 1000


PUBLISHED = {"ResNet-50": 25_557_032, "EfficientNet-B0": 5_288_548}  # parameters, as torchvision counts them


@pytest.mark.skipif(not FILES, reason="the benchmarks are not part of this copy")
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_networks_have_the_published_size(name, monkeypatch):
    network = loaded(BENCHMARKS / "networks.py", monkeypatch).make(name)
    convolutions = {key: layer for key, layer in network.named_modules() if hasattr(layer, "kernel_size")}
    factors = sum(
        layer.out_channels for key, layer in convolutions.items() if not key.endswith(("squeeze", "excite"))
    )  # of the batch norms, which are folded; their offsets are the biases
    assert sum(value.numel() for value in network.parameters()) + factors == PUBLISHED[name]


MOBILENET_BY_HAND = _mobilenet_multiplications()
