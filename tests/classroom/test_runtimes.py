"""The chapters read the same with and without the runtimes; where they are, the committed file is what they compute."""

import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import qlearn as ql
from qlearn.classroom import runtimes
from qlearn.errors import QLearnError

FILE = Path(__file__).parents[2] / "notebooks" / "results" / "runtimes.json"
ROWS = json.loads(FILE.read_text())["rows"]


@pytest.fixture(scope="module")
def network():
    net, data = ql.load("tiny_resnet")
    net, recipe = ql.fold_batch_norm(net), ql.Recipe()
    table = ql.calibrate(net, data.calibration, recipe)
    return ql.quantize_model(net, recipe, table).to_integer(), torch.cat([x for x, _ in data.evaluation.subset(8)])


@pytest.mark.runtimes
@pytest.mark.parametrize("runtime", runtimes.RUNTIMES)
def test_the_runtime_computes_our_codes(runtime, network, capfd):
    for package in runtimes.RUNTIMES[runtime][1]:
        pytest.importorskip(package)
    model, x = network
    theirs = runtimes.runtime_codes(runtime, model, x.numpy())
    ours = model.with_policy(runtimes.RUNTIMES[runtime][0]).run(x.numpy())
    assert theirs.shape == (8, 10)
    assert np.array_equal(theirs, ours)
    assert capfd.readouterr() == ("", "")
    os.write(2, b"heard")  # the process can still speak
    assert capfd.readouterr().err == "heard"


def test_the_file_has_every_runtime_of_both_networks():
    assert {(row["network"], row["runtime"]) for row in ROWS} == {
        (network, runtime) for network in ("tiny_resnet", "tiny_mobilenet") for runtime in runtimes.RUNTIMES
    }
    assert all(row["codes"] == 2000 and row["mismatches"] == 0 for row in ROWS)


def test_a_runtime_that_is_missing(monkeypatch, network):
    def absent(name, *args, **kwargs):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    assert not any(runtimes.installed(runtime) for runtime in runtimes.RUNTIMES)
    with pytest.raises(QLearnError, match=r"LiteRT needs ai_edge_litert: .*qlearn\[runtimes\]"):
        runtimes.runtime_codes("LiteRT", network[0], network[1].numpy())


def test_an_unknown_runtime():
    with pytest.raises(QLearnError, match="no runtime 'TensorRT': choose one of ONNX Runtime, LiteRT"):
        runtimes.installed("TensorRT")
