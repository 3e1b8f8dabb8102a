"""Every architecture that the paper names, and three plain modules: from the module to integers, nothing in float.

Each test prints what it compared: family, operations, codes, mismatches.
"""

import warnings

import numpy as np
import pytest
import torch

import qlearn as ql
from qlearn.errors import FallbackWarning, MissingDataError, UnsupportedOpError
from qlearn.integer.layers import SHARING_OPS, run_layer
from qlearn.integer.profiles import PROFILES, profile_named
from qlearn.zoo.models.families import FAMILIES, family

ACTIVATIONS = [("affine", 8, True), ("affine", 8, False), ("symmetric", 8, True), ("affine", 16, True)]


def pictures(count=8, seed=1):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def quantized(name, activation=ACTIVATIONS[0], *, strict=True):
    network = ql.fold_batch_norm(ql.trace(family(name), pictures(1)))
    scheme, bits, signed = activation
    recipe = ql.Recipe(activations=ql.TensorRecipe(scheme=scheme, bits=bits, signed=signed))
    table = ql.calibrate(network, [pictures(8, seed=2)], recipe)
    return ql.quantize_model(network, recipe, table, strict=strict)


def operations(model):
    return {layer.attrs["function"] if layer.op == "unary" else layer.op for layer in model.layers[1:]}


def mismatches(simulated, x):
    """Codes compared, and codes that differ, over all sites."""
    expected, integers = simulated.codes(x), simulated.to_integer("float32").codes(x.numpy())
    assert list(expected) == list(integers)
    differ = {site: int((expected[site].numpy() != codes).sum()) for site, codes in integers.items()}
    return sum(codes.size for codes in integers.values()), {site: count for site, count in differ.items() if count}


def steps_apart(model, codes, profile):
    """The largest difference at any site between a profile and policy float32, given the same input codes."""
    qparams = {layer.name: layer.output for layer in model.layers}
    farthest, count = {}, 0
    for layer in model.layers[1:]:
        inputs = [(codes[site], qparams[site]) for site in layer.inputs]
        theirs, ours = (run_layer(layer, inputs, profile_named(p)).astype(int) for p in (profile, "float32"))
        farthest[layer.name] = int(np.abs(theirs - ours).max())
        count += int((theirs != ours).sum())
    return farthest, count


@pytest.mark.parametrize("name", FAMILIES)
def test_simulation_equals_integers_and_the_policies_stay_within_one_code(name):
    simulated = quantized(name)
    x = pictures(8, seed=3) * 1.5  # beyond the calibrated range
    compared, differ = mismatches(simulated, x)
    model = simulated.to_integer("fixed")
    assert "float" not in operations(model)
    assert differ == {}
    farthest, apart = steps_apart(model, model.codes(x.numpy()), "fixed")
    ops = ", ".join(sorted(operations(model)))
    print(f"{name}: {ops}: {compared} codes, {len(differ)} mismatches under float32, {apart} one apart under fixed")
    assert max(farthest.values()) <= 1, farthest


@pytest.mark.parametrize("name", FAMILIES)
def test_folding_keeps_the_function_and_the_module(name):
    module, x = family(name, seed=1), pictures(16)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    expected = module(x)
    network = ql.trace(module, pictures(1))
    folded = ql.fold_batch_norm(network)
    span = float(expected.max() - expected.min())
    for ours in (network(x), folded(x), ql.fuse_activations(folded)(x)):
        assert torch.allclose(ours, expected, rtol=0, atol=1e-5 * span)
    assert not any(node.op in {"batch_norm", "float"} for node in folded.nodes)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert torch.equal(module(x), expected)


@pytest.mark.parametrize("activation", ACTIVATIONS[1:], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_other_recipes_keep_the_contract_too(name, activation):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        simulated = quantized(name, activation, strict=False)
    compared, differ = mismatches(simulated, pictures(4, seed=3) * 1.5)
    print(f"{name}, {activation}: {compared} codes, {len(differ)} sites differ")
    assert differ == {}


@pytest.mark.parametrize("profile", sorted(set(PROFILES) - {"fixed", "float32"}))
@pytest.mark.parametrize("name", FAMILIES)
def test_the_arithmetic_of_each_runtime_stays_within_one_code(name, profile):
    model = quantized(name).to_integer(profile)
    x = pictures(2, seed=3)
    farthest, apart = steps_apart(model, model.codes(x.numpy()), profile)
    print(f"{name}, {profile}: {apart} codes apart, at most {max(farthest.values())}")
    assert max(farthest.values()) <= 1, farthest


@pytest.mark.parametrize("name", FAMILIES)
def test_integers_stay_close_to_the_float_network(name):
    simulated, module, x = quantized(name), family(name), pictures(32, seed=4)
    assert ql.sqnr_db(module(x), simulated(x)) > 18


def test_outputs_that_are_known_beforehand_need_no_calibration():
    network = ql.fold_batch_norm(ql.trace(family("plain_branches"), pictures(1)))
    table = ql.calibrate(network, [pictures(4)], ql.Recipe())
    assert not {"sigmoid", "tanh"} & set(table)
    for activation, zero in ((ACTIVATIONS[0], 0), (ACTIVATIONS[1], 128), (ACTIVATIONS[2], 0)):
        model = quantized("plain_branches", activation).to_integer()
        sigmoid, tanh = (model.layer(site).output for site in ("sigmoid", "tanh"))
        assert (float(sigmoid.scale), int(sigmoid.zero_point)) == (1 / 256, zero - 128)
        assert (float(tanh.scale), int(tanh.zero_point)) == (1 / 128, zero)
        assert sigmoid.bits == tanh.bits == 8


@pytest.mark.parametrize("name", ["shufflenet", "plain_branches", "plain_tokens", "nasnet"])
def test_what_moves_codes_keeps_their_scale(name):
    model = quantized(name).to_integer()
    moved = [layer for layer in model.layers if layer.op in SHARING_OPS]
    assert moved
    assert all(layer.output == model.layer(layer.inputs[0]).output for layer in moved)


def test_tables_of_wider_codes_are_refused_by_name():
    wide = ("affine", 16, True)
    with pytest.raises(UnsupportedOpError, match=r"layer '0.2'.*a table of silu takes codes of at most 8 bits"):
        quantized("efficientnet", wide)
    with pytest.raises(UnsupportedOpError, match=r"layer 'act'.*a table of silu takes codes of at most 8 bits"):
        quantized("plain_tokens", wide)
    with pytest.warns(FallbackWarning) as caught:
        model = quantized("plain_tokens", wide, strict=False).to_integer()
    reasons = "\n".join(str(warning.message) for warning in caught)
    assert "softmax takes codes of 8 bits, its input has 16" in reasons
    assert "the product of codes of 16 bits can leave int32" in reasons
    assert not {"unary", "multiply", "softmax"} & {layer.op for layer in model.layers}
    x = pictures(8, seed=2)
    assert ql.sqnr_db(family("plain_tokens")(x), model(x.numpy())) > 30  # weights keep 8 bits
    assert quantized("resnet_v2", ("symmetric", 16, True)).to_integer()(x.numpy()).shape == (8, 10)


class Product(torch.nn.Module):
    def forward(self, x):
        return x * x.mean((2, 3), keepdim=True)


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_a_product_of_wide_codes_runs_where_it_fits_into_int32(scheme):
    network, x = ql.trace(Product(), pictures(1)), pictures(8).abs()
    recipe = ql.Recipe(activations=ql.TensorRecipe(scheme=scheme, bits=16))
    table = ql.calibrate(network, [x], recipe)
    if scheme == "affine":  # positive numbers only: the zero point is the smallest code
        with pytest.raises(UnsupportedOpError, match="can leave int32"):
            ql.quantize_model(network, recipe, table, strict=True)
        return
    simulated = ql.quantize_model(network, recipe, table, strict=True)
    assert mismatches(simulated, x)[1] == {}
    model = simulated.to_integer("fixed")
    farthest, _ = steps_apart(model, model.codes(x.numpy()), "fixed")
    assert max(farthest.values()) <= 1
    assert ql.sqnr_db(network(x), model(x.numpy())) > 70


def test_files_hold_every_family(tmp_path):
    for name in FAMILIES:
        model, x = quantized(name).to_integer("float32"), pictures(2).numpy()
        model.save(tmp_path / "net.qlearn")
        again = ql.IntegerModel.load(tmp_path / "net.qlearn")
        expected, found = model.codes(x), again.codes(x)
        assert list(expected) == list(found)
        assert all(np.array_equal(codes, found[site]) for site, codes in expected.items()), name


def test_a_family_is_seeded_and_known_by_name():
    one, same, other = family("nasnet", 1), family("nasnet", 1), family("nasnet", 2)
    for (key, value), twin in zip(one.state_dict().items(), same.state_dict().values(), strict=True):
        assert torch.allclose(value, twin), key
    assert not torch.equal(one.head[1][2].weight, other.head[1][2].weight)
    assert not one.training
    state = torch.get_rng_state()
    family("resnet_v2")
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(MissingDataError, match=r"no family 'nasnot'.*did you mean 'nasnet'"):
        family("nasnot")
