"""What choices cost and what they use, against the whole pipeline, plain loops and exact second derivatives."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import make, pictures
from torch import nn

import qlearn as ql
from qlearn.analysis.mixed_precision import (
    Choice,
    bit_operations,
    hessian_costs,
    hessian_traces,
    measure_choices,
    weight_bytes,
    with_choices,
)
from qlearn.analysis.mixed_precision.hessian import TraceEstimate
from qlearn.errors import DataError, GraphError, RecipeError

RECIPE = ql.Recipe(activations=ql.TensorRecipe(scheme="affine", calibrator="minmax"))
FLOAT = ql.Recipe(activations=None, weights=None)


def folded(name="residual"):
    return ql.fold_batch_norm(ql.trace(make(name), pictures(1), name=name))


def batches(network, count=12):
    x = pictures(count)
    labels = network(x).argmax(1)
    labels[::3] = 0
    return [(x[: count // 2], labels[: count // 2]), (x[count // 2 :], labels[count // 2 :])]


@pytest.mark.filterwarnings("ignore::qlearn.errors.FallbackWarning")
@pytest.mark.parametrize("name", ["residual", "depthwise", "mixed"])
def test_logits_are_those_of_the_pipeline_with_one_tensor_quantized(name):
    network = folded(name)
    data = batches(network)
    found = measure_choices(network, RECIPE, data, weight_bits=(2, 5), activation_bits=(3, 8))
    x = torch.cat([images for images, _ in data])
    assert np.array_equal(found.reference, network(x).double().numpy())
    assert {choice.tensor for choice in found.logits} == {"weights", "activations"}
    for choice, logits in found.logits.items():
        mine = getattr(with_choices(RECIPE, [choice]).for_layer(choice.layer), choice.tensor)
        alone = FLOAT.with_layer(choice.layer, **{choice.tensor: mine})
        quantized = ql.quantize_model(network, alone, ql.calibrate(network, data, alone))
        np.testing.assert_allclose(logits, quantized(x).double().numpy(), rtol=0, atol=1e-6, err_msg=str(choice))


def test_measures_against_plain_loops():
    network = folded()
    data = batches(network)
    found = measure_choices(network, RECIPE, data, weight_bits=(2, 3))
    labels = torch.cat([labels for _, labels in data]).tolist()
    sqnr, kl, accuracy = (found.costs(measure) for measure in ("sqnr", "kl", "accuracy"))
    for choice, logits in found.logits.items():
        noise = sum((a - b) ** 2 for a, b in zip(logits.ravel(), found.reference.ravel(), strict=True))
        assert sqnr[choice] == pytest.approx(noise / sum(b**2 for b in found.reference.ravel()))
        assert found.sqnr_db(choice) == pytest.approx(-10 * math.log10(sqnr[choice]))
        divergence, lost = 0.0, 0
        for ours, theirs, label in zip(logits.tolist(), found.reference.tolist(), labels, strict=True):
            p, q = ([math.exp(v) / sum(map(math.exp, row)) for v in row] for row in (theirs, ours))
            divergence += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            lost += (theirs.index(max(theirs)) == label) - (ours.index(max(ours)) == label)
        assert kl[choice] == pytest.approx(divergence / len(labels))
        assert accuracy[choice] == pytest.approx(max(0, lost) / len(labels))
    wanted = F.kl_div(
        torch.log_softmax(torch.tensor(logits), 1),
        torch.softmax(torch.tensor(found.reference), 1),
        reduction="batchmean",
    )
    assert kl[choice] == pytest.approx(wanted.item())


def test_more_bits_hurt_less_on_the_whole():
    network = folded()
    costs = measure_choices(network, RECIPE, batches(network), weight_bits=(2, 4, 8), activation_bits=(2, 8, 16)).costs(
        "sqnr"
    )
    for layer, tensor in {choice.slot for choice in costs}:
        mine = [
            cost
            for choice, cost in sorted(costs.items(), key=lambda item: item[0].bits)
            if choice.slot == (layer, tensor)
        ]
        assert mine == sorted(mine, reverse=True)
        assert mine[0] > 30 * mine[-1]


def test_widths_that_push_a_layer_into_float_are_left_out():
    network = folded("mixed")  # the SiLU reads the first convolution by a table of 256 codes
    assert network.nodes[2].op == "unary"
    costs = measure_choices(network, RECIPE, batches(network), weight_bits=(), activation_bits=(8, 16)).costs("kl")
    first = network.nodes[1].name
    assert Choice(first, "activations", 8) in costs
    assert Choice(first, "activations", 16) not in costs
    assert Choice("input", "activations", 16) in costs


def test_wrong_input_to_measure():
    network = folded()
    data = batches(network)
    with pytest.raises(RecipeError, match=r"no layer 'conv9'.*did you mean"):
        measure_choices(network, RECIPE, data, layers=["conv9"])
    with pytest.raises(RecipeError, match="no tensor whose bits"):
        measure_choices(network, RECIPE, data, layers=[])
    with pytest.raises(RecipeError, match="weights of 'conv1' in float"):
        measure_choices(network, FLOAT, data)
    with pytest.raises(DataError, match="no pictures"):
        measure_choices(network, RECIPE, [])
    with pytest.raises(DataError, match="logits are NaN"):  # and not a divergence of 0 for every choice
        measure_choices(network, RECIPE, [pictures(2) * math.nan], weight_bits=(8,))
    unlabelled = measure_choices(network, RECIPE, [images for images, _ in data], weight_bits=(8,))
    with pytest.raises(DataError, match="needs labels"):
        unlabelled.costs("accuracy")
    with pytest.raises(RecipeError, match="no measure 'taste'"):
        unlabelled.costs("taste")
    with pytest.raises(DataError, match="labels of shape"):
        measure_choices(network, RECIPE, [(pictures(3), torch.zeros(2, dtype=torch.int64))], weight_bits=(8,))
    once = iter(data)  # calibrated on and measured on, though it can be read only once
    assert measure_choices(network, RECIPE, once, weight_bits=(), activation_bits=(8,)).images == 12


class Smooth(nn.Module):
    """Few weights, curved, all parameters in two layers: its whole Hessian fits on a page."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 2, 2), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.conv(x)).flatten(1))


def smooth():
    torch.manual_seed(0)
    network, x = ql.trace(Smooth().eval(), torch.zeros(1, 1, 3, 3)), 2 * torch.randn(20, 1, 3, 3)
    return network, x, network(x).argmax(1)


def exact_traces(network, x, labels):
    traces = {}
    for name in ("conv", "head"):
        weight = network.node(name).params["weight"].double()

        def loss(w, name=name):
            values = {
                n.name: {key: value.double() for key, value in n.params.items()} for n in network.nodes if n.params
            }
            values[name]["weight"] = w
            y = torch.tanh(F.conv2d(x.double(), values["conv"]["weight"], values["conv"]["bias"])).flatten(1)
            return F.cross_entropy(F.linear(y, values["head"]["weight"], values["head"]["bias"]), labels)

        hessian = torch.autograd.functional.hessian(loss, weight).reshape(weight.numel(), weight.numel())
        traces[name] = hessian.trace().item()
    return traces


def test_traces_lie_within_their_standard_error_of_the_exact_ones():
    network, x, labels = smooth()
    exact = exact_traces(network, x, labels)
    found = hessian_traces(network, [(x[:7], labels[:7]), (x[7:], labels[7:])], vectors=400)
    for name, trace in exact.items():
        estimate = found[name]
        assert abs(estimate.trace - trace) < 4 * estimate.standard_error, name
        assert estimate.standard_error < 0.2 * abs(trace), name
        assert estimate.weights == network.node(name).params["weight"].numel()
        assert estimate.average == estimate.trace / estimate.weights
    again = hessian_traces(network, [(x, labels)], vectors=400)
    other = hessian_traces(network, [(x, labels)], vectors=400, seed=1)
    for name in exact:  # the loss is a mean over pictures, however they are cut into batches
        np.testing.assert_allclose(again[name].samples, found[name].samples, rtol=1e-3, atol=1e-4)
        assert not np.allclose(other[name].samples, found[name].samples)


def test_a_diagonal_hessian_needs_one_vector():
    """Two classes, one weight that matters: p (1 - p) x**2 by hand."""
    layer = nn.Linear(1, 2, bias=False)
    layer.weight.data = torch.tensor([[0.3], [0.0]])
    network = ql.trace(nn.Sequential(layer), torch.zeros(1, 1))
    x = torch.tensor([[2.0]])
    p = 1 / (1 + math.exp(-0.6))
    samples = hessian_traces(network, [(x, torch.tensor([0]))], vectors=8)["0"].samples
    curvature = (
        p * (1 - p) * 4
    )  # H = curvature * [[1, -1], [-1, 1]]: v' H v is 0 or 4 * curvature, its mean 2 * curvature
    assert set(np.round(samples / curvature, 4)) == {0.0, 4.0}


def test_hessian_costs_are_average_trace_times_the_sum_of_squares():
    network, x, labels = smooth()
    traces = hessian_traces(network, [(x, labels)], vectors=4)
    recipe = ql.Recipe(weights=ql.TensorRecipe(scheme="symmetric_restricted"))
    costs = hessian_costs(network, recipe, traces, weight_bits=(3,))
    for name, estimate in traces.items():
        weights = network.node(name).params["weight"].flatten().tolist()
        step = max(map(abs, weights)) / 3
        squares = sum((round(w / step) * step - w) ** 2 for w in weights)
        assert costs[Choice(name, "weights", 3)] == pytest.approx(
            max(estimate.trace, 0) / len(weights) * squares, rel=1e-4
        )
        assert costs[Choice(name, "weights", 3)] > 0
    flat = {"conv": replace(traces["conv"], samples=np.array([-1.0, -2.0]))}
    assert set(hessian_costs(network, recipe, flat).values()) == {0.0}
    assert TraceEstimate(np.array([1.0]), 1).standard_error == math.inf


def test_wrong_input_to_the_hessian():
    network, x, labels = smooth()
    with pytest.raises(DataError, match="needs labels"):
        hessian_traces(network, [x])
    with pytest.raises(DataError, match="no pictures"):
        hessian_traces(network, [])
    with pytest.raises(DataError, match="labels of shape"):
        hessian_traces(network, [(x, labels[:3])])
    with pytest.raises(RecipeError, match="vectors=0"):
        hessian_traces(network, [(x, labels)], vectors=0)
    with pytest.raises(RecipeError, match="no layer 'body'"):
        hessian_traces(network, [(x, labels)], layers=["body"])
    with pytest.raises(RecipeError, match="with weights are conv, head"):
        hessian_traces(network, [(x, labels)], layers=["input"])
    with pytest.raises(GraphError, match="not finite"):
        hessian_traces(network, [(x * float("nan"), labels)], vectors=2)
    assert all(not value.requires_grad for node in network.nodes for value in node.params.values())


@pytest.mark.parametrize("name", ["residual", "depthwise"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_bytes_are_those_of_the_model_that_is_made(name, bits):
    network = folded(name)
    resource = weight_bytes(network, RECIPE)
    layers = [node.name for node in network.nodes if node.op in ("conv2d", "linear")]
    choices = [Choice(layers[0], "weights", bits)]
    recipe = with_choices(RECIPE, choices)
    model = ql.quantize_model(network, recipe, ql.calibrate(network, [pictures(4)], recipe)).to_integer()
    assert resource.usage(choices) == model.packed_bytes == weight_bytes(network, recipe).usage()
    assert resource.usage() == model.weight_bytes  # 8 bits: packed is stored


def test_bit_operations_by_hand():
    """A first layer of 3 x 3 x 3 on 15 x 15 at stride 2, a dilated one, a linear layer behind two poolings."""
    network = folded("residual")
    resource = bit_operations(network, RECIPE)
    conv1, conv2, head = 7 * 8 * 8 * 27, 7 * 8 * 8 * 63, 5 * 28
    assert resource.usage() == 64 * (conv1 + conv2 + head)
    assert resource.usage([Choice("conv2", "weights", 4)]) == 64 * (conv1 + head) + 32 * conv2
    assert resource.usage([Choice("input", "activations", 16)]) == 128 * conv1 + 64 * (conv2 + head)
    add = next(node.name for node in network.nodes if node.op == "add")  # the poolings keep its scale
    assert resource.usage([Choice(add, "activations", 2)]) == 64 * (conv1 + conv2) + 16 * head
    assert bit_operations(network, FLOAT).usage() == 32 * 32 * (conv1 + conv2 + head)


def test_choices_that_a_recipe_cannot_take():
    with pytest.raises(RecipeError, match="weights or activations"):
        with_choices(RECIPE, [Choice("conv1", "bias", 8)])
    with pytest.raises(RecipeError, match="in float"):
        with_choices(FLOAT, [Choice("conv1", "weights", 8)])
