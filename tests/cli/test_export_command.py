"""``qlearn export``: the extension decides, and what cannot be written is named."""

import json
import sys

import pytest
from integer_networks import everything

import qlearn as ql
from qlearn.cli import main


@pytest.fixture
def saved(tmp_path):
    everything(policy="fixed").save(tmp_path / "net.qlearn")
    return tmp_path / "net.qlearn"


def run(capsys, *arguments):
    code = main([str(argument) for argument in ("export", *arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(("kind", "policy", "needs"), [
    ("onnx", "onnxruntime", "onnx"), ("tflite", "xnnpack", "ai_edge_litert")])  # fmt: skip
def test_the_extension_decides(kind, policy, needs, saved, tmp_path, capsys):
    pytest.importorskip(needs)
    target = tmp_path / f"net.{kind}"
    code, out, err = run(capsys, saved, target)
    assert (code, err) == (0, "")
    assert f"it computes the codes of policy {policy}" in out
    assert "the saved model has policy fixed" in out
    code, out, _ = run(capsys, saved, target, "--json")
    record = json.loads(out)
    assert (record["file"], record["policy"], record["saved_policy"]) == (str(target), policy, "fixed")
    assert record["bytes"] == target.stat().st_size
    assert record["layers"] == len(everything().layers)


def test_a_model_of_that_profile_keeps_it(saved, tmp_path, capsys):
    pytest.importorskip("onnx")
    ql.IntegerModel.load(saved).with_policy("onnxruntime").save(saved)
    code, out, _ = run(capsys, saved, tmp_path / "net.onnx", "--integers")
    assert code == 0
    assert "saved model has" not in out


@pytest.mark.parametrize(("arguments", "message"), [
    (["net.qlearn", "net.xml"], "the extension decides what is written: .onnx or .tflite"),
    (["net.qlearn", "net.tflite", "--integers"], "--integers is for .onnx"),
    (["tiny_resnet", "net.onnx"], "qlearn quantize tiny_resnet --output net.qlearn makes one"),
    (["missing.qlearn", "net.onnx"], "cannot be read"),
])  # fmt: skip
def test_errors_say_what_to_do(arguments, message, saved, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "")
    assert message in err


def test_a_folder_that_does_not_exist(saved, tmp_path, capsys):
    pytest.importorskip("onnx")
    code, _, err = run(capsys, saved, tmp_path / "nowhere" / "net.onnx")
    assert code == 1
    assert "net.onnx: cannot be written (No such file or directory)" in err


def test_without_the_extra(saved, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, _, err = run(capsys, saved, tmp_path / "net.onnx")
    assert code == 1
    assert "pip install 'qlearn[onnx]'" in err
