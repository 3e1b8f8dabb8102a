"""The command line as a user meets it: output, JSON, files, and errors that name what, where and the remedy."""

import csv
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from qlearn import __version__
from qlearn.cli import main

SIZE = "size=8,mean=0.5,std=0.25"


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def pictures(tmp_path):
    """A folder of twelve pictures with labels, two classes that differ in colour."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label"])
        for i in range(12):
            picture = rng.integers(0, 100, (10, 9, 3), dtype=np.uint8)
            picture[..., 0] += 150 * (i % 2)
            Image.fromarray(picture).save(folder / f"{i:02}.png")
            writer.writerow([f"{i:02}.png", i % 2])
    return folder


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A user's own module beside them, and a checkpoint that makes red pictures class 1."""
    (tmp_path / "own_network.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "def broken():\n"
        "    return 3\n"
    )
    weights = {"0.weight": torch.zeros(2, 3, 1, 1), "0.bias": torch.tensor([1.0, 0.5])}
    weights["0.weight"][1, 0] = 1.0
    from safetensors.torch import save_file

    save_file(weights, tmp_path / "weights.safetensors")
    monkeypatch.chdir(tmp_path)
    yield "own_network:build"
    sys.modules.pop("own_network", None)


def test_demo_prints_the_three_rows(capsys):
    code, out, err = run(capsys, "quantize", "tiny_resnet", "--weights", "per_tensor", "per_channel", "--images", 100)
    assert (code, err) == (0, "")
    rows = out.splitlines()
    assert [row.split()[0] for row in rows[1:]] == ["float", "W8A8", "W8A8"]
    assert "per_tensor" in rows[2]
    assert "per_channel" in rows[3]


def test_an_engineers_own_network_and_pictures(capsys, module, pictures, tmp_path):
    arguments = [
        "quantize",
        module,
        "--checkpoint",
        "weights.safetensors",
        "--data",
        pictures,
        "--labels",
        "labels.csv",
    ]
    code, out, _ = run(capsys, *arguments, "--preprocess", SIZE, "--output", "own.qlearn", "--json")
    assert code == 0
    document = json.loads(out)
    assert [row["name"] for row in document["rows"]] == ["float", "W8A8 per_channel"]
    assert [row["accuracy"] for row in document["rows"]] == [1.0, 1.0]
    assert document["images"] == {"calibration": 6, "evaluation": 6}
    assert document["rows"][0]["images"] == 6

    code, out, err = run(capsys, *arguments, "--preprocess", SIZE)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "calibrated on 6 pictures, evaluated on 6 others"
    rows = (tmp_path / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join(rows[:-1]))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, out, err = run(capsys, *arguments, "--preprocess", SIZE)
    assert code == 0
    assert err.startswith("qlearn: warning: labels.csv has no row for 1 of the pictures in ")
    assert err.endswith("pictures; left out: 11.png\n")
    assert out.splitlines()[-1] == "calibrated on 5 pictures, evaluated on 6 others"
    (tmp_path / "labels.csv").write_text("\n".join(rows))

    code, out, _ = run(capsys, "quantize", "own.qlearn", "--data", pictures, "--labels", "labels.csv")
    assert code == 0, "the saved file brings its own preprocessing"
    assert "100.0%" in out

    code, out, _ = run(capsys, "info", "own.qlearn", "--json")
    described = json.loads(out)
    assert (described["kind"], described["policy"], described["input_shape"]) == ("integer", "fixed", [3, 8, 8])
    assert described["preprocess"]["mean"] == [0.5, 0.5, 0.5]
    assert [layer["op"] for layer in described["layers"]] == ["input", "conv2d", "global_avg_pool", "flatten"]


def test_nobody_reads_on():
    """As in `qlearn plugins | true`: no traceback."""
    words = [sys.executable, "-m", "qlearn", "plugins"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
        command.stdout.close()
        assert command.stderr.read() == ""
    assert command.returncode == 1


PLUGIN_THAT_FAILS = """
import sys
import qlearn as ql
from qlearn.calibrators.minmax import MinMaxCalibrator
from qlearn.cli import main

class Failing(MinMaxCalibrator):
    def compute_range(self, scheme):
        return 1 + "k"

ql.register(ql.CalibratorSpec(name="failing", factory=Failing, summary="fails"))
sys.exit(main(["compare", "tiny_resnet", "--images", "50", "--calibrators", "minmax", "failing"]))
"""


@pytest.mark.parametrize("traceback", [False, True])
def test_a_plugin_that_fails_is_named_without_a_traceback(traceback, monkeypatch):
    if traceback:
        monkeypatch.setenv("QLEARN_TRACEBACK", "1")
    done = subprocess.run([sys.executable, "-c", PLUGIN_THAT_FAILS], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "unsupported operand" in done.stderr
    assert "calibrator 'failing'" in done.stderr
    assert ("Traceback" in done.stderr) is traceback
    assert ("QLEARN_TRACEBACK=1" in done.stderr) is not traceback


def test_every_option_of_the_recipe_is_used(capsys):
    base = ["quantize", "tiny_resnet", "--images", 60, "--json"]
    _, plain, _ = run(capsys, *base)
    for option in (
        ["--weight-bits", 4],
        ["--weight-scheme", "affine"],
        ["--activation-bits", 4],
        ["--activation-scheme", "symmetric"],
        ["--calibrator", "percentile", "--set", "percent=99.0"],
        ["--policy", "float32"],
        ["--weights", "float"],
    ):
        code, out, _ = run(capsys, *base, *option)
        assert code == 0
        assert json.loads(out)["rows"][1]["sqnr_db"] != json.loads(plain)["rows"][1]["sqnr_db"], option


def test_info_lists_the_zoo_and_describes_a_network(capsys):
    code, out, _ = run(capsys, "info")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()][:2] == ["tiny_resnet", "tiny_mobilenet"]
    assert {record["name"] for record in json.loads(run(capsys, "info", "--json")[1])} >= {"resnet20", "resnet56"}
    _, out, _ = run(capsys, "info", "tiny_mobilenet")
    assert "batch_norm" in out
    assert json.loads(run(capsys, "info", "tiny_resnet", "--json")[1])["kind"] == "float"


def test_plugins(capsys):
    code, out, _ = run(capsys, "plugins")
    assert code == 0
    assert out.splitlines()[0].split() == ["KIND", "NAME", "PROVIDER", "VERSION", "STATUS", "SUMMARY"]
    names = {row["name"] for row in json.loads(run(capsys, "plugins", "--builtin", "--json")[1])["plugins"]}
    calibrators = {"minmax", "moving_average", "mean_std", "percentile", "entropy", "mse"}
    assert names == calibrators | {"affine", "symmetric", "symmetric_restricted", "reference", "torch"}
    assert run(capsys, "plugins", "--traceback", "nobody")[0] == 1


def test_fetch_lists_what_can_be_fetched(capsys):
    code, out, _ = run(capsys, "fetch", "--json")
    assert code == 0
    assert {record["name"] for record in json.loads(out)} == {"mobilenet_v1_0.25", "resnet20", "resnet56"}
    assert "MB" in run(capsys, "fetch")[1]


def test_compare(capsys):
    wanted = ["minmax", "percentile:percent=99,of=tails", "mse"]
    command = ["compare", "tiny_resnet", "--images", "40", "--calibrators", *wanted]
    code, out, err = run(capsys, *command)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "tiny_resnet, calibrated on 256 pictures"
    assert [line.split()[0] for line in lines[2:]] == ["float", *wanted]
    found = json.loads(run(capsys, *command, "--json")[1])
    assert found["images"] == {"calibration": 256, "selection": 0, "evaluation": 40}
    assert [row["calibrator"] for row in found["rows"]] == ["float", *wanted]
    assert found["rows"][2]["against_baseline"]["low"] < 0.0 < found["rows"][2]["against_baseline"]["high"]


def test_compare_on_own_pictures_needs_labels(capsys, module, pictures):
    own = ("compare", module, "--checkpoint", "weights.safetensors", "--preprocess", SIZE, "--data", pictures)
    code, out, err = run(capsys, *own, "--labels", "labels.csv", "--calibrators", "minmax", "--weights", "float")
    assert code == 0
    assert "100.0%" in out
    code, _, err = run(capsys, *own)
    assert code == 1
    assert "--labels CSV" in err


ERRORS = {
    "compare unknown": (["compare", "tiny_resnet", "--calibrators", "minmaks"], "Did you mean 'minmax'"),
    "compare setting": (["compare", "tiny_resnet", "--calibrators", "mse:percent=3"], "unexpected keyword"),
    "compare twice": (["compare", "tiny_resnet", "--calibrators", "mse", "mse"], "names one twice"),
    "compare bad setting": (["compare", "tiny_resnet", "--calibrators", "percentile:percent=1,of"], "KEY=VALUE"),
    "unknown network": (["quantize", "tiny_resnett"], "did you mean 'tiny_resnet'"),
    "missing file": (["info", "nowhere.qlearn"], "nowhere.qlearn: cannot be read"),
    "unknown calibrator": (["quantize", "tiny_resnet", "--calibrator", "minmaks"], "minmax"),
    "unknown scheme": (["quantize", "tiny_resnet", "--activation-scheme", "afine"], "affine"),
    "one bit": (["quantize", "tiny_resnet", "--weight-bits", "1"], "2 to 16"),
    "bad setting": (["quantize", "tiny_resnet", "--set", "percent"], "KEY=VALUE"),
    "unknown setting": (["quantize", "tiny_resnet", "--set", "percent=3"], "calibrator 'mse' of qlearn"),
    "too many pictures": (["quantize", "tiny_resnet", "--images", "99999"], "99999"),
    "labels alone": (["quantize", "tiny_resnet", "--labels", "x.csv"], "--data FOLDER"),
    "no module": (["info", "no_such_module:build", "--preprocess", SIZE], "cannot be imported"),
    "no size": (["info", "torch.nn:Identity"], "--preprocess size"),
    "bad size": (["info", "torch.nn:Identity", "--preprocess", "sise=3"], "size=224"),
    "no network": (["info", "json:dumps", "--preprocess", SIZE], "json:dumps"),
    "saving float weights": (
        ["quantize", "tiny_resnet", "--images", "10", "--weights", "float", "--output", "x.qlearn"],
        "--output saves an integer model",
    ),
    "unknown to fetch": (["fetch", "vgg"], "nothing to fetch"),
    "not the suffix": (["info", "weights.safetensors"], "does not end in .qlearn"),
    "damaged checkpoint": (
        ["info", "own_network:build", "--preprocess", SIZE, "--checkpoint", "own_network.py"],
        "readable",
    ),
    "missing checkpoint": (["info", "own_network:build", "--preprocess", SIZE, "--checkpoint", "none"], "no such file"),
    "no module returned": (["info", "own_network:broken", "--preprocess", SIZE], "nn.Module"),
    "no data": (["quantize", "own_network:build", "--preprocess", SIZE], "--data FOLDER"),
    "preprocessing of its own": (["quantize", "tiny_resnet", "--preprocess", SIZE], "leave --preprocess out"),
    "output in no folder": (["quantize", "tiny_resnet", "--output", "nope/x.qlearn"], "its folder does not exist"),
    "missing folder": (["quantize", "tiny_resnet", "--data", "none"], "none"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_ours_and_name_the_remedy(capsys, case, module):
    arguments, message = ERRORS[case]
    code, out, err = run(capsys, *arguments)
    assert code == 1
    assert out == ""
    assert err.startswith("qlearn: error: ")
    assert message in err
    assert "Traceback" not in err


def test_wrong_calls_exit_with_2(capsys):
    for arguments in ([], ["quantise"], ["quantize", "x", "--weights", "per_row"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2


def test_python_m_qlearn_is_the_command():
    result = subprocess.run([sys.executable, "-m", "qlearn", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"qlearn {__version__}\n"
