"""The paired interval against simulation, and the comparison against networks quantized one by one."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import make, pictures

import qlearn as ql
from qlearn.analysis.compare import compare_calibrators, paired_difference
from qlearn.errors import DataError


@pytest.mark.parametrize("cells", [(0.05, 0.02), (0.01, 0.01), (0.2, 0.1), (0.01, 0.04)])
@pytest.mark.parametrize("images", [100, 650])
def test_the_interval_holds_the_truth_as_often_as_it_says(cells, images):
    only_first, only_second = cells
    rng = np.random.default_rng(0)
    inside, rounds = 0, 2000
    for _ in range(rounds):
        u = rng.random(images)
        first, second = u < only_first, (u >= only_first) & (u < only_first + only_second)
        found = paired_difference(first, second)
        inside += found.low <= only_first - only_second <= found.high
    assert 0.93 <= inside / rounds <= 1.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_swapping_the_two_changes_the_sign(pairs):
    first, second = np.array(pairs).T
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert there.difference == -back.difference
    assert (there.low, there.high) == (-back.high, -back.low)
    assert there.difference == pytest.approx(first.mean() - second.mean())
    assert not paired_difference(first, first).told_apart


def test_the_text_says_when_two_cannot_be_told_apart():
    some = np.arange(100) < 50
    assert str(paired_difference(some, some)) == "+0.0 [-1.9, +1.9] cannot be told apart"
    assert "cannot" not in str(paired_difference(np.ones(100, bool), some))


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((0,), (0,)), ((2, 2), (2, 2))])
def test_wrong_shapes_are_refused(shapes):
    with pytest.raises(DataError, match="one shape"):
        paired_difference(*(np.zeros(shape, bool) for shape in shapes))


CHOICES = {"minmax": ("minmax", {}), "half": ("percentile", {"percent": 50.0}), "mse": ("mse", {})}


@pytest.fixture(scope="module")
def network():
    return ql.fold_batch_norm(ql.trace(make("residual"), pictures(2)))


@pytest.fixture(scope="module")
def batches(network):
    x = pictures(64, seed=5)
    return [(part, network(part).argmax(1)) for part in x.split(16)]  # labels: what float says


def test_each_row_is_what_quantizing_alone_gives(network, batches):
    recipe = ql.Recipe(activations=ql.TensorRecipe(scheme="affine", bits=4))
    found = compare_calibrators(
        network, recipe, CHOICES, calibration=batches, evaluation=batches, selection=batches[:2]
    )
    assert [row.name for row in found.rows] == ["float", *CHOICES]
    assert found.images == (64, 32, 64)
    assert found.rows[0].evaluation == 1.0
    for row, (name, params) in zip(found.rows[1:], CHOICES.values(), strict=True):
        alone = ql.Recipe(
            activations=ql.TensorRecipe(scheme="affine", bits=4, calibrator=name, calibrator_params=params)
        )
        quantized = ql.quantize_model(network, alone, ql.calibrate(network, batches, alone))
        assert row.evaluation == ql.evaluate(quantized, batches).accuracy
        assert row.selection == ql.evaluate(quantized, batches[:2]).accuracy
    assert found.chosen.selection == max(row.selection for row in found.rows[1:])
    assert json.loads(json.dumps(found.to_dict()))["chosen"] == found.chosen.name
    assert str(found).splitlines()[-1].startswith("best on the 32: ")


def test_without_pictures_to_choose_on_nothing_is_chosen(network, batches):
    found = compare_calibrators(network, ql.Recipe(), CHOICES, calibration=batches, evaluation=batches)
    assert found.chosen is None
    assert "chosen" not in str(found)


def test_what_is_missing_is_named(network, batches):
    unlabelled = [torch.zeros(2, 3, 15, 15)]
    with pytest.raises(DataError, match="needs labels"):
        compare_calibrators(network, ql.Recipe(), CHOICES, calibration=batches, evaluation=unlabelled)
    with pytest.raises(DataError, match="no pictures"):
        compare_calibrators(network, ql.Recipe(), CHOICES, calibration=batches, evaluation=[])
    with pytest.raises(DataError, match="at least one calibrator"):
        compare_calibrators(network, ql.Recipe(), {}, calibration=batches, evaluation=batches)
