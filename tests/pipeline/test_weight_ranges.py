"""Weight ranges are tuned like those of activations (paper §7.5): per channel, against loops and min-max."""

import numpy as np
import pytest
import torch

import qlearn as ql
from qlearn.pipeline.weights import weight_qparams


def recipe_for(bits, calibrator, **params):
    return ql.TensorRecipe(scheme="symmetric_restricted", bits=bits, granularity="per_channel",
                           calibrator=calibrator, calibrator_params=params)  # fmt: skip


def noise_of(weight, scale, largest):
    codes = np.clip(np.round(weight / scale), -largest, largest)
    return float(((codes * scale - weight) ** 2).sum())


@pytest.mark.parametrize("bits", [8, 4, 3])
def test_mse_is_the_best_scale_of_every_channel(bits):
    weight = np.random.default_rng(0).laplace(size=(4, 8, 5, 5)).astype(np.float32)
    weight[2, 0, 0, 0] = 40.0  # an outlier that takes the levels of its channel, and of no other
    largest = 2 ** (bits - 1) - 1
    minmax, mse = (weight_qparams(weight, recipe_for(bits, name), None, None) for name in ("minmax", "mse"))
    for channel in range(4):
        w = weight[channel].astype(np.float64).ravel()
        tops = np.abs(w).max() * np.linspace(0.02, 1.0, 1000)
        best = min(noise_of(w, top / largest, largest) for top in tops)
        found = noise_of(w, float(mse.scale[channel]), largest)
        assert found <= noise_of(w, float(minmax.scale[channel]), largest) + 1e-9
        assert found <= 1.02 * best
        assert float(minmax.scale[channel]) == pytest.approx(np.abs(w).max() / largest, rel=1e-6)


def test_percentile_cuts_each_channel_by_itself():
    weight = np.random.default_rng(1).normal(size=(3, 1000)).astype(np.float32) * np.float32([[1], [10], [100]])
    q = weight_qparams(weight, recipe_for(4, "percentile", percent=90.0), None, None)
    for channel in range(3):
        kept = float(q.scale[channel]) * 7
        assert np.mean(np.abs(weight[channel]) <= kept) == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("bits", [4, 3])
def test_a_network_gains_by_tuned_weight_ranges(bits):
    network, data = ql.load("tiny_resnet")
    network, evaluation = ql.fold_batch_norm(network), data.evaluation.subset(100)
    rows = {}
    for name in ("minmax", "mse"):
        quantized = ql.quantize_model(network, ql.Recipe(activations=None, weights=recipe_for(bits, name)), {})
        for layer in quantized.layers:
            if layer.weight is not None:
                assert int(torch.as_tensor(layer.weight).abs().max()) <= 2 ** (bits - 1) - 1
        rows[name] = ql.evaluate(quantized, evaluation, reference=network).sqnr_db
    assert rows["mse"] > rows["minmax"]
