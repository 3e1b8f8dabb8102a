"""The result of a search is a recipe like any other: simulation, integers, engines, files, exports."""

import numpy as np
import pytest
import torch
from networks import make, pictures

import qlearn as ql
from qlearn.analysis.mixed_precision import Choice, measure_choices, search_bits, weight_bytes, with_choices
from qlearn.analysis.mixed_precision.study import Candidate, average_bits, compare_mixed, uniform_choices
from qlearn.errors import DataError, RecipeError
from qlearn.pipeline.calibrate import calibration_sites

pytest.importorskip("scipy")
RECIPE = ql.Recipe(activations=ql.TensorRecipe(scheme="affine", calibrator="minmax"))


def folded(name):
    if name in ("residual", "depthwise"):
        return ql.fold_batch_norm(ql.trace(make(name), pictures(1), name=name)), [pictures(8)], pictures(6)
    network, data = ql.load(name)
    x = torch.cat([images for images, _ in data.evaluation.subset(40)])
    return ql.fold_batch_norm(network), data.calibration.subset(32), x


def searched(network, data, activation_bits=()):
    """The program's recipe at the size of 4 bits; activations of 4, 8 and 16 bits in turn if wanted."""
    costs = measure_choices(network, RECIPE, data, weight_bits=(2, 3, 4, 6, 8)).costs("kl")
    resource = weight_bytes(network, RECIPE)
    found = search_bits(costs, resource, resource.usage(uniform_choices(costs, 4)))
    assert len(set(found.bits().values())) > 1
    if not activation_bits:
        return with_choices(RECIPE, found.choices)
    sites = calibration_sites(ql.fuse_activations(network))
    widths = [activation_bits[place % len(activation_bits)] for place in range(len(sites))]
    wide = [Choice(site, "activations", bits) for site, bits in zip(sites, widths, strict=True)]
    return with_choices(RECIPE, [*found.choices, *wide])


@pytest.mark.parametrize("activations", [(), (8, 16, 4)], ids=["8 bits", "16, 8 and 4 bits"])
@pytest.mark.parametrize("name", ["residual", "depthwise", "tiny_mobilenet"])
def test_integers_of_a_mixed_recipe(name, activations, tmp_path):
    network, data, x = folded(name)
    recipe = searched(network, data, activations)
    quantized = ql.quantize_model(network, recipe, ql.calibrate(network, data, recipe))
    exact = quantized.to_integer("float32")
    simulated = quantized.codes(x)
    widths = {layer.output.bits for layer in exact.layers}
    assert widths == ({8} if not activations else {4, 8, 16})
    for engine in ("reference", "torch"):
        codes = exact.with_engine(engine).codes(x.numpy())
        assert codes.keys() == simulated.keys()
        for site, values in codes.items():
            assert np.array_equal(values, simulated[site].numpy()), (engine, site)
    fixed = exact.with_policy("fixed")
    reference, torch_engine = fixed.codes(x.numpy()), fixed.with_engine("torch").codes(x.numpy())
    for site, values in reference.items():
        assert np.array_equal(values, torch_engine[site]), site
    fixed.save(tmp_path / "mixed.qlearn")
    back = ql.IntegerModel.load(tmp_path / "mixed.qlearn")
    assert np.array_equal(back(x), fixed(x))
    assert back.packed_bytes == fixed.packed_bytes < fixed.weight_bytes


def test_wide_activations_between_narrow_ones_are_better():
    """16x8: the one site with 16 bits loses next to nothing of what 4 bits lose there."""
    network, data, x = folded("residual")
    base = ql.Recipe(activations=ql.TensorRecipe(scheme="affine", calibrator="minmax"), weights=None)
    quality = {}
    for bits in (4, 8, 16):
        recipe = with_choices(base, [Choice("conv1", "activations", bits)])
        quantized = ql.quantize_model(network, recipe, ql.calibrate(network, data, recipe))
        quality[bits] = ql.sqnr_db(network(x), quantized(x))
    assert quality[4] < quality[8] <= quality[16] + 1e-9


def test_the_comparison_against_evaluate():
    network, data, _ = folded("tiny_mobilenet")
    evaluation = ql.load("tiny_mobilenet")[1].evaluation.subset(60)
    costs = measure_choices(network, RECIPE, data, weight_bits=(2, 4, 8)).costs("kl")
    resource = weight_bytes(network, RECIPE)
    uniform = uniform_choices(costs, 4)
    found = search_bits(costs, resource, resource.usage(uniform))
    rows = [Candidate("uniform", uniform, resource.usage(uniform)),
            Candidate("program", found.choices, resource.usage(uniform), found.cost)]  # fmt: skip
    floating, table = compare_mixed(network, RECIPE, rows, calibration=data, evaluation=evaluation)
    assert floating == ql.evaluate(network, evaluation).accuracy
    for row, choices in zip(table, (uniform, found.choices), strict=True):
        recipe = with_choices(RECIPE, choices)
        quantized = ql.quantize_model(network, recipe, ql.calibrate(network, data, recipe))
        wanted = ql.evaluate(quantized, evaluation, reference=network)
        assert (row.accuracy, row.sqnr_db) == (wanted.accuracy, pytest.approx(wanted.sqnr_db))
        assert row.packed_bytes == quantized.to_integer().packed_bytes
        assert row.stored_bytes == quantized.weight_bytes
        assert row.packed_bytes <= resource.usage(uniform)
    again = compare_mixed(network, RECIPE, rows, calibration=data, evaluation=evaluation, workers=3)
    assert again == (floating, table)
    assert table[0].against_uniform is None
    assert table[1].against_uniform.difference == pytest.approx(table[1].accuracy - table[0].accuracy)
    assert average_bits(network, with_choices(RECIPE, uniform)) == 4
    assert average_bits(network, ql.Recipe(weights=None)) == 32
    with pytest.raises(DataError, match="labels"):
        compare_mixed(network, RECIPE, rows, calibration=data, evaluation=[pictures(2, size=32)])
    with pytest.raises(RecipeError, match="no weights"):
        uniform_choices({Choice("a", "activations", 8): 0.0}, 4)
