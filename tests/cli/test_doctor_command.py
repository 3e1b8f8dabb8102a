"""``qlearn doctor`` as a user meets it."""

import json

import pytest
from broken_networks import saturated_alone, start

import qlearn as ql
from qlearn.cli import main


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_no_finding_is_said_clearly(capsys):
    code, out, err = run(capsys, "doctor", "tiny_resnet", "--images", 32, "--strict")
    assert code == 0, err
    assert out.splitlines()[0].startswith("tiny_resnet on 32 pictures: agreement with float")
    assert out.splitlines()[1].startswith("no finding (")


def test_findings_come_with_what_mends_them(capsys, tmp_path):
    arguments = ("doctor", "tiny_mobilenet", "--weight-bits", 2, "--images", 32, "--report", tmp_path / "report.html")
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert "error: All layers have 2 bits" in out
    assert "- 8 bits for all layers: +" in out
    assert "All layers have 2 bits" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert run(capsys, *arguments, "--strict", "--quick")[0] == 1


def test_json_is_what_the_library_finds(capsys):
    code, out, _ = run(capsys, "doctor", "tiny_resnet", "--images", 20, "--calibration-images", 50, "--json")
    assert code == 0
    net, data = ql.load("tiny_resnet")
    expected = ql.diagnose(net, data.evaluation, calibration=data.calibration.subset(50), images=20)
    assert json.loads(out) == json.loads(json.dumps(expected.to_dict()))


def test_a_saved_model_with_and_without_its_float_network(capsys, tmp_path):
    _, _, folded, table = start("tiny_resnet")
    ql.quantize_model(folded, ql.Recipe(), table).to_integer().save(tmp_path / "net.qlearn")
    code, out, err = run(capsys, "doctor", tmp_path / "net.qlearn", "--float", "tiny_resnet", "--images", 20)
    assert code == 0, err
    assert "no finding" in out
    assert "no float network" not in out
    code, _, err = run(capsys, "doctor", tmp_path / "net.qlearn")
    assert code == 1
    assert "brings no pictures" in err
    broken = saturated_alone("tiny_mobilenet").model
    broken.save(tmp_path / "broken.qlearn")
    code, _, err = run(capsys, "doctor", tmp_path / "broken.qlearn", "--float", "tiny_resnet")
    assert code == 1
    assert "other layers than the integer model" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny_resnett"], "did you mean 'tiny_resnet'?"),
        (["tiny_resnet", "--images", "0"], "at least 1"),
        (["tiny_resnet", "--report", "nowhere/report.html"], "its folder does not exist"),
        (["tiny_resnet", "--weight-bits", "40"], "bits"),
    ],
)
def test_wrong_calls_say_what_is_wrong(capsys, arguments, message):
    code, _, err = run(capsys, "doctor", *arguments)
    assert code == 1
    assert message in err
