"""Quantization-aware training: it starts at PTQ, learns, and ends at the integer model."""

import copy
import warnings

import networks
import numpy as np
import pytest
import torch
from torch import nn

import qlearn as ql
from qlearn.errors import CalibrationError, FallbackWarning, GraphError, RecipeError
from qlearn.graph.fold import norms_behind
from qlearn.pipeline.qat.grids import FixedGrid, LearnedGrid, MovingGrid
from qlearn.pipeline.qat.model import QATModel, convert
from qlearn.pipeline.qat.prepare import prepare_qat, reestimate_batch_norm
from qlearn.zoo.models.families import FAMILIES, family

FLOAT = ql.Recipe(activations=None, weights=None)
EIGHT = ql.Recipe()
FOUR = ql.Recipe(
    activations=ql.TensorRecipe(scheme="affine", bits=4, calibrator="mse"),
    weights=ql.TensorRecipe(scheme="symmetric_restricted", bits=4, granularity="per_channel", calibrator="mse"),
)


@pytest.fixture(autouse=True)
def _fallbacks_are_expected():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        yield


def pictures(count=8, seed=1):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def traced(name):
    if name in networks.NETWORKS:
        return ql.trace(networks.make(name), networks.pictures(1))
    return ql.trace(family(name), pictures(1))


def inputs_for(model, count=8, seed=3):
    return torch.randn(count, *model.input_shape, generator=torch.Generator().manual_seed(seed))


def prepared(name, recipe=EIGHT, **options):
    model = traced(name)
    folded = ql.fold_batch_norm(model)
    table = ql.calibrate(folded, [inputs_for(model, seed=2)], recipe)
    return prepare_qat(model, recipe, table, **options), ql.quantize_model(folded, recipe, table)


def train(qat, steps=3, *, rate=0.01, seed=7, optimizer=None):
    qat.train()
    optimizer = optimizer or torch.optim.SGD(qat.parameters(), lr=rate, momentum=0.9)
    losses = []
    for step in range(steps):
        x = inputs_for(qat.graph, seed=seed + step)
        output = qat(x)
        target = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed))
        loss = (output - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def equal_codes(a, b):
    return list(a) == list(b) and all(np.array_equal(np.asarray(a[site]), np.asarray(b[site])) for site in a)


ALL = [*FAMILIES, *networks.NETWORKS]


@pytest.mark.parametrize("name", ALL)
def test_before_the_first_step_it_is_the_ptq_network_bit_for_bit(name):
    qat, ptq = prepared(name)
    x = inputs_for(qat.graph)
    assert equal_codes(convert(qat).codes(x), ptq.codes(x))
    assert torch.equal(qat.eval()(x), ptq(x))


@pytest.mark.parametrize("ranges", ["learned", "moving_average"])
@pytest.mark.parametrize("name", ALL)
def test_after_training_simulation_and_integers_have_equal_codes_at_every_site(name, ranges):
    qat, ptq = prepared(name, ranges=ranges)
    train(qat)
    x = inputs_for(qat.graph, seed=11)
    quantized = convert(qat)
    integers = quantized.to_integer("float32").codes(x.numpy())
    assert equal_codes(quantized.codes(x), integers)
    assert not equal_codes(quantized.codes(x), ptq.codes(x))  # it did learn something
    assert torch.equal(qat.eval()(x), quantized(x))


@pytest.mark.parametrize("recipe", [EIGHT, FOUR], ids=["8 bits", "4 bits"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_forward_of_training_is_the_exact_one_but_for_the_order_of_float_sums(name, recipe):
    """Values of both at every site, each from its own inputs: a sum beside a tie may flip a step, which spreads."""
    qat, _ = prepared(name, recipe)
    train(qat, steps=2)
    qat.freeze_batch_norm()
    x, real = inputs_for(qat.graph, seed=11), {}
    exact = convert(qat)
    scales = {layer.node.name: float(layer.output.scale) for layer in exact.layers}
    with torch.no_grad():
        qat(x, lambda node, value: real.update({node.name: value}))
    simulated = {}
    exact(x, lambda node, value: simulated.update({node.name: value}))
    wrong = sum(int(((real[site] - simulated[site]).abs() > 0.5 * scales[site]).sum()) for site in scales)
    total = sum(value.numel() for value in simulated.values())
    assert wrong <= 0.01 * total, f"{wrong} of {total}"


def reference(name):
    """The module as torch trains it, with momentum 0.1 in its batch norms."""
    module = networks.make(name) if name in networks.NETWORKS else family(name)
    return module.requires_grad_(True)


@pytest.mark.parametrize("name", ["depthwise", "residual", "mobilenet_v2", "resnet_v1"])
@pytest.mark.parametrize("mode", ["live", "frozen"])
def test_without_quantization_it_trains_as_torch_does(name, mode):
    module = reference(name)
    qat = prepare_qat(ql.trace(module, inputs_for(traced(name), 1)), FLOAT, momentum=0.1)
    live = mode == "live"
    module.train(live)
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.eval()
    if not live:
        qat.freeze_batch_norm()
    x = inputs_for(qat.graph)
    expected, ours = module(x), qat(x)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)
    expected.square().mean().backward()
    ours.square().mean().backward()
    norms = norms_behind(ql.trace(copy.deepcopy(module).eval(), x[:1]))
    theirs = dict(module.named_parameters())
    for key, layer in qat.layers.items():
        path = key[1:].replace("/", ".")
        largest = float(theirs[f"{path}.weight"].grad.abs().max())
        torch.testing.assert_close(layer.weight.grad, theirs[f"{path}.weight"].grad, rtol=1e-2, atol=1e-3 * largest)
        if path in norms and isinstance(dict(module.named_modules()).get(norms[path].name), nn.BatchNorm2d):
            norm = dict(module.named_modules())[norms[path].name]
            largest = float(norm.weight.grad.abs().max())
            torch.testing.assert_close(layer.norm.weight.grad, norm.weight.grad, rtol=1e-2, atol=1e-3 * largest)
            torch.testing.assert_close(layer.norm.running_mean, norm.running_mean, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(layer.norm.running_var, norm.running_var, rtol=1e-3, atol=1e-4)


def fold_by_hand(conv, norm):
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return conv.weight * factor.reshape(-1, 1, 1, 1), factor


def test_live_folding_is_that_of_krishnamoorthi():
    """Fold with the running statistics, round, undo, normalise by the batch: with torch's modules, step by step."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)).eval()
    with torch.no_grad():
        module[1].running_mean.uniform_(-1, 1)
        module[1].running_var.uniform_(0.3, 3)
        module[1].weight.uniform_(-2, 2)
    recipe = ql.Recipe(activations=None, weights=FOUR.weights)
    model = ql.trace(module, torch.zeros(1, 3, 8, 8))
    qat = prepare_qat(model, recipe, momentum=0.1)
    x = torch.randn(16, 3, 8, 8)
    folded, factor = fold_by_hand(*module)
    grid = convert(qat).layers[1].weight_qparams
    rounded = ql.fake_quantize(folded.detach(), grid)
    module.train()
    expected = module[1](nn.functional.conv2d(x, rounded) / factor.reshape(1, -1, 1, 1))
    torch.testing.assert_close(qat(x), expected, rtol=1e-4, atol=1e-5)
    norm = qat.layers["/0"].norm
    torch.testing.assert_close(norm.running_var, module[1].running_var)
    torch.testing.assert_close(norm.running_mean, module[1].running_mean)


def test_freezing_stops_the_statistics_and_survives_a_state_dict():
    qat, _ = prepared("mobilenet_v2")
    train(qat, 1)
    qat.freeze_batch_norm()
    before = {key: value.clone() for key, value in qat.state_dict().items() if "running" in key}
    train(qat, 2)
    after = qat.state_dict()
    assert before
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    other, _ = prepared("mobilenet_v2")
    other.load_state_dict(qat.state_dict())
    assert bool(other.frozen)
    assert torch.equal(other.eval()(inputs_for(qat.graph)), qat.eval()(inputs_for(qat.graph)))


def test_a_dead_channel_neither_divides_by_zero_nor_wakes_up():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    with torch.no_grad():
        module[1].weight[1] = 0.0
        module[1].bias[1] = 0.7
    model = ql.trace(module, torch.zeros(1, 3, 8, 8))
    qat = prepare_qat(model, EIGHT, ql.calibrate(ql.fold_batch_norm(model), [torch.randn(8, 3, 8, 8)], EIGHT))
    losses = train(qat, 3)
    assert np.isfinite(losses).all()
    assert all(torch.isfinite(p).all() for p in qat.parameters())
    assert float(qat.layers["/0"].norm.weight[1].detach()) == 0.0
    codes = convert(qat).codes(torch.randn(2, 3, 8, 8))["0"]
    assert codes[:, 1].unique().numel() == 1


def test_training_helps_at_three_bits():
    """The digits that ship, from PTQ at 3 bits: a few steps bring it closer to the float network's answers."""
    net, data = ql.load("tiny_resnet")
    weights = ql.TensorRecipe(scheme="symmetric_restricted", bits=3, granularity="per_channel", calibrator="mse")
    recipe = ql.Recipe(activations=ql.TensorRecipe(scheme="affine", bits=3, calibrator="mse"), weights=weights)
    table = ql.calibrate(ql.fold_batch_norm(net), data.calibration, recipe)
    qat = prepare_qat(net, recipe, table)
    qat.freeze_batch_norm()
    x, _ = next(data.evaluation.batches(200))
    test = net(x)
    before = float((qat.eval()(x) - test).square().mean())
    qat.train()
    optimizer = torch.optim.Adam(qat.parameters(), lr=1e-3)
    for _ in range(6):
        for images, _ in data.calibration.batches(64):
            loss = (qat(images) - net(images)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    after = float((qat.eval()(x) - test).square().mean())
    assert after < 0.75 * before, f"{before} -> {after}"


def test_evaluation_follows_every_change():
    qat, _ = prepared("resnet_v1")
    x = inputs_for(qat.graph)
    first = qat.eval()(x)
    assert qat.quantized() is qat.quantized()
    with torch.no_grad():
        next(iter(qat.layers.values())).weight.mul_(1.7)
    second = qat(x)
    assert not torch.equal(second, first)
    flat = nn.utils.parameters_to_vector(qat.parameters())
    nn.utils.vector_to_parameters(flat * 1.1, qat.parameters())  # which no version counter of torch notices
    assert not torch.equal(qat(x), second)


def test_one_clamp_per_channel():
    model = ql.cross_layer_equalize(ql.fold_batch_norm(traced("depthwise")))
    ends = [node.attrs["clamp"][1] for node in model.nodes if "clamp" in node.attrs]
    assert [len(high.unique()) > 1 for high in ends] == [True, True]
    x = inputs_for(model)
    table = ql.calibrate(model, [x], EIGHT)
    qat = prepare_qat(model, EIGHT, table)
    assert equal_codes(convert(qat).codes(x), ql.quantize_model(model, EIGHT, table).codes(x))
    train(qat, 2)
    after = convert(qat)
    assert equal_codes(after.codes(2 * x), after.to_integer("float32").codes(2 * x.numpy()))


def test_the_sites_are_those_of_quantize_model():
    for name in ALL:
        qat, ptq = prepared(name)
        shared = {"clamp", "avg_pool2d", "max_pool2d", "flatten", "slice", "pad", "reshape", "transpose"}
        expected = ["/" + layer.node.name.replace(".", "/") for layer in ptq.layers if layer.node.op not in shared]
        assert list(qat.sites) == expected


def test_known_outputs_stay_as_they_are_prescribed():
    qat, _ = prepared("efficientnet")
    fixed = [site for site in qat.sites.values() if isinstance(site, FixedGrid)]
    assert fixed
    train(qat, 2)
    assert all(float(site.qparams().scale) == 1 / 256 for site in fixed)


def test_layers_may_differ_and_may_stay_in_float():
    recipe = EIGHT.with_layer("conv1", activations=FOUR.activations, weights=FOUR.weights)
    recipe = recipe.with_layer("head", activations=None, weights=None)
    qat, _ = prepared("residual", recipe)
    train(qat)
    quantized = convert(qat)
    layers = {layer.node.name: layer for layer in quantized.layers}
    assert (layers["conv1"].output.bits, layers["conv1"].weight_qparams.bits) == (4, 4)
    assert (layers["conv2"].output.bits, layers["conv2"].weight_qparams.bits) == (8, 8)
    assert layers["head"].output is None
    assert layers["head"].weight is None
    with pytest.raises(GraphError, match="head"):
        quantized.to_integer()


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_learned_weights_keep_their_codes(granularity):
    weights = ql.TensorRecipe(scheme="symmetric_restricted", bits=4, granularity=granularity, calibrator="mse")
    qat, _ = prepared("resnet_v1", ql.Recipe(weights=weights))
    train(qat)
    for layer in convert(qat).layers:
        if layer.weight is None:
            continue
        trained = qat.layers["/" + layer.node.name.replace(".", "/")]
        folded = trained.folded()[0].detach()
        assert layer.weight_qparams == trained.weight_qparams()
        assert np.array_equal(ql.quantize(folded, trained.weight_qparams()).numpy(), layer.weight)


def test_symmetric_activations_keep_their_learned_step():
    """A clip range could not carry it: the scheme would choose another step for the same range."""
    recipe = ql.Recipe(activations=ql.TensorRecipe(scheme="symmetric", bits=8))
    qat, _ = prepared("residual", recipe)
    train(qat)
    for layer in convert(qat).layers:
        if layer.node.name in ("conv1", "conv2", "add"):
            assert layer.output == qat.sites["/" + layer.node.name].qparams()


def test_moving_ranges_are_averages_of_the_extremes():
    model = ql.trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.zeros(1, 3, 8, 8))
    recipe = ql.Recipe(activations=ql.TensorRecipe(scheme="affine"), weights=None)
    qat = prepare_qat(model, recipe, ranges="moving_average", momentum=0.25)
    lo = hi = None
    for seed in range(4):
        x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        qat(x)
        low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
        lo = low if lo is None else lo + 0.25 * (low - lo)
        hi = high if hi is None else hi + 0.25 * (high - hi)
    found = qat.table()["input"]
    assert (float(found.lo), float(found.hi)) == pytest.approx((lo, hi))
    assert float(qat.table()["0"].lo) == 0.0  # behind a ReLU
    assert isinstance(qat.sites["/input"], MovingGrid)
    before = qat.table()["input"]
    qat.eval()(x)
    assert qat.table()["input"] == before


def test_the_ranges_of_training_seed_post_training_quantization():
    qat, _ = prepared("resnet_v1")
    train(qat)
    table = qat.table()
    assert table.images == 24
    folded = ql.fold_batch_norm(traced("resnet_v1"))
    ptq = ql.quantize_model(folded, EIGHT, table)
    theirs = {layer.node.name: layer.output for layer in convert(qat).layers}
    assert all(layer.output == theirs[layer.node.name] for layer in ptq.layers)  # affine ranges carry the whole grid


def test_without_a_table_the_first_batch_is_the_start():
    model = traced("resnet_v1")
    qat = prepare_qat(model, EIGHT)
    with pytest.raises(CalibrationError, match="without a start"):
        convert(qat)
    train(qat, 2)
    x = inputs_for(qat.graph)
    assert equal_codes(convert(qat).codes(x), convert(qat).to_integer("float32").codes(x.numpy()))
    table = ql.calibrate(ql.fold_batch_norm(model), [x], EIGHT)
    fresh = prepare_qat(model, EIGHT)
    fresh.freeze_batch_norm()
    fresh(x)
    scheme = ql.scheme("affine", bits=8)
    assert fresh.sites["/input"].qparams() == scheme.qparams(table["input"])


def test_zero_points_learn_if_asked():
    qat, _ = prepared("residual", FOUR, learn_zero_points=True)
    before = {key: float(site.zero_point.detach()) for key, site in qat.sites.items()}
    names = [name for name, _ in qat.named_parameters() if name.endswith("zero_point")]
    assert len(names) == len(qat.sites)
    train(qat, 8, rate=0.3)
    moved = [key for key, site in qat.sites.items() if float(site.zero_point.detach()) != before[key]]
    assert moved
    x = inputs_for(qat.graph)
    assert equal_codes(convert(qat).codes(x), convert(qat).to_integer("float32").codes(x.numpy()))


def test_batch_norm_is_reestimated_in_a_copy():
    model = ql.trace(family("resnet_v1"), pictures(1))
    qat = prepare_qat(model, FLOAT)
    batches = [inputs_for(model, 8, seed) for seed in range(3)]
    before = copy.deepcopy(qat.state_dict())
    fresh = reestimate_batch_norm(qat, [(x, None) for x in batches])
    assert all(torch.equal(value, before[key]) for key, value in qat.state_dict().items())
    assert bool(fresh.frozen)
    module = family("resnet_v1")  # torch's own cumulative average
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    module.train()
    for x in batches:
        module(x)
    theirs = dict(module.named_modules())
    for path, norm in norms_behind(model).items():
        ours = fresh.layers["/" + path.replace(".", "/")].norm
        torch.testing.assert_close(ours.running_mean, theirs[norm.name].running_mean, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(ours.running_var, theirs[norm.name].running_var, rtol=1e-3, atol=1e-4)


def test_reestimation_keeps_the_codes_of_weights_per_channel():
    qat, _ = prepared("mobilenet_v2", FOUR)
    train(qat, 2)
    fresh = reestimate_batch_norm(qat, [inputs_for(qat.graph, seed=s) for s in range(2)])
    for a, b in zip(convert(qat).layers, convert(fresh).layers, strict=True):
        if a.weight is not None:
            assert float((a.weight != b.weight).mean()) < 0.01  # a tie may fall to the other side
    with pytest.raises(CalibrationError, match="no batches"):
        reestimate_batch_norm(qat, [])


def test_the_same_seed_gives_the_same_bits():
    results = []
    for _ in range(2):
        qat, _ = prepared("mobilenet_v2", FOUR)
        results.append((train(qat, 3), qat.state_dict()))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(value, results[1][1][key]) for key, value in results[0][1].items())


def test_the_network_that_was_given_is_not_changed():
    model = traced("mobilenet_v2")
    before = [{key: value.clone() for key, value in node.params.items()} for node in model.nodes]
    train(prepare_qat(model, EIGHT), 2)
    for node, params in zip(model.nodes, before, strict=True):
        assert all(torch.equal(value, params[key]) for key, value in node.params.items())


def test_channels_last_gives_the_same_network():
    qat, _ = prepared("resnet_v1")
    x = inputs_for(qat.graph)
    expected = qat.eval()(x)
    moved = qat.to(memory_format=torch.channels_last)
    assert torch.equal(moved.eval()(x), expected)
    moved.train()
    moved.freeze_batch_norm()
    moved(x.contiguous(memory_format=torch.channels_last)).sum().backward()


def test_bad_input_is_refused():
    model = traced("residual")
    with pytest.raises(GraphError, match="traced network, got Linear"):
        prepare_qat(nn.Linear(2, 2), EIGHT)
    with pytest.raises(RecipeError, match="ranges is one of learned, moving_average"):
        prepare_qat(model, EIGHT, ranges="lsq")
    with pytest.raises(RecipeError, match="momentum"):
        prepare_qat(model, EIGHT, momentum=0.0)
    with pytest.raises(RecipeError, match="did you mean 'conv"):
        prepare_qat(model, EIGHT.with_layer("conv7", weights=None))
    with pytest.raises(CalibrationError, match="has no site"):
        prepare_qat(model, EIGHT, {})
    with pytest.raises(GraphError, match="prepare_qat"):
        convert(model)
    qat = prepare_qat(model, EIGHT)
    with pytest.raises(GraphError, match="takes a batch of shape"):
        qat(torch.zeros(1, 3, 9, 9))
    assert isinstance(qat, QATModel)
    train(qat, 1)
    with torch.no_grad():
        qat.layers["/conv2"].weight[0] = float("nan")
    with pytest.raises(CalibrationError, match="layer 'conv2' are NaN"):
        convert(qat)
    broken, _ = prepared("residual")
    with torch.no_grad():
        broken.sites["/conv1"].scale.fill_(float("nan"))
    with pytest.raises(CalibrationError, match="step size or zero point is NaN"):
        train(broken, 1)


def test_a_step_below_zero_is_mirrored():
    qat, _ = prepared("residual")
    grid = qat.sites["/conv1"]
    assert isinstance(grid, LearnedGrid)
    expected = grid.qparams()
    with torch.no_grad():
        grid.scale.neg_()
    assert grid.qparams() == expected
