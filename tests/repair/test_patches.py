"""Sampled inputs and outputs belong together: the product of the patches with the weights is what torch computes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlearn.graph.model import Node
from qlearn.graph.ops import FLOAT_OPS
from qlearn.repair.patches import sample


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    groups=st.integers(1, 4),
    per_group=st.integers(1, 3),
    outputs=st.integers(1, 3),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    each=st.integers(1, 200),
)
def test_convolutions_of_every_kind(seed, groups, per_group, outputs, kernel, stride, padding, dilation, each):
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(groups * outputs, per_group, *kernel, generator=g)
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    node = Node("conv", "conv2d", ("x",), attrs, {"weight": weight})
    x = torch.randn(3, groups * per_group, 9, 7, generator=g)
    y = FLOAT_OPS["conv2d"](node, [x])
    inputs, targets = sample(node, x, y, each, g)
    positions = min(each, y.shape[2] * y.shape[3])
    assert inputs.shape == (groups, 3 * positions, weight[0].numel())
    expected = inputs @ weight.reshape(groups, outputs, -1).transpose(1, 2)
    assert torch.allclose(targets, expected, atol=1e-4)
    if positions == y.shape[2] * y.shape[3]:  # every output once
        assert torch.equal(targets.flatten().sort().values, y.flatten().sort().values)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5)])
def test_linear_layers_over_any_axes(shape):
    g = torch.Generator().manual_seed(0)
    node = Node("fc", "linear", ("x",), {}, {"weight": torch.randn(3, 5, generator=g)})
    x = torch.randn(6, *shape, generator=g)
    y = FLOAT_OPS["linear"](node, [x])
    inputs, targets = sample(node, x, y, 3, g)
    positions = min(3, x[0].numel() // 5)
    assert inputs.shape == (1, 6 * positions, 5)
    assert torch.allclose(inputs[0] @ node.params["weight"].T, targets[0], atol=1e-5)


def test_the_generator_decides():
    node = Node("fc", "linear", ("x",), {}, {"weight": torch.ones(2, 4)})
    x = torch.rand(2, 50, 4)
    y = FLOAT_OPS["linear"](node, [x])
    first, again, other = (sample(node, x, y, 5, torch.Generator().manual_seed(s))[0] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
