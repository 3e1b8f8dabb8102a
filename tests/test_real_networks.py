"""The contract and the acceptance figures on trained networks: the bundled ones, and the real ones where they are."""

import json
import os

import numpy as np
import pytest
import torch

import qlearn as ql
from qlearn.cli import main
from qlearn.integer.layers import run_layer
from qlearn.integer.profiles import profile_named

needs_data = pytest.mark.skipif("QLEARN_DATA" not in os.environ, reason="QLEARN_DATA is not set")
REAL = [pytest.param(name, count, marks=[pytest.mark.realdata, needs_data])
        for name, count in (("mobilenet_v1_0.25", 30), ("resnet20", 100), ("resnet56", 30))]  # fmt: skip
NETWORKS = [("tiny_resnet", 300), ("tiny_mobilenet", 300), *REAL]


def quantized(name, granularity="per_channel"):
    network, data = ql.load(name)
    network = ql.fold_batch_norm(network)
    weights = ql.TensorRecipe(scheme="symmetric_restricted", granularity=granularity)
    recipe = ql.Recipe(weights=weights)
    table = ql.calibrate(network, data.calibration.subset(50), recipe)
    return ql.quantize_model(network, recipe, table), data.evaluation


def inputs(dataset, count):
    return torch.cat([images for images, _ in dataset.subset(count)])


@pytest.mark.parametrize(("name", "count"), NETWORKS)
def test_simulation_integers_and_policies(name, count, capsys):
    simulated, dataset = quantized(name)
    x = inputs(dataset, count)
    expected = simulated.codes(x)
    exact = simulated.to_integer("float32")
    for site, codes in exact.codes(x.numpy()).items():
        assert np.array_equal(expected[site].numpy(), codes), site

    fixed = exact.with_policy("fixed")
    codes = fixed.codes(x.numpy())
    qparams = {layer.name: layer.output for layer in fixed.layers}
    for layer in fixed.layers[1:]:
        sources = [(codes[site], qparams[site]) for site in layer.inputs]
        other = run_layer(layer, sources, profile_named("float32")).astype(int)
        assert np.abs(other - codes[layer.name]).max() <= 1, layer.name

    ours, theirs = codes[fixed.output].astype(int), expected[fixed.output].numpy().astype(int)
    difference = np.abs(ours - theirs)
    values, counts = np.unique(ours - theirs, return_counts=True)
    changed = np.flatnonzero(ours.argmax(1) != theirs.argmax(1))
    with capsys.disabled():
        histogram = ", ".join(f"{v:+d}: {c}" for v, c in zip(values, counts, strict=True))
        print(f"\n{name}, {count} pictures, logit codes of fixed minus float32: {{{histogram}}}")
        print(f"  pictures whose class changes: {changed.tolist() or 'none'}")
    for picture in changed:
        margin = theirs[picture].max() - theirs[picture][ours[picture].argmax()]
        assert margin <= 2 * difference[picture].max(), "a class changed by more than the rounding"


@pytest.mark.realdata
@pytest.mark.slow
@needs_data
def test_mobilenet_collapses_per_tensor_and_survives_per_channel(capsys):
    """650 photographs through the integer model: the paper's Table 1 in one network."""
    arguments = ["quantize", "mobilenet_v1_0.25", "--weights", "per_tensor", "per_channel", "--json"]
    assert main(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    floating, per_tensor, per_channel = (row["accuracy"] for row in document["rows"])
    with capsys.disabled():
        print(f"\nmobilenet_v1_0.25: float {floating:.1%}, per tensor {per_tensor:.1%}, per channel {per_channel:.1%}")
    assert all(row["images"] == 650 for row in document["rows"])
    assert 0.60 <= floating <= 0.70
    assert per_tensor < 0.01
    assert floating - per_channel <= 0.06


@pytest.mark.parametrize(("name", "at_least"), [("tiny_resnet", 0.93), ("tiny_mobilenet", 0.93)])
def test_bundled_networks_are_good_and_survive(name, at_least):
    simulated, dataset = quantized(name)
    evaluation = ql.evaluate(simulated, dataset, reference=simulated.model)
    floating = ql.evaluate(simulated.model, dataset)
    assert evaluation.images == 2000
    assert at_least <= floating.accuracy <= 0.97
    assert evaluation.accuracy >= floating.accuracy - 0.01
    assert evaluation.sqnr_db > 25


@pytest.mark.realdata
@pytest.mark.slow
@needs_data
def test_mobilenet_is_mended_per_tensor_without_training(capsys):
    """A short ladder: 100 photographs to repair on, 200 to measure on. `qlearn repair` measures on all 650."""
    network, data = ql.load("mobilenet_v1_0.25")
    recipes = {"per_tensor": ql.Recipe(weights=ql.TensorRecipe(scheme="symmetric_restricted"))}
    ladder, _ = ql.repair_ladder(
        ql.fold_batch_norm(network),
        recipes,
        calibration=data.calibration.subset(100),
        evaluation=data.evaluation.subset(200),
        rungs={"per_tensor": [(), ("dead inputs zeroed", "noise equalized", "bias corrected")]},
    )
    with capsys.disabled():
        print(f"\n{ladder}")
    floating, as_it_is, mended = ladder.rungs
    assert as_it_is.accuracy < 0.02
    assert mended.accuracy > floating.accuracy - 0.06
    assert mended.agreement > 0.8
