"""Selection of calibration pictures: statistics by loops, greedy choices by loops, clusters, refusals."""

import numpy as np
import pytest
import torch
from networks import make, pictures

import qlearn as ql
from qlearn.errors import CalibrationError, GraphError
from qlearn.pipeline.calibrate import calibration_sites
from qlearn.pipeline.select import choose_pictures, picture_statistics, select_calibration_set, standardized

RULES = ["ranges", "clusters", "match"]


@pytest.fixture(scope="module")
def network():
    return ql.fold_batch_norm(ql.trace(make("depthwise"), pictures(1)))


@pytest.fixture(scope="module")
def table():
    return np.random.default_rng(3).normal(size=(30, 5, 4)) * [1, 2, 3, 4]


def test_statistics_are_those_of_each_picture_alone(network):
    x = pictures(5)
    found = picture_statistics(network, [x[:2], (x[2:], None)])
    fused = ql.fuse_activations(network)
    sites = calibration_sites(fused)
    assert found.shape == (5, len(sites), 4)
    for place in range(5):
        seen = {}
        fused(x[place : place + 1], lambda node, value, seen=seen: seen.update({node.name: value.double().numpy()}))
        for column, site in enumerate(sites):
            v = seen[site].ravel()
            expected = [sum(v) / len(v), np.sqrt(sum((v - v.mean()) ** 2) / len(v)), min(v), max(v)]
            np.testing.assert_allclose(found[place, column], expected, rtol=1e-5, atol=1e-5)


def scaled_by_loops(table):
    rows = table.reshape(len(table), -1)
    columns = [[(v - sum(c) / len(c)) / np.std(c) for v in c] for c in rows.T.tolist()]
    return np.array(columns).T


def test_ranges_by_loops(table):
    features = scaled_by_loops(table).reshape(table.shape)
    chosen = []
    for _ in range(6):
        gains = {}
        for candidate in set(range(len(table))) - set(chosen):
            group = [*chosen, candidate]
            gains[candidate] = sum(
                max(features[i, site, 3] for i in group) - min(features[i, site, 2] for i in group) for site in range(5)
            )
        chosen.append(max(gains, key=gains.get))
    assert choose_pictures(table, 6, by="ranges").tolist() == sorted(chosen)


def test_matching_by_loops(table):
    features = scaled_by_loops(table)
    chosen = []
    for _ in range(6):
        errors = {}
        for candidate in set(range(len(table))) - set(chosen):
            group = [*chosen, candidate]
            errors[candidate] = sum((sum(features[i, j] for i in group)) ** 2 for j in range(20))
        chosen.append(min(errors, key=errors.get))
    assert choose_pictures(table, 6, by="match").tolist() == sorted(chosen)


def test_clusters_take_one_picture_of_each_kind():
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(6), [50, 50, 50, 20, 3, 1])
    table = rng.normal(size=(6, 4, 4))[kinds] * 100 + rng.normal(size=(len(kinds), 4, 4))
    for seed in range(5):
        chosen = choose_pictures(table, 6, by="clusters", seed=seed)
        assert sorted(kinds[chosen].tolist()) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("by", RULES)
def test_choices_are_distinct_rising_and_repeatable(network, by):
    x = pictures(12)
    whole = select_calibration_set(network, [x], 5, by=by, seed=7)
    split = select_calibration_set(network, iter(x.split(5)), 5, by=by, seed=7)
    assert whole.dtype == np.int64
    assert whole.tolist() == sorted(set(whole.tolist())) == split.tolist()
    assert set(whole.tolist()) <= set(range(12))
    assert select_calibration_set(network, [x], 12, by=by).tolist() == list(range(12))


@pytest.mark.parametrize("by", RULES)
def test_equal_pictures_still_give_as_many_as_asked(by):
    assert len(set(choose_pictures(np.ones((9, 3, 4)), 4, by=by).tolist())) == 4
    assert len(set(choose_pictures(np.repeat(np.eye(4)[None, :2], 9, 0), 9, by=by).tolist())) == 9


def test_ranges_reach_farther_than_random_sets_do():
    network, data = ql.load("tiny_resnet")
    statistics = picture_statistics(ql.fold_batch_norm(network), data.calibration)
    features = standardized(statistics.reshape(len(statistics), -1)).reshape(statistics.shape)

    def reach(chosen):
        return float((features[chosen, :, 3].max(0) - features[chosen, :, 2].min(0)).sum())

    rng = np.random.default_rng(0)
    others = [reach(rng.choice(len(statistics), 8, replace=False)) for _ in range(200)]
    assert reach(choose_pictures(statistics, 8, by="ranges")) > max(others)


def test_what_cannot_be_chosen_is_refused(network):
    x = pictures(4)
    for message, pool, arguments in [
        ("cannot choose 5 of 4 pictures: ask for fewer", [x], {"count": 5}),
        ("count is a whole number", [x], {"count": 0}),
        ("count is a whole number", [x], {"count": 1.5}),
        ("select by 'ranges', 'clusters', 'match': got 'luck'", [x], {"count": 1, "by": "luck"}),
        ("already used up", iter([]), {"count": 1}),
    ]:
        with pytest.raises(CalibrationError, match=message):
            select_calibration_set(network, pool, **arguments)
    with pytest.raises(GraphError, match=r"use qlearn\.trace"):
        select_calibration_set(torch.nn.ReLU(), [x], 1)
    with pytest.raises(CalibrationError, match="NaN") as caught:
        select_calibration_set(network, [torch.full_like(x, float("nan"))], 1)
    assert "at site 'input'" in caught.value.__notes__[0]
