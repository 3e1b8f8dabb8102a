"""Folding and fusing keep the function, and leave alone what they must."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qlearn.graph.fold import fold_batch_norm
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.split import split_silu
from qlearn.graph.trace import trace


def randomized(module: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.01, 4.0, generator=generator)
            layer.weight.data.normal_(generator=generator)
            layer.bias.data.normal_(generator=generator)
    return module


@settings(deadline=None, max_examples=30)
@given(
    groups=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
    stride=st.integers(1, 2),
    kernel=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_folding_keeps_the_function(groups, bias, stride, kernel, seed):
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(4, 8, kernel, stride, padding=1, groups=groups, bias=bias),
        nn.BatchNorm2d(8, eps=1e-3),
        nn.ReLU6(),
        nn.Flatten(),
        nn.LazyLinear(5, bias=bias),
        nn.BatchNorm1d(5),
    )
    x = torch.randn(4, 4, 9, 9)
    module(x)  # the lazy layer takes its shape
    network = trace(randomized(module, seed), x)
    before = [{key: value.clone() for key, value in node.params.items()} for node in network.nodes]
    folded = fold_batch_norm(network)
    expected = network(x)
    span = float(expected.max() - expected.min())
    assert torch.allclose(folded(x), expected, rtol=0, atol=1e-5 * span)
    assert [node.op for node in folded.nodes] == ["input", "conv2d", "clamp", "flatten", "linear"]
    for node, params in zip(network.nodes, before, strict=True):
        assert all(torch.equal(node.params[key], params[key]) for key in params)


def test_folding_follows_the_formula_in_exact_arithmetic():
    module = randomized(nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)), 7)
    conv, norm = module.requires_grad_(False)
    folded = fold_batch_norm(trace(module, torch.zeros(1, 2, 4, 4))).node("0")
    for o in range(3):
        factor = float(norm.weight[o]) / (float(norm.running_var[o]) + norm.eps) ** 0.5
        for i in range(2):
            assert float(folded.params["weight"][o, i, 0, 0]) == pytest.approx(
                float(conv.weight[o, i]) * factor, rel=1e-5
            )
        expected = float(norm.bias[o]) + (float(conv.bias[o]) - float(norm.running_mean[o])) * factor
        assert float(folded.params["bias"][o]) == pytest.approx(expected, rel=1e-5)


class Residual(nn.Module):
    """The convolution is read twice: by the norm and by the sum."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x):
        y = self.conv(x)
        return self.act(self.norm(y) + y)


def shape_of(network):
    return [(node.op, node.attrs.get("groups", 1)) for node in network.nodes[1:]]


def test_a_norm_without_a_layer_before_it_becomes_a_depthwise_convolution():
    x = torch.randn(2, 4, 6, 6)
    shared = fold_batch_norm(trace(randomized(Residual(), 0), x))
    assert shape_of(shared) == [("conv2d", 1), ("conv2d", 4), ("add", 1), ("clamp", 1)]
    assert shared.node("norm").attrs["padding"] == (0, 0, 0, 0)
    after_relu = trace(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)), x)
    assert shape_of(fold_batch_norm(after_relu)) == [("conv2d", 1), ("clamp", 1), ("conv2d", 4)]
    assert shape_of(fold_batch_norm(fuse_activations(after_relu))) == [("conv2d", 1), ("conv2d", 4)]
    padded = trace(nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)), x)
    assert shape_of(fold_batch_norm(padded)) == [("conv2d", 4), ("conv2d", 1)]


@settings(deadline=None, max_examples=30)
@given(groups=st.sampled_from([1, 2, 4]), bias=st.booleans(), padding=st.integers(0, 1), seed=st.integers(0, 2**16))
def test_folding_forward_keeps_the_function(groups, bias, padding, seed):
    torch.manual_seed(seed)
    convolution = nn.Conv2d(4, 8, 3, stride=2, padding=padding, groups=groups, bias=bias)
    module = nn.Sequential(
        nn.BatchNorm2d(4), convolution, nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(8 * (3 + padding) ** 2)
    )
    module.append(nn.Linear(8 * (3 + padding) ** 2, 5, bias=bias))
    network = trace(randomized(module, seed).eval(), torch.zeros(1, 4, 8, 8))
    folded, x = fold_batch_norm(network), torch.randn(4, 4, 8, 8)
    expected = network(x)
    assert torch.allclose(folded(x), expected, rtol=0, atol=1e-5 * float(expected.max() - expected.min()))
    assert [node.op for node in folded.nodes[1:]] == ["conv2d"] * (1 + padding) + ["clamp", "flatten", "linear"]


def test_a_norm_over_other_axes_without_a_layer_to_fold_into_stays():
    network = trace(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.ReLU()), torch.zeros(1, 4, 2, 2))
    assert [node.op for node in fold_batch_norm(network).nodes] == ["input", "flatten", "batch_norm", "clamp"]


def test_folding_the_output_layer_moves_the_output():
    x = torch.randn(2, 4, 6, 6)
    network = trace(randomized(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)), 1), x)
    folded = fold_batch_norm(network)
    assert folded.output == "0"
    assert torch.allclose(folded(x), network(x), atol=1e-5)


def test_fusing_is_exact_and_idempotent():
    x = torch.randn(2, 4, 6, 6) * 5
    network = trace(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU6(), nn.MaxPool2d(2), nn.ReLU()), x)
    fused = fuse_activations(network)
    assert [n.op for n in fused.nodes] == ["input", "conv2d", "max_pool2d", "clamp"]
    assert fused.node("0").attrs["clamp"] == (0.0, 6.0)
    assert torch.equal(fused(x), network(x))
    assert [n.name for n in fuse_activations(fused).nodes] == [n.name for n in fused.nodes]
    residual = fuse_activations(trace(Residual().eval(), x))
    assert [n.op for n in residual.nodes] == ["input", "conv2d", "batch_norm", "add"]
    assert residual.nodes[-1].attrs["clamp"] == (0.0, np.inf)


def test_dead_channels_fold_to_a_constant():
    module = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.BatchNorm2d(2, eps=1e-3))
    module[0].weight.data[0] = 0.0
    module[1].running_var[0] = 0.0
    module[1].bias.data[0] = 5.25
    x = torch.randn(3, 2, 4, 4)
    folded = fold_batch_norm(trace(module.eval(), x))
    assert torch.all(folded(x)[:, 0] == 5.25)


def test_a_silu_is_split_into_a_sigmoid_and_a_product():
    x = torch.randn(2, 4, 6, 6) * 3
    network = trace(nn.Sequential(nn.Conv2d(4, 4, 1), nn.SiLU(), nn.Hardswish(), nn.SiLU()), x)
    split = split_silu(network)
    assert [node.op for node in split.nodes[1:]] == ["conv2d", "unary", "multiply", "unary", "unary", "multiply"]
    assert split.node("1").inputs == ("0", "1.sigmoid")
    assert split.output == network.output
    assert torch.allclose(split(x), network(x), atol=1e-6)
