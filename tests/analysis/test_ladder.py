"""The repair ladder: rungs, what is done once, what is refused, and the numbers against evaluating by hand."""

import json

import pytest
import torch
from torch import nn

import qlearn as ql
from qlearn.analysis import ladder as module
from qlearn.analysis.ladder import PER_CHANNEL, PER_TENSOR, STEPS, repair_ladder
from qlearn.cli import main
from qlearn.cli.repair import STEP_NAMES
from qlearn.errors import DataError

COARSE = ql.TensorRecipe(scheme="symmetric_restricted", bits=5)
RECIPES = {"per_tensor": ql.Recipe(weights=COARSE)}


@pytest.fixture(scope="module")
def network():
    network, data = ql.load("tiny_mobilenet")
    return ql.fold_batch_norm(network), data.calibration.subset(40), data.evaluation.subset(150)


def test_rungs_are_what_evaluating_by_hand_gives(network):
    model, calibration, evaluation = network
    steps = ("dead inputs zeroed", "equalized", "bias corrected")
    ladder, last = repair_ladder(model, RECIPES, calibration=calibration, evaluation=evaluation,
                                 rungs={"per_tensor": [(), steps]})  # fmt: skip
    recipe = RECIPES["per_tensor"]
    mended = ql.cross_layer_equalize(ql.zero_dead_inputs(model))
    table = ql.calibrate(mended, calibration, recipe)
    by_hand = ql.quantize_model(ql.correct_bias(mended, recipe, table, calibration), recipe, table)
    x = torch.cat([images for images, _ in evaluation])
    assert torch.equal(last.quantized(x), by_hand(x))
    expected = ql.evaluate(by_hand, evaluation, reference=model)
    floating, as_is, repaired = ladder.rungs
    assert ladder.images == (40, 150)
    assert (repaired.accuracy, repaired.agreement) == (expected.accuracy, expected.agreement)
    assert repaired.sqnr_db == pytest.approx(expected.sqnr_db)
    assert floating.accuracy == ql.evaluate(model, evaluation).accuracy
    assert repaired.against_float.difference == pytest.approx(repaired.accuracy - floating.accuracy)
    assert as_is.steps == ()
    assert "dead inputs zeroed, equalized, bias corrected" in str(ladder)
    document = json.loads(json.dumps(ladder.to_dict()))
    assert [rung["name"] for rung in document["rungs"]] == [rung.name for rung in ladder.rungs]
    assert document["rungs"][0]["sqnr_db"] is None


def test_a_step_that_two_rungs_share_is_done_once(network, monkeypatch):
    model, calibration, evaluation = network
    done = []
    original = dict(STEPS)
    monkeypatch.setattr(module, "STEPS", {
        name: (lambda stage, pictures, name=name: (done.append(name), original[name](stage, pictures))[1])
        for name in original
    })  # fmt: skip
    rungs = [
        ("dead inputs zeroed",),
        ("dead inputs zeroed", "equalized"),
        ("dead inputs zeroed", "equalized", "bias absorbed"),
    ]
    repair_ladder(model, RECIPES, calibration=calibration, evaluation=evaluation, rungs={"per_tensor": rungs})
    assert done == ["dead inputs zeroed", "equalized", "bias absorbed"]


def test_every_rung_is_made_of_steps():
    assert {step for path in (*PER_TENSOR, *PER_CHANNEL) for step in path} <= set(STEPS)


def test_what_cannot_be_measured_is_refused(network):
    model, calibration, evaluation = network
    short = {"per_tensor": [()]}
    cases = {
        "no step 'magic'": (RECIPES, evaluation, {"per_tensor": [("magic",)]}),
        "at least one recipe": ({}, evaluation, short),
        "needs labels": (RECIPES, [x for x, _ in evaluation], short),
        "no pictures": (RECIPES, iter([]), short),
        "labels of shape": (RECIPES, [(x, labels[:1]) for x, labels in evaluation], short),
    }
    for message, (recipes, pictures, rungs) in cases.items():
        with pytest.raises(DataError, match=message):
            repair_ladder(model, recipes, calibration=calibration, evaluation=pictures, rungs=rungs)


def test_the_command_prints_json_and_saves_the_best_rung(tmp_path, capsys):
    path = tmp_path / "mended.qlearn"
    arguments = ["repair", "tiny_mobilenet", "--weights", "per_channel", "--calibration-images", "20", "--images", "50"]
    assert main([*arguments, "--json", "--policy", "float32", "--output", str(path)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["network"] == "tiny_mobilenet"
    assert document["images"] == {"repair": 20, "evaluation": 50}
    assert [rung["steps"] for rung in document["rungs"][1:]] == [list(path) for path in PER_CHANNEL]
    assert {"date", "command", "versions"} <= set(document)
    assert document["not_equalized"] == []
    best = max(document["rungs"][1:], key=lambda rung: rung["sqnr_db"])
    assert document["best"] == best
    _, data = ql.load("tiny_mobilenet")
    floating = ql.load("tiny_mobilenet")[0]
    saved = ql.evaluate(ql.IntegerModel.load(path), data.evaluation.subset(50), reference=floating)
    assert saved.sqnr_db == pytest.approx(best["sqnr_db"], abs=0.01)
    assert saved.accuracy == pytest.approx(best["accuracy"], abs=0.021)
    others = [rung["sqnr_db"] for rung in document["rungs"][1:] if rung["steps"] != best["steps"]]
    assert best["sqnr_db"] - max(others) > 0.05, "or the test could not tell which rung was saved"


def test_the_best_rung_needs_no_labels(network):
    """The ladder with every label wrong keeps the same rung."""
    model, calibration, evaluation = network
    rungs = {"per_tensor": [("dead inputs zeroed", "equalized"), ("bias corrected",), ()]}
    wrong = [(images, (labels + 1) % 10) for images, labels in evaluation]
    first, best = repair_ladder(
        model, RECIPES, calibration=calibration, evaluation=evaluation, rungs=rungs, keep="best"
    )
    second, _ = repair_ladder(model, RECIPES, calibration=calibration, evaluation=wrong, rungs=rungs, keep="best")
    assert first.best.steps == second.best.steps != ()
    assert first.best.sqnr_db == max(rung.sqnr_db for rung in first.rungs[1:])
    x = torch.cat([images for images, _ in evaluation])
    assert ql.sqnr_db(model(x).numpy(), best.quantized(x).numpy()) == pytest.approx(first.best.sqnr_db)
    with pytest.raises(DataError, match="'last' or 'best'"):
        repair_ladder(model, RECIPES, calibration=calibration, evaluation=evaluation, keep="first")


def test_help_lists_the_steps(capsys):
    assert tuple(STEPS) == STEP_NAMES
    with pytest.raises(SystemExit):
        main(["repair", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(step in text for step in STEPS)
    assert "highest SQNR" in text


def test_layers_that_equalization_leaves_alone_are_named():
    layers = nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)
    model = ql.trace(nn.Sequential(*layers).eval().requires_grad_(False), torch.zeros(1, 3, 8, 8))
    x = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pictures = [(x, torch.zeros(16, dtype=torch.int64))]
    rungs = {"per_tensor": [("equalized",)]}
    ladder, _ = repair_ladder(model, RECIPES, calibration=pictures, evaluation=pictures, rungs=rungs)
    assert ladder.not_equalized == ("0",)
    assert "equalizing leaves the outputs of 0 as they are" in str(ladder)
    changed = ql.cross_layer_equalize(model)
    assert torch.equal(changed.node("0").params["weight"], model.node("0").params["weight"])
    assert not torch.equal(changed.node("2").params["weight"], model.node("2").params["weight"])
    without, _ = repair_ladder(model, RECIPES, calibration=pictures, evaluation=pictures, rungs={"per_tensor": [()]})
    assert without.not_equalized == ()


def test_the_command_refuses_early(tmp_path, capsys):
    assert main(["repair", "tiny_mobilenet", "--output", str(tmp_path / "no" / "x.qlearn")]) == 1
    assert "its folder does not exist" in capsys.readouterr().err
    assert main(["repair", "tiny_mobilenet", "--on", "selection"]) == 1
    assert "no pictures to choose on" in capsys.readouterr().err
