"""``qlearn analyze`` as a user meets it."""

import json

import pytest

import qlearn as ql
from qlearn.cli import main


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_prints_the_table_and_the_budget(capsys):
    code, out, err = run(capsys, "analyze", "tiny_resnet", "--weights", "per_tensor", "--images", 20)
    assert code == 0, err
    table, budget = out.split("\n\n")
    assert table.startswith("tiny_resnet on 20 pictures; RMSE/S of rounding alone: 0.289")
    assert table.splitlines()[2].split()[:2] == ["input", "input"]
    assert "input is the noise of all layers before" in budget
    assert "SQNR of the output in dB with only these quantized" in budget


def test_json_is_what_the_library_measures(capsys):
    arguments = ("--images", 20, "--calibration-images", 50, "--json", "--worst-first", "--alone", "--sensitivity")
    code, out, _ = run(capsys, "analyze", "tiny_resnet", *arguments)
    assert code == 0
    document = json.loads(out)
    net, data = ql.load("tiny_resnet")
    net, recipe = ql.fold_batch_norm(net), ql.Recipe()
    quantized = ql.quantize_model(net, recipe, ql.calibrate(net, data.calibration.subset(50), recipe))
    pictures = data.evaluation.subset(20)
    assert document == {
        "layers": ql.analyze(quantized, pictures).worst_first().to_dict(),
        "budget": ql.error_budget(quantized, pictures, inherited=False).to_dict(),
        "sensitivity": ql.sensitivity(quantized, pictures).to_dict(),
    }
    worst = [row["own_sqnr_db"] for row in document["layers"]["rows"] if row["own_sqnr_db"] is not None]
    assert worst == sorted(worst)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny_resnett"], "did you mean 'tiny_resnet'?"),
        (["tiny_resnet", "--weight-bits", "40"], "bits"),
        (["tiny_resnet", "--calibrator", "magic"], "no calibrator 'magic'"),
        (["tiny_resnet", "--images", "0"], "cannot choose 0"),
    ],
)
def test_wrong_calls_say_what_is_wrong(capsys, arguments, message):
    code, _, err = run(capsys, "analyze", *arguments)
    assert code == 1
    assert message in err


def test_a_saved_model_cannot_be_analysed(capsys, tmp_path):
    net = ql.fold_batch_norm(ql.load("tiny_resnet")[0])
    recipe = ql.Recipe()
    calibrated = ql.calibrate(net, ql.load("tiny_resnet")[1].calibration.subset(20), recipe)
    ql.quantize_model(net, recipe, calibrated).to_integer().save(tmp_path / "net.qlearn")
    code, _, err = run(capsys, "analyze", tmp_path / "net.qlearn")
    assert code == 1
    assert "analyze needs the float network" in err
