"""The benchmarks are not run by the tests, but they can be imported, and compare with the file that we export."""

import ast
import importlib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
FILES = sorted(BENCHMARKS.glob("test_*.py"))


def loaded(path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in ("networks", "ort_entropy"):  # the tests have modules of the same name
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.spec_from_file_location(f"benchmarks_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("networks", "ort_entropy"):
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
