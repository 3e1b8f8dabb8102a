"""Calibration sees what the integer network stores, streams, and answers bad data by name."""

import warnings

import numpy as np
import pytest
import torch
from networks import make, pictures
from torch import nn

import qlearn as ql
from qlearn.errors import (
    CalibrationError,
    FallbackWarning,
    GraphError,
    NumbersError,
    PluginError,
    RecipeError,
    UnknownCalibratorError,
    UnknownSchemeError,
    UnsupportedOpError,
)
from qlearn.registry import fresh_registry


def folded(name="residual"):
    return ql.fold_batch_norm(ql.trace(make(name), pictures(1)))


def test_ranges_are_those_of_the_fused_float_network():
    network, x = folded("depthwise"), pictures(16)
    minmax = ql.Recipe(activations=ql.TensorRecipe(scheme="affine", calibrator="minmax"))
    table = ql.calibrate(network, [x], minmax)
    seen = {}
    ql.fuse_activations(network)(x, watch=lambda node, value: seen.update({node.name: value}))
    assert set(table) == set(seen) - {"pad"}  # zero padding takes over the range of its input
    for site, r in table.items():
        assert float(r.lo) == min(0.0, float(seen[site].min()))
        assert float(r.hi) == max(0.0, float(seen[site].max()))
    assert float(table["stem"].lo) == 0.0  # after the ReLU6, not before
    assert float(table["stem"].hi) <= 6.0
    assert table.images == 16
    assert "depthwise" in repr(table)


def test_split_and_order_of_batches_make_no_difference():
    network = folded()
    x = pictures(12)
    recipe = ql.Recipe(activations=ql.TensorRecipe(scheme="affine", calibrator="percentile"))
    tables = [
        ql.calibrate(network, batches, recipe)
        for batches in (list(x.split(1)), list(x.split(1))[::-1], (part for part in x.split(1)))
    ]
    assert tables[0].ranges == tables[1].ranges == tables[2].ranges


def test_batches_may_be_tuples_arrays_or_a_loader():
    network, x = folded(), pictures(6)
    expected = ql.calibrate(network, [x], ql.Recipe())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.zeros(6)), batch_size=6)
    for batches in ([(x, None)], [[x, 3]], [x.numpy()], loader):
        assert ql.calibrate(network, batches, ql.Recipe()).ranges == expected.ranges


def test_the_network_is_not_changed():
    network = folded()
    before = [{key: value.clone() for key, value in node.params.items()} for node in network.nodes]
    recipe = ql.Recipe()
    ql.quantize_model(network, recipe, ql.calibrate(network, [pictures(4)], recipe)).to_integer()
    for node, params in zip(network.nodes, before, strict=True):
        assert all(torch.equal(value, params[key]) for key, value in node.params.items())


def notes(error):
    return " ".join(getattr(error.value, "__notes__", ()))


def test_bad_data_is_refused_with_the_site():
    network = folded()
    x = pictures(2)
    x[0, 0, 0, 0] = float("nan")
    with pytest.raises(CalibrationError, match="1 of 1350 values are NaN or Inf") as caught:
        ql.calibrate(network, [x], ql.Recipe())
    assert "site 'input'" in notes(caught)
    assert "mse" in notes(caught)
    with pytest.raises(CalibrationError, match="no batches"):
        ql.calibrate(network, [], ql.Recipe())
    with pytest.raises(CalibrationError, match="got str"):
        ql.calibrate(network, ["pictures"], ql.Recipe())
    with pytest.raises(GraphError, match=r"takes a batch of shape \(N, 3, 15, 15\) with N > 0, got \(0, 3, 15, 15\)"):
        ql.calibrate(network, [pictures(2)[:0]], ql.Recipe())
    with pytest.raises(GraphError, match="takes a traced network, got Residual"):
        ql.calibrate(make("residual"), [x], ql.Recipe())
    with pytest.raises(GraphError, match="takes a traced network"):
        ql.quantize_model(make("residual"), ql.Recipe(), {})


def test_a_network_that_explodes_names_the_layer_where_it_does():
    network = folded()
    network.node("conv2").params["weight"][:] = 1e38
    with pytest.raises(CalibrationError) as caught:
        ql.calibrate(network, [pictures(2)], ql.Recipe())
    assert "site 'conv2'" in notes(caught)


def test_a_constant_picture_is_fine():
    network, recipe = folded(), ql.Recipe()
    for value in (0.0, 1.0, -3.0):
        x = torch.full((2, 3, 15, 15), value)
        model = ql.quantize_model(network, recipe, ql.calibrate(network, [x], recipe))
        assert ql.sqnr_db(network(x), model(x)) > 20


def test_unknown_names_and_contradictions_are_explained():
    network = folded()
    for recipe, error, message in [
        (ql.TensorRecipe(scheme="affine", calibrator="minmaks"), UnknownCalibratorError, "minmax"),
        (ql.TensorRecipe(scheme="afine"), UnknownSchemeError, "affine"),
        (ql.TensorRecipe(scheme="affine", bits=1), NumbersError, "2 to 16"),
    ]:
        with pytest.raises(error, match=message):
            ql.calibrate(network, [pictures(2)], ql.Recipe(activations=recipe))
    with pytest.raises(RecipeError, match="per_tensor, per_channel: got 'per_row'"):
        ql.TensorRecipe(scheme="affine", granularity="per_row")
    with pytest.raises(RecipeError, match="activations are quantized per tensor"):
        ql.Recipe(activations=ql.TensorRecipe(scheme="affine", granularity="per_channel"))


def test_a_table_of_another_network_is_noticed():
    unfolded = ql.trace(make("depthwise"), pictures(1))
    with pytest.raises(CalibrationError, match="has no site 'depthwise'"):
        ql.quantize_model(unfolded, ql.Recipe(), {})
    stale = ql.calibrate(unfolded, [pictures(2)], ql.Recipe())
    with pytest.raises(CalibrationError, match="has a site 'norm1'"):
        ql.quantize_model(ql.fold_batch_norm(unfolded), ql.Recipe(), stale)


class Strange:
    """A calibrator and a scheme whose author was careless."""

    bits, signed, symmetric, qmin, qmax = 8, True, True, -128, 127

    def __init__(self, **params):
        pass

    def observe(self, x):
        pass

    def compute_range(self, scheme):
        return (-1.0, 1.0)

    def qparams(self, clip_range, axis=0):
        return 3

    def merge(self, other):
        pass

    reset = merge


def test_what_a_careless_plugin_returns_is_not_believed():
    network = folded()
    with fresh_registry({"QLEARN_LOAD_PLUGINS": ""}):
        ql.register(ql.CalibratorSpec(name="strange", factory=Strange, summary="returns a tuple"))
        ql.register(ql.SchemeSpec(name="odd", factory=Strange, summary="returns a number"))
        recipe = ql.Recipe(activations=ql.TensorRecipe(scheme="affine", calibrator="strange"))
        with pytest.raises(PluginError, match="calibrator 'strange' must return one ClipRange"):
            ql.calibrate(network, [pictures(2)], recipe)
        recipe = ql.Recipe(activations=ql.TensorRecipe(scheme="odd"))
        with pytest.raises(PluginError, match="scheme 'odd' returned int instead of QParams"):
            ql.quantize_model(network, recipe, ql.calibrate(network, [pictures(2)], recipe))
    with pytest.raises(RecipeError, match="channel_axis"):
        ql.TensorRecipe(scheme="affine", calibrator_params={"channel_axis": 1})


def test_unsupported_layers_fall_back_with_a_warning_or_are_refused():
    network, recipe = folded("mixed"), ql.Recipe()
    table = ql.calibrate(network, [pictures(8)], recipe)
    with pytest.warns(FallbackWarning, match="layer 'norm' stays in float, between dequantize and quantize: GroupNorm"):
        model = ql.quantize_model(network, recipe, table)
    x = pictures(8, seed=9)
    assert ql.sqnr_db(network(x), model(x)) > 25
    with pytest.raises(UnsupportedOpError, match="layer 'norm' cannot run on integers: GroupNorm"):
        ql.quantize_model(network, recipe, table, strict=True)


def test_an_unfolded_batch_norm_falls_back_with_the_remedy():
    network, recipe = ql.trace(make("residual"), pictures(1)), ql.Recipe()
    table = ql.calibrate(network, [pictures(8)], recipe)
    with pytest.warns(FallbackWarning, match="'norm' stays in float.*fold_batch_norm"):
        model = ql.quantize_model(network, recipe, table)
    x = pictures(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        assert np.array_equal(model(x).numpy(), model.to_integer("float32")(x.numpy()))


def test_layers_without_weights_only():
    module = nn.Sequential(nn.MaxPool2d(2), nn.ReLU(), nn.Flatten())
    recipe = ql.Recipe(activations=ql.TensorRecipe(scheme="affine", calibrator="minmax"))  # nothing is clipped
    network = ql.trace(module, torch.zeros(1, 3, 8, 8))
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = ql.quantize_model(network, recipe, ql.calibrate(network, [x], recipe)).to_integer()
    assert np.abs(model(x.numpy()) - module(x).numpy()).max() <= float(model.layers[0].output.scale) / 2 + 1e-6
