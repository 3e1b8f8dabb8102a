"""Every family, exported: LiteRT and ONNX Runtime give the codes of the integer model."""

import numpy as np
import pytest
import torch

import qlearn as ql
from qlearn.errors import ExportError
from qlearn.graph.split import split_silu
from qlearn.zoo.models.families import FAMILIES, family

pytest.importorskip("ai_edge_litert")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from runtime_models import from_file, from_uint8, interpreter, session, to_file, to_uint8

pytestmark = pytest.mark.runtimes
WITH_SILU = ("efficientnet", "plain_tokens")
PICTURES = 40


def pictures(seed):
    return torch.randn(PICTURES, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def integers(name, profile, *, split):
    network = ql.fold_batch_norm(ql.trace(family(name), pictures(0)))
    network = split_silu(network) if split else network
    table = ql.calibrate(network, [pictures(2)], ql.Recipe())
    return ql.quantize_model(network, ql.Recipe(), table, strict=True).to_integer(profile)


@pytest.mark.parametrize("profile", ["litert_reference", "xnnpack"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_exported_file_gives_the_same_codes(name, profile, tmp_path, capsys):
    model = integers(name, profile, split=name in WITH_SILU)
    ql.export_litert(model, tmp_path / "net.tflite")
    made = interpreter((tmp_path / "net.tflite").read_bytes(), profile)
    codes = model.codes(pictures(3).numpy())
    given, expected = codes[model.layers[0].name], codes[model.output]
    mismatches = 0
    for i in range(PICTURES):
        made.set_tensor(made.get_input_details()[0]["index"], to_file(given[i : i + 1]))
        made.invoke()
        theirs = from_file(made.get_tensor(made.get_output_details()[0]["index"]))
        mismatches += int((theirs != expected[i : i + 1]).sum())
    ops = ", ".join(sorted({layer.op for layer in model.layers[1:]}))
    with capsys.disabled():
        print(f"\n  {name}, {profile}: {ops}: {expected.size} codes, {mismatches} mismatches", end="")
    assert mismatches == 0
    assert len(np.unique(expected)) > 5


@pytest.mark.parametrize("name", FAMILIES)
def test_onnx_runtime_gives_the_same_codes(name, tmp_path, capsys):
    model = integers(name, "onnxruntime", split=False)
    ql.export_onnx(model, tmp_path / "net.onnx", integers=True)
    made = session(tmp_path / "net.onnx")
    codes = model.codes(pictures(3).numpy())
    given, expected = codes[model.layers[0].name], codes[model.output]
    found = made.run(None, {made.get_inputs()[0].name: to_uint8(given, model.layers[0].output)})[0]
    mismatches = int((from_uint8(found, model.layer(model.output).output) != expected).sum())
    ops = ", ".join(sorted({layer.op for layer in model.layers[1:]}))
    with capsys.disabled():
        print(f"\n  {name}, onnxruntime: {ops}: {expected.size} codes, {mismatches} mismatches", end="")
    assert mismatches == 0


@pytest.mark.parametrize("name", WITH_SILU)
def test_silu_as_a_table_is_refused_by_name(name, tmp_path):
    with pytest.raises(ExportError, match="no int8 operator for silu"):
        ql.export_litert(integers(name, "litert_reference", split=False), tmp_path / "net.tflite")
