"""The repair ladder: rungs, what is done once, what is refused, and the numbers against evaluating by hand."""

import json

import numpy as np
import pytest
import torch

import qlearn as ql
from qlearn.analysis import ladder as module
from qlearn.analysis.ladder import PER_CHANNEL, PER_TENSOR, STEPS, repair_ladder
from qlearn.cli import main
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


def test_the_command_prints_json_and_saves_the_last_rung(tmp_path, capsys):
    path = tmp_path / "mended.qlearn"
    arguments = ["repair", "tiny_mobilenet", "--weights", "per_channel", "--calibration-images", "20", "--images", "50"]
    assert main([*arguments, "--json", "--output", str(path)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["network"] == "tiny_mobilenet"
    assert document["images"] == {"repair": 20, "evaluation": 50}
    assert [rung["steps"] for rung in document["rungs"][1:]] == [list(path) for path in PER_CHANNEL]
    assert {"date", "command", "versions"} <= set(document)
    saved = ql.IntegerModel.load(path)
    _, data = ql.load("tiny_mobilenet")
    x, labels = (torch.cat(parts) for parts in zip(*data.evaluation.subset(50), strict=True))
    found = float((np.asarray(saved(x.numpy())).argmax(1) == labels.numpy()).mean())
    assert abs(found - document["rungs"][-1]["accuracy"]) <= 0.02


def test_the_command_refuses_early(tmp_path, capsys):
    assert main(["repair", "tiny_mobilenet", "--output", str(tmp_path / "no" / "x.qlearn")]) == 1
    assert "its folder does not exist" in capsys.readouterr().err
    assert main(["repair", "tiny_mobilenet", "--on", "selection"]) == 1
    assert "no pictures to choose on" in capsys.readouterr().err
