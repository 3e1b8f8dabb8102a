"""Tracing plain modules: the traced network computes what the module computes, or says by name why it cannot."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qlearn.errors import GraphError, UntraceableError
from qlearn.graph.trace import trace

torch.manual_seed(0)
X = torch.randn(3, 4, 12, 12)


class Lambda(nn.Module):
    """Wrap a function of (module, x) as a network with one convolution and one batch norm at hand."""

    def __init__(self, function):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


def ops(network):
    return [node.op for node in network.nodes[1:]]


SUPPORTED = {
    "conv, as a function, with everything": (
        lambda m, x: F.conv2d(x, m.conv.weight, m.conv.bias, stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
        ["conv2d"],
    ),
    "conv with keywords": (lambda m, x: F.conv2d(x, weight=m.conv.weight, padding="same"), ["conv2d"]),
    "batch norm, as a function": (
        lambda m, x: F.batch_norm(x, m.norm.running_mean, m.norm.running_var, m.norm.weight, m.norm.bias, eps=0.1),
        ["batch_norm"],
    ),
    "relu, four ways": (lambda m, x: F.relu(torch.relu(x.relu().relu_()), inplace=True), ["clamp"] * 4),
    "relu6 and hardtanh": (lambda m, x: F.hardtanh(F.relu6(x), -0.5, 3.0), ["clamp", "clamp"]),
    "clamp": (lambda m, x: torch.clamp(x.clamp(max=2.0), min=-1), ["clamp", "clamp"]),
    "add, three ways": (lambda m, x: torch.add(x + m.conv(x), x).add(x), ["conv2d", "add", "add", "add"]),
    "add in place": (lambda m, x: m.conv(x).add_(x), ["conv2d", "add"]),
    "pooling": (
        lambda m, x: F.avg_pool2d(F.max_pool2d(x, 3, stride=2, padding=1), 2, count_include_pad=False),
        ["max_pool2d", "avg_pool2d"],
    ),
    "global pooling, three ways": (
        lambda m, x: F.adaptive_avg_pool2d(x, 1) + x.mean([2, 3], keepdim=True) + torch.mean(x, (-1, -2), keepdim=True),
        ["global_avg_pool", "global_avg_pool", "add", "global_avg_pool", "add"],
    ),
    "pooling by size": (lambda m, x: F.avg_pool2d(x, x.size()[3]).view(x.size(0), -1), ["avg_pool2d", "flatten"]),
    "flatten, four ways": (lambda m, x: torch.flatten(x, 1), ["flatten"]),
    "flatten by method": (lambda m, x: x.flatten(1), ["flatten"]),
    "flatten by view": (lambda m, x: x.view(x.shape[0], -1), ["flatten"]),
    "flatten by reshape": (lambda m, x: x.reshape(-1, 4 * 12 * 12), ["flatten"]),
    "view that changes nothing": (lambda m, x: x.view(x.size(0), 4, 12, 12).contiguous(), []),
    "strided slice": (lambda m, x: x[:, 1:3, ::2, 1::3], ["slice"]),
    "padding in space and over channels": (
        lambda m, x: F.pad(F.pad(x, (0, 1, 2, 3)), (0, 0, 0, 0, 2, 1)),
        ["pad", "pad"],
    ),
    "sigmoid, tanh, SiLU": (
        lambda m, x: F.silu(torch.tanh(x.sigmoid()).sigmoid_(), inplace=True),
        ["unary"] * 4,
    ),
    "hard functions": (lambda m, x: F.hardswish(F.hardsigmoid(x)), ["unary"] * 2),
    "multiply, three ways": (lambda m, x: torch.mul(x * m.conv(x), x).mul_(x), ["conv2d", *["multiply"] * 3]),
    "multiply by a gate": (
        lambda m, x: x * x.mean((2, 3), keepdim=True).sigmoid(),
        ["global_avg_pool", "unary", "multiply"],
    ),
    "subtract": (lambda m, x: torch.sub(m.conv(x) - x, x), ["conv2d", "subtract", "subtract"]),
    "concatenate": (lambda m, x: torch.cat([m.conv(x), torch.concat((x, x), -1)], -1), ["conv2d", *["concat"] * 2]),
    "softmax": (lambda m, x: F.softmax(x.flatten(1).softmax(-1), dim=1), ["flatten", "softmax", "softmax"]),
    "mean over channels": (lambda m, x: x.mean(1) + torch.mean(x, dim=-3), ["mean", "mean", "add"]),
    "reshape": (
        lambda m, x: x.view(x.size(0), 2, -1).unsqueeze(1).squeeze(1).flatten(-2),
        ["reshape"] * 3 + ["flatten"],
    ),
    "new axes by None": (lambda m, x: x.mean((2, 3))[:, :, None, None], ["global_avg_pool", "reshape"]),
    "transpose and permute": (
        lambda m, x: x.transpose(1, -1).permute(0, 3, 1, 2).permute((0, 2, 1, 3)).transpose(2, 2),
        ["transpose"] * 3,
    ),
    "chunks": (lambda m, x: x.chunk(2, 1)[1] + torch.chunk(x, 2, dim=-3)[0], ["slice", "slice", "add"]),
    "split": (lambda m, x: torch.split(x, [1, 3], dim=1)[-1] + x.split(3, 1)[0], ["slice", "slice", "add"]),
    "linear over the last axis": (lambda m, x: F.linear(x, torch.eye(12)[:5]), ["linear"]),
    "dropout disappears": (lambda m, x: F.dropout(x, 0.5, m.training) + x, ["add"]),
}


@pytest.mark.parametrize("case", SUPPORTED)
def test_functions_and_methods(case):
    function, expected = SUPPORTED[case]
    module = Lambda(function).eval()
    network = trace(module, torch.zeros(1, 4, 12, 12))
    assert ops(network) == expected
    assert torch.equal(network(X), module(X.clone()))


MODULES = [
    (nn.Conv2d(4, 6, 3, stride=2, padding=(1, 0), dilation=2, groups=2, bias=False), "conv2d"),
    (nn.Conv2d(4, 4, (3, 5), padding="same", groups=4), "conv2d"),
    (nn.Conv2d(4, 4, 3, padding="valid"), "conv2d"),
    (nn.BatchNorm2d(4, affine=False), "batch_norm"),
    (nn.ReLU(), "clamp"),
    (nn.ReLU6(inplace=True), "clamp"),
    (nn.Hardtanh(-2, 1), "clamp"),
    (nn.MaxPool2d(3, 2, 1), "max_pool2d"),
    (nn.AvgPool2d(2), "avg_pool2d"),
    (nn.AvgPool2d((3, 2), stride=(2, 1), padding=1, count_include_pad=False), "avg_pool2d"),
    (nn.AdaptiveAvgPool2d((1, 1)), "global_avg_pool"),
    (nn.Flatten(), "flatten"),
    (nn.ZeroPad2d((1, 0, 2, 3)), "pad"),
    (nn.ConstantPad2d(1, 0), "pad"),
    (nn.Sigmoid(), "unary"),
    (nn.Tanh(), "unary"),
    (nn.SiLU(inplace=True), "unary"),
    (nn.Hardswish(), "unary"),
    (nn.Hardsigmoid(), "unary"),
    (nn.Softmax(dim=-1), "softmax"),
    (nn.Unflatten(1, (2, 2)), "reshape"),
    (nn.Linear(12, 3), "linear"),
]


@pytest.mark.parametrize(("module", "op"), MODULES, ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else v)
def test_modules(module, op):
    network = trace(nn.Sequential(module, nn.Identity(), nn.Dropout()), torch.zeros(1, 4, 12, 12))
    assert ops(network) == [op]
    assert network.nodes[1].name == "0"
    assert torch.equal(network(X), module.eval()(X.clone()))


FLOAT = {
    "GroupNorm": (nn.GroupNorm(2, 4), "GroupNorm has no integer kernel"),
    "reflect padding": (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "padding_mode='reflect'"),
    "ceil_mode": (nn.MaxPool2d(2, ceil_mode=True), "ceil_mode"),
    "pool to 2x2": (nn.AdaptiveAvgPool2d(2), "adaptive_avg_pool2d to 2"),
    "flatten all": (nn.Flatten(0), "flatten other than"),
    "pad with ones": (nn.ConstantPad2d(1, 1.0), "only zeros"),
    "batch statistics": (nn.BatchNorm2d(4, track_running_stats=False), "without running statistics"),
    "clamp above zero": (Lambda(lambda m, x: x.clamp(min=1.0)), "leaves zero out"),
    "exponential": (Lambda(lambda m, x: torch.exp(x)), r"exp\(\) has no integer kernel"),
    "softmax over channels": (Lambda(lambda m, x: x.softmax(dim=1)), r"softmax over axis 1 of 4"),
    "times a constant": (Lambda(lambda m, x: x * 2), "mul with a constant operand"),
    "concatenation of the batch": (Lambda(lambda m, x: torch.cat([x, x])), "along the batch"),
    "chunks of the batch": (Lambda(lambda m, x: x.chunk(2)[0]), "of the batch"),
    "a transpose of the batch": (Lambda(lambda m, x: x.transpose(0, 1)), "must stay the first axis"),
    "a part of something else": (Lambda(lambda m, x: x.max(dim=1)[0]), r"max\(\) has no integer kernel"),
    "plus a constant": (Lambda(lambda m, x: x + 1), "with a constant operand"),
    "constant plus": (Lambda(lambda m, x: 1 + x), "with a constant operand"),
    "add with alpha": (Lambda(lambda m, x: torch.add(x, x, alpha=2)), "add with alpha"),
    "add that broadcasts": (Lambda(lambda m, x: x + x.mean((2, 3), keepdim=True)), "broadcasting"),
    "mean over everything": (Lambda(lambda m, x: x.mean((0, 1), keepdim=True)), "it would mix the batch"),
    "an index": (Lambda(lambda m, x: x[:, 0]), "only slices"),
    "half a batch": (Lambda(lambda m, x: x[:1]), "only slices"),
    "a reshape of the batch": (Lambda(lambda m, x: x.view(2 * x.size(0), 2, 12, 12)), "reshape from"),
    "negative padding": (Lambda(lambda m, x: F.pad(x, (-1, 0))), "negative"),
}


@pytest.mark.parametrize("case", FLOAT)
def test_other_layers_stay_in_float_with_the_reason(case):
    module, reason = FLOAT[case]
    module = nn.Sequential(module).eval()
    network = trace(module, torch.zeros(1, 4, 12, 12))
    kept = [node for node in network.nodes if node.op == "float"]
    assert len(kept) == 1
    assert torch.equal(network(X[:2]), module(X[:2]))
    assert re.search(reason, kept[0].attrs["reason"])


def test_a_reused_layer_gets_two_names():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv2d(4, 4, 1), nn.ReLU()

        def forward(self, x):
            return self.act(self.conv(self.act(self.conv(x))))

    network = trace(Twice(), torch.zeros(1, 4, 12, 12))
    assert [node.name for node in network.nodes] == ["input", "conv", "act", "conv_1", "act_1"]


def test_the_module_is_not_changed():
    module = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    module.train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    network = trace(module, torch.zeros(2, 4, 12, 12))
    module[0].weight.data.add_(1.0)  # and the traced network does not follow later changes
    assert module.training
    assert torch.equal(network.nodes[1].params["weight"], before["0.weight"])
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items() if key != "0.weight")


class Branch(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_value_dependent_branches_are_refused_with_layer_reason_and_remedy():
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.gate = nn.Conv2d(4, 4, 1), Branch()

        def forward(self, x):
            return self.gate(self.stem(x))

    with pytest.raises(UntraceableError) as caught:
        trace(Outer(), torch.zeros(1, 4, 12, 12))
    for part in ("Outer", "layer 'gate'", "control flow", "torch.where"):
        assert part in str(caught.value)
    with pytest.raises(UntraceableError, match="the top-level forward"):
        trace(Branch(), torch.zeros(1, 4))


def test_other_refusals_name_the_reason():
    class TwoInputs(nn.Module):
        def forward(self, x, y):
            return x + y

    class TwoOutputs(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(UntraceableError, match=r"forward\(\) takes \['x', 'y'\]"):
        trace(TwoInputs(), torch.zeros(1, 4))
    with pytest.raises(UntraceableError, match="returns tuple"):
        trace(TwoOutputs(), torch.zeros(1, 4))
    with pytest.raises(UntraceableError, match="does not run through"):
        trace(nn.Conv2d(3, 3, 1), torch.zeros(1, 4, 8, 8))
    with pytest.raises(GraphError, match=r"takes an nn.Module, got function"):
        trace(lambda x: x, torch.zeros(1, 4))
    for bad in (torch.zeros(0, 3), torch.zeros(3), [1.0]):
        with pytest.raises(GraphError, match="example batch"):
            trace(nn.ReLU(), bad)


def test_calls_with_the_wrong_input_name_the_shape():
    network = trace(nn.Conv2d(4, 4, 1), torch.zeros(1, 4, 12, 12), name="net")
    for bad in (torch.zeros(1, 4, 12, 13), torch.zeros(4, 12, 12), torch.zeros(0, 4, 12, 12)):
        with pytest.raises(GraphError, match=r"net takes a batch of shape \(N, 4, 12, 12\)"):
            network(bad)
    with pytest.raises(GraphError, match=r"torch.int64"):
        network(torch.zeros(1, 4, 12, 12, dtype=torch.int64))
    with pytest.raises(GraphError, match="no node 'nope'"):
        network.node("nope")
    assert math.isnan(network(torch.full((1, 4, 12, 12), math.nan)).sum().item())


def test_a_layer_name_that_torch_fx_cannot_write_is_named():
    module = nn.Sequential()
    module.add_module("größe→🚀 a/b", nn.ReLU())
    assert trace(module, torch.zeros(1, 3)).output == "größe→🚀 a/b"
    module.add_module("line\nbreak", nn.ReLU())
    with pytest.raises(UntraceableError, match=r"cannot write code for the layer names .*rename"):
        trace(module, torch.zeros(1, 3))


BROKEN_WEIGHTS = {
    "8 of 16 values of 1.weight are NaN or infinite, the first at \\[1, 0\\]": lambda net: (
        net[1].weight[1:].fill_(math.nan)
    ),
    "1 of 2 values of 1.bias are NaN or infinite, the first at \\[0\\]": lambda net: net[1].bias[:1].fill_(math.inf),
    "1 of 2 values of 2.running_var are NaN": lambda net: net[2].running_var[1:].fill_(math.nan),
    "1.weight is float16, .* call module.float": lambda net: net.half(),
    "1.weight is float64": lambda net: net.double(),
}


@pytest.mark.parametrize("message", BROKEN_WEIGHTS)
def test_weights_that_cannot_be_quantized_are_named(message):
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        BROKEN_WEIGHTS[message](net)
    with pytest.raises(GraphError, match=message):
        trace(net, torch.zeros(1, 8))
