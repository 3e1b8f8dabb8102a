"""What ``--json`` prints is JSON, also where a network loses nothing and its SQNR is infinite."""

import ast
import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import qlearn.cli
from qlearn.cli import main

CLI = Path(qlearn.cli.__file__).parent
OWN = ["--data", "pictures", "--labels", "labels.csv", "--checkpoint", "weights.safetensors"]
OWN += ["--preprocess", "size=4,mean=0,std=1"]
EXACT = {
    "quantize": ["--calibrator", "minmax", "--weights", "per_tensor", "float"],
    "compare": ["--calibrators", "minmax", "mean_std", "--weights", "per_tensor"],
    "analyze": ["--calibrator", "minmax", "--weights", "per_tensor", "--sensitivity"],
    "doctor": ["--calibrator", "minmax", "--weights", "per_tensor"],
    "repair": ["--calibrator", "minmax", "--weights", "per_tensor"],
    "mixed": ["--budget", "4bit", "--search", "greedy", "--weight-bits", "4", "8"],
    "info": [],
}


def strict(text):
    """Read JSON as other programs do: Python alone takes Infinity and NaN."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def exact(tmp_path, monkeypatch):
    """Every number is on its grid: black and white pictures, and a convolution with the weights 0 and 127."""
    (tmp_path / "pictures").mkdir()
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label"])
        for i in range(8):
            picture = np.zeros((4, 4, 3), np.uint8)
            picture[..., i % 2] = 255
            Image.fromarray(picture).save(tmp_path / "pictures" / f"{i}.png")
            writer.writerow([f"{i}.png", i % 2])
    (tmp_path / "exact_network.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    weight = torch.zeros(2, 3, 1, 1)
    weight[0, 0] = weight[1, 1] = 127.0
    from safetensors.torch import save_file

    save_file({"0.weight": weight, "0.bias": torch.zeros(2)}, tmp_path / "weights.safetensors")
    monkeypatch.chdir(tmp_path)
    yield "exact_network:build"
    sys.modules.pop("exact_network", None)


def printed(capsys, *arguments):
    code = main([*arguments, "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return strict(captured.out)


@pytest.mark.parametrize("command", EXACT)
def test_every_command_on_a_network_that_loses_nothing(command, exact, capsys):
    if command == "mixed":
        pytest.importorskip("scipy")
    own = OWN if command != "info" else OWN[4:]
    document = printed(capsys, command, exact, *own, *EXACT[command])
    if command == "quantize":
        assert [row["sqnr_db"] for row in document["rows"]] == [None] * 3
        assert [row["agreement"] for row in document["rows"][1:]] == [1.0, 1.0]
    if command == "analyze":
        assert {row["noise"] for row in document["layers"]["rows"]} == {0.0}
        assert {row["sqnr_db"] for row in document["layers"]["rows"]} == {None}
    if command == "repair":
        assert document["rungs"][1]["sqnr_db"] is None


@pytest.mark.parametrize("arguments", [["plugins"], ["plugins", "check", "affine"], ["info"], ["fetch"]])
def test_the_commands_without_a_network(arguments, capsys):
    assert printed(capsys, *arguments)


def test_only_one_module_writes_json():
    """Whoever calls json.dumps by itself may print Infinity again."""
    writers = {
        path.name
        for path in CLI.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"dump", "dumps", "to_json"}
    }
    assert writers == {"document.py"}
