"""A recipe may differ from layer to layer: widths, schemes, and layers left in float (paper §7.1, 7.3)."""

from dataclasses import replace

import pytest
import torch
from networks import make, pictures

import qlearn as ql
from qlearn.errors import CalibrationError, GraphError, RecipeError

A8 = ql.TensorRecipe(scheme="affine", calibrator="minmax")
W8 = ql.TensorRecipe(scheme="symmetric_restricted", granularity="per_channel")
PLAIN = ql.Recipe(activations=A8, weights=W8)
FLOAT = ql.Recipe(activations=None, weights=None)
W4, A4, A16 = replace(W8, bits=4), replace(A8, bits=4), replace(A8, scheme="symmetric", bits=16)


def folded(name="residual"):
    return ql.fuse_activations(ql.fold_batch_norm(ql.trace(make(name), pictures(1))))


def weighted(network):
    return [node.name for node in network.nodes if node.op in ("conv2d", "linear")]


def quantized(network, recipe):
    return ql.quantize_model(network, recipe, ql.calibrate(network, [pictures(8)], recipe))


def layer(model, name):
    return next(one for one in model.layers if one.node.name == name)


@pytest.mark.parametrize("name", ["residual", "depthwise"])
def test_one_layer_differs_and_all_others_stay_bit_for_bit(name):
    network = folded(name)
    chosen = weighted(network)[1]
    plain = quantized(network, PLAIN)
    mixed = quantized(network, PLAIN.with_layer(chosen, weights=W4, activations=A4))
    for one, other in zip(plain.layers, mixed.layers, strict=True):
        if one.node.name == chosen:
            assert (other.weight_qparams.qmax, other.output.qmax) == (7, 7)
        elif one.weight is not None:
            assert (one.weight == other.weight).all()
            assert one.weight_qparams == other.weight_qparams


@pytest.mark.parametrize("name", ["residual", "depthwise"])
@pytest.mark.parametrize("seed", range(4))
def test_any_mixture_of_widths_keeps_the_contract(name, seed):
    network = folded(name)
    generator = torch.Generator().manual_seed(seed)
    recipe = PLAIN
    for node in network.nodes:
        bits = [int(torch.randint(2, 9, (), generator=generator)) for _ in range(2)]
        if node.op in ("conv2d", "linear", "add"):
            wide = torch.rand((), generator=generator) < 0.2
            activations = A16 if wide else replace(A8, bits=bits[0])
            recipe = recipe.with_layer(node.name, weights=replace(W8, bits=bits[1]), activations=activations)
    model = quantized(network, recipe)
    x = pictures(5)
    simulated, integers = model.codes(x), model.to_integer("float32").codes(x)
    assert simulated.keys() == integers.keys()
    for site, codes in simulated.items():
        assert (codes.numpy() == integers[site]).all(), site


def test_a_layer_in_float_computes_what_float_computes():
    network = folded()
    x = pictures(4)
    seen = {}
    network(x, watch=lambda node, value: seen.update({node.name: value}))
    everything_float = quantized(network, FLOAT)
    assert torch.equal(everything_float(x), network(x))
    first = weighted(network)[0]
    alone = quantized(network, FLOAT.with_layer(first, weights=W4))  # its weights only
    real = {}
    alone(x, watch=lambda node, value: real.update({node.name: value}))
    w = alone.layers[1]
    weight = ql.dequantize(w.weight, w.weight_qparams)
    conv = network.node(first)
    expected = torch.nn.functional.conv2d(x, weight, conv.params["bias"], conv.attrs["stride"], padding=1).relu()
    torch.testing.assert_close(real[first], expected)
    output = quantized(network, FLOAT.with_layer(first, activations=A8))  # its output only
    real = {}
    output(x, watch=lambda node, value: real.update({node.name: value}))
    assert torch.equal(real[first], ql.fake_quantize(seen[first], layer(output, first).output))


def test_a_float_site_between_integer_layers_runs_but_has_no_integer_model():
    network = folded()
    middle = weighted(network)[1]
    model = quantized(network, PLAIN.with_layer(middle, activations=None))
    assert ql.sqnr_db(network(pictures(4)).numpy(), model(pictures(4)).numpy()) > 15
    with pytest.raises(GraphError, match=f"output of '{middle}' in float"):
        model.to_integer()
    model = quantized(network, PLAIN.with_layer(middle, weights=None))
    with pytest.raises(GraphError, match=f"weights of '{middle}' in float"):
        model.to_integer()


def test_recipes_are_asked_together_in_one_pass():
    network = folded()
    site = weighted(network)[0]
    recipes = [
        PLAIN,
        FLOAT,
        PLAIN.with_layer(site, activations=replace(A8, calibrator="mse", bits=3)),
        FLOAT.with_layer(site, activations=A8),
    ]
    tables = ql.calibrate_many(network, [pictures(8)], recipes)
    for recipe, table in zip(recipes, tables, strict=True):
        assert ql.calibrate(network, [pictures(8)], recipe).ranges == table.ranges
    assert [len(table) > 0 for table in tables] == [True, False, True, True]
    assert tables[1].images == 0
    assert list(tables[3]) == [site]
    assert tables[2][site].hi < tables[0][site].hi


def test_wrong_names_are_refused_with_the_remedy():
    network = folded()
    with pytest.raises(RecipeError, match="did you mean"):
        ql.calibrate(network, [pictures(2)], PLAIN.with_layer(weighted(network)[0] + "x", weights=W4))
    table = ql.calibrate(network, [pictures(2)], PLAIN)
    with pytest.raises(RecipeError, match="does not have"):
        ql.quantize_model(network, PLAIN.with_layer("nowhere", weights=W4), table)
    with pytest.raises(CalibrationError, match="has a site"):
        ql.quantize_model(network, PLAIN.with_layer(weighted(network)[0], activations=None), table)
    shared = next(node.name for node in network.nodes if node.op == "flatten")
    with pytest.raises(RecipeError, match="takes over the scale of its input"):
        ql.calibrate(network, [pictures(2)], PLAIN.with_layer(shared, activations=A4))
    with pytest.raises(RecipeError, match="per tensor"):
        PLAIN.with_layer("conv", activations=W8)


def test_what_is_not_given_is_inherited():
    recipe = PLAIN.with_layer("a", weights=W4).with_layer("a", activations=A4)
    assert recipe.for_layer("a") == ql.LayerRecipe(activations=A4, weights=W4)
    assert recipe.for_layer("b") == ql.LayerRecipe(activations=A8, weights=W8)
    assert recipe.with_layer("a", weights=None).for_layer("a").weights is None
