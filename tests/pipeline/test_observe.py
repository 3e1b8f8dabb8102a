"""One pass for many recipes, and the same ranges from many workers."""

import math

import pytest
import torch
from networks import make, pictures

import qlearn as ql
from qlearn.errors import CalibrationError, GraphError

NAMES = ["minmax", "mean_std", "percentile", "entropy", "mse"]
CHOICES = [{"calibrator": name} for name in NAMES] + [
    {"calibrator": "percentile", "calibrator_params": {"percent": 99.0, "of": "tails"}},
    {"calibrator": "mse", "bits": 4},
    {"calibrator": "entropy", "calibrator_params": {"bins": 256}},
]


def recipes(choices=CHOICES):
    return [ql.Recipe(activations=ql.TensorRecipe(scheme="affine", **choice)) for choice in choices]


@pytest.fixture(scope="module")
def network():
    return ql.fold_batch_norm(ql.trace(make("mixed"), pictures(2)))


@pytest.fixture(scope="module")
def data():
    x = pictures(48)
    x[-1] *= 30  # an outlier that arrives late
    return list(x.split(8))


def equal(a, b):
    return dict(a) == dict(b) and a.images == b.images


def test_one_pass_for_many_recipes_equals_one_pass_each(network, data):
    every = recipes([*CHOICES, {"calibrator": "moving_average"}])
    every.insert(2, ql.Recipe(activations=None))
    together = ql.calibrate_many(network, data, every)
    assert len(together) == len(every)
    for recipe, table in zip(every, together, strict=True):
        assert equal(table, ql.calibrate(network, data, recipe))
    assert together[2].images == 0


def test_the_network_runs_once_and_equal_statistics_are_filled_once(network, data, monkeypatch):
    added = []
    original = ql.StreamingHistogram.add
    monkeypatch.setattr(
        ql.StreamingHistogram, "add", lambda self, rows: (added.append(self.bins), original(self, rows))[1]
    )
    tables = ql.calibrate_many(network, data[:1], recipes())
    sites = len(tables[0])
    assert sorted(set(added)) == [256, 2048]
    assert len(added) == 2 * sites


def test_order_makes_no_difference(network, data):
    there, back = ql.calibrate_many(network, data, recipes()), ql.calibrate_many(network, data[::-1], recipes())
    assert all(equal(a, b) for a, b in zip(there, back, strict=True))


@pytest.fixture(scope="module")
def client():
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        yield client


workers = pytest.mark.filterwarnings("default")  # Dask's own warnings are not ours to mend


@workers
def test_many_workers_give_the_same_ranges_bit_for_bit(network, data, client):
    here, there = (
        ql.calibrate_many(network, data, recipes()),
        ql.calibrate_many(network, data, recipes(), client=client),
    )
    assert all(equal(a, b) for a, b in zip(here, there, strict=True))


@workers
def test_workers_may_load_the_batches_themselves(network, data, client):
    futures = client.map(lambda i: data[i], range(len(data)))
    recipe = recipes([{"calibrator": "mse"}])[0]
    assert equal(ql.calibrate(network, futures, recipe, client=client), ql.calibrate(network, data, recipe))


@workers
def test_what_goes_wrong_on_a_worker_names_the_site(network, data, client):
    broken = [data[0], torch.full_like(data[1], math.nan)]
    with pytest.raises(CalibrationError, match="NaN or Inf") as caught:
        ql.calibrate(network, broken, recipes()[0], client=client)
    assert any("site 'input'" in note for note in caught.value.__notes__)
    with pytest.raises(GraphError):
        ql.calibrate(network, [data[0][:, :, :3]], recipes()[0], client=client)
    with pytest.raises(CalibrationError, match="no batches"):
        ql.calibrate(network, [], recipes()[0], client=client)


def test_an_order_dependent_calibrator_is_refused_before_any_work(network, data):
    recipe = recipes([{"calibrator": "moving_average"}])[0]
    with pytest.raises(CalibrationError, match="'moving_average' cannot run on several workers"):
        ql.calibrate(network, data, recipe, client=object())
