"""Networks as people write them: in-place changes, sizes, tuples. The trace computes the same, or refuses."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qlearn as ql
from qlearn.errors import FallbackWarning, UntraceableError


class Odd(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.c, self.d, self.function = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), function
        self.r, self.n = nn.ReLU(inplace=True), nn.BatchNorm2d(4)
        self.p = nn.Parameter(torch.randn(1, 4, 8, 8))

    def forward(self, x):
        return self.function(self, x)


def in_place_sum(m, x):
    y = m.c(x)
    y += m.d(x)
    return m.d(y) + y


def in_place_method(m, x):
    y = m.c(x)
    y.relu_()
    return y


def in_place_function(m, x):
    y = m.c(x)
    F.relu(y, inplace=True)
    return m.d(y) + y


def in_place_module(m, x):
    y = m.c(x)
    return m.d(m.r(y)) + y


def shuffle(m, x):
    n, c, h, w = x.shape
    return m.d(m.c(x).view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


def halves(m, x):
    a, b = m.c(x).chunk(2, dim=1)
    return torch.cat([b, F.relu(a)], dim=1)


def halves_in_place(m, x):
    a, b = torch.split(m.c(x), 2, dim=1)
    a.sigmoid_()
    b *= a
    return torch.cat([b, a], 1)


def part_in_place(m, x):
    y = m.c(x)
    a, b = y.chunk(2, 1)
    a.relu_()
    return y + torch.cat([a, b], 1)


def gate_in_place(m, x):
    y = m.c(x)
    y *= F.adaptive_avg_pool2d(y, 1).sigmoid()
    return m.d(y) + y


def unequal_chunks(m, x):
    a, b, c = torch.chunk(m.c(x), 3, 3)
    return torch.cat([c, b, a], -1) - torch.cat(tensors=(a, b, c), dim=3)


def norms_everywhere(m, x):
    y = m.n(x)
    return m.d(m.n(F.relu(m.c(F.pad(y, (1, 0, 0, 1))))))[:, :, :8, :8] + y


@torch.fx.wrap
def add(a, b):
    return a + 2 * b


SAME = {
    "in-place sum": in_place_sum,
    "in-place method": in_place_method,
    "in-place function": in_place_function,
    "in-place module": in_place_module,
    "in-place float layer": lambda m, x: m.d(F.silu(m.c(x), inplace=True)),
    "channel shuffle": shuffle,
    "chunks": halves,
    "chunks in place": halves_in_place,
    "gate in place": gate_in_place,
    "chunks that are not equal": unequal_chunks,
    "a tuple, concatenated": lambda m, x: torch.cat(m.c(x).chunk(2, 1)[::-1], 1) + torch.cat(x.split(2, 1), 1),
    "one norm in three places": norms_everywhere,
    "attention": lambda m, x: m.c(x).flatten(2) * F.softmax(m.d(x).flatten(2), -1),
    "sizes of the batch": lambda m, x: m.c(x).view(x.size(0), 2, -1).mean(2),
    "maximum of a tuple": lambda m, x: m.c(x).max(dim=1)[0],
    "weights computed from the input": lambda m, x: F.conv2d(x, x.mean((0, 2, 3)).reshape(1, 4, 1, 1)),
    "a limit computed from the input": lambda m, x: m.c(x).clamp(max=x.abs().mean()),
    "plus a function of a parameter": lambda m, x: m.c(x) + torch.sigmoid(m.p),
    "a keyword for a layer": lambda m, x: m.c(input=x),
    "an own function named add": lambda m, x: add(m.c(x), x),
    "an argument with a default": lambda m, x, k=2: m.c(x) * k,
    "norm after linear over the last axis": lambda m, x: F.linear(x, torch.eye(8)),
    "three branches": lambda m, x: m.c(x) + m.d(x) + x,
    "the input itself": lambda m, x: x,
    "a number taken from values": lambda m, x: m.c(x) / x.abs().max().item(),
    "x + x": lambda m, x: x + x,
}


@pytest.mark.parametrize("case", SAME)
def test_computes_the_same_and_keeps_the_contract(case):
    torch.manual_seed(0)
    module = Odd(SAME[case]).eval().requires_grad_(False)
    network = ql.trace(module, torch.zeros(1, 4, 8, 8))
    for size in (1, 2, 5):
        x = torch.randn(size, 4, 8, 8, generator=torch.Generator().manual_seed(size))
        before = x.clone()
        assert torch.allclose(network(x), module(x.clone()), atol=1e-6)
        assert torch.equal(x, before)
    network = ql.fold_batch_norm(network)
    assert torch.allclose(network(x), module(x.clone()), atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        model = ql.quantize_model(network, ql.Recipe(), ql.calibrate(network, [x], ql.Recipe()))
    assert torch.equal(x, before)
    assert ql.sqnr_db(network(x), model(x)) > 20
    for site, codes in model.to_integer("float32").codes(x.numpy()).items():
        assert np.array_equal(model.codes(x)[site].numpy(), codes), site


REFUSED = {
    "dropout that is always on": lambda m, x: F.dropout(m.c(x), 0.5),
    "a fixed batch size": lambda m, x: m.c(x).view(2, -1),
    "an output that ignores the input": lambda m, x: m.p,
    "a part that changes the whole in place": part_in_place,
    "a branch on a shape": lambda m, x: x if m.c(x).shape[1] != x.shape[1] else -x,
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_the_same_is_refused(case):
    with pytest.raises(UntraceableError):
        ql.trace(Odd(REFUSED[case]), torch.zeros(1, 4, 8, 8))


def test_hooks_are_noticed():
    module = Odd(lambda m, x: m.c(x))
    module.c.register_forward_hook(lambda layer, inputs, output: output * 2)
    with pytest.raises(UntraceableError, match="hooks"):
        ql.trace(module, torch.zeros(1, 4, 8, 8))


def test_a_norm_after_a_linear_layer_over_more_axes_is_not_folded():
    module = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).eval()
    module[1].running_mean.normal_()
    module[1].running_var.uniform_(0.5, 2.0)
    network = ql.trace(module, torch.zeros(1, 8, 8))
    x = torch.randn(3, 8, 8)
    assert torch.allclose(ql.fold_batch_norm(network)(x), module(x), atol=1e-6)


def test_double_precision_and_arrays_are_taken():
    network = ql.trace(nn.Conv2d(4, 4, 1), torch.zeros(1, 4, 8, 8))
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(network(x.double()), network(x))
    assert ql.calibrate(network, [x.double().numpy()], ql.Recipe()).images == 2
