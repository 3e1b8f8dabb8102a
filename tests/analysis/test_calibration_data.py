"""Comparing calibration sets against evaluating by hand; intervals against SciPy; the curve against loops."""

import json

import numpy as np
import pytest

import qlearn as ql
from qlearn.analysis.calibration_data import mean_interval
from qlearn.errors import DataError

RECIPES = {
    f"{bits} bits": ql.Recipe(activations=ql.TensorRecipe(scheme="affine", bits=bits, calibrator="minmax"))
    for bits in (8, 4)
}


@pytest.fixture(scope="module")
def network():
    network, data = ql.load("tiny_mobilenet")
    return ql.fold_batch_norm(network), data.calibration, data.evaluation.subset(20)


@pytest.mark.parametrize("count", [2, 3, 10, 30, 31, 200])
def test_intervals_are_student_s(count):
    t = pytest.importorskip("scipy.stats").t
    values = np.random.default_rng(count).normal(size=count)
    mean, low, high = mean_interval(values.tolist())
    expected = t.interval(0.95, count - 1, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(count))
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx(expected, rel=2e-3, abs=2e-4)


def test_one_measurement_has_no_width():
    assert mean_interval([2.5]) == (2.5, 2.5, 2.5)
    with pytest.raises(DataError, match="no measurements"):
        mean_interval([])


def test_the_curve_is_what_loops_give(network):
    model, pool, evaluation = network
    curve = ql.calibration_size_curve(model, RECIPES, pool, evaluation, sizes=(1, 4), draws=2, seed=5)
    assert [(row.recipe, row.size) for row in curve.rows] == [(name, n) for name in RECIPES for n in (1, 4)]
    for row in curve.rows:
        for draw in range(2):
            recipe = RECIPES[row.recipe]
            table = ql.calibrate(model, pool.subset(row.size, seed=5 + draw), recipe)
            expected = ql.evaluate(ql.quantize_model(model, recipe, table), evaluation, reference=model)
            assert row.accuracy[draw] == expected.accuracy
            assert row.sqnr_db[draw] == pytest.approx(expected.sqnr_db, abs=1e-3)
    series = curve.series()
    mean, low, high = series["4 bits"]
    assert mean == [np.mean(row.sqnr_db) for row in curve.rows[2:]]
    assert all(a < b < c for a, b, c in zip(low, mean, high, strict=True))
    assert len(curve.series("accuracy")["8 bits"][0]) == 2
    assert json.loads(json.dumps(curve.to_dict()))["rows"][0]["label"] == "1 pictures"
    assert "4 pictures" in str(curve)


def test_sets_may_be_batches_or_functions(network):
    model, pool, evaluation = network
    sets = {
        "pictures": [list(pool.subset(8))],
        "none": [lambda model, recipes: [ql.calibrate_without_pictures(model, recipe) for recipe in recipes]],
    }
    found = ql.compare_calibration_sets(model, {"8 bits": RECIPES["8 bits"]}, sets, evaluation)
    assert [(row.label, row.size, len(row.sqnr_db)) for row in found.rows] == [("pictures", 8, 1), ("none", None, 1)]
    table = ql.calibrate_without_pictures(model, RECIPES["8 bits"])
    by_hand = ql.evaluate(ql.quantize_model(model, RECIPES["8 bits"], table), evaluation, reference=model)
    assert found.rows[1].sqnr_db[0] == pytest.approx(by_hand.sqnr_db, abs=1e-3)
    assert found.float_accuracy == ql.evaluate(model, evaluation).accuracy
    unlabelled = ql.compare_calibration_sets(model, {"8": RECIPES["8 bits"]}, sets, [x for x, _ in evaluation])
    assert unlabelled.rows[0].accuracy == ()
    assert "nan" in str(unlabelled)


def test_what_cannot_be_compared_is_refused(network):
    model, pool, evaluation = network
    for sets in ({}, {"a": []}):
        with pytest.raises(DataError, match="at least one calibration set"):
            ql.compare_calibration_sets(model, RECIPES, sets, evaluation)
    with pytest.raises(DataError, match="at least one recipe"):
        ql.compare_calibration_sets(model, {}, {"a": [pool]}, evaluation)
    for wrong in ({"sizes": (1, 257)}, {"sizes": (0,)}, {"sizes": ()}, {"draws": 0}):
        with pytest.raises(DataError):
            ql.calibration_size_curve(model, RECIPES, pool, evaluation, **wrong)
    with pytest.raises(DataError, match="drawn from a Dataset"):
        ql.calibration_size_curve(model, RECIPES, list(pool), evaluation, sizes=(1,))
