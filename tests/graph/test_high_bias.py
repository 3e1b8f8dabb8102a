"""High-bias absorption: what is moved, what it costs in the tail and beside padding, and who is left alone."""

import pytest
import torch
from torch import nn

import qlearn as ql
from qlearn.graph.fold import OutputStatistics
from qlearn.graph.high_bias import absorb_high_bias, high_biases
from qlearn.graph.model import Node


def network(kernel=1, padding=0, between=(), act=None, mean=(5.0, 0.5), std=1.0):
    """A convolution that gives normal values with these means to normal input, and one that reads it."""
    first, second = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 3, kernel, padding=padding)
    with torch.no_grad():
        first.weight.copy_(torch.eye(2).reshape(2, 2, 1, 1) * std)
        first.bias.copy_(torch.tensor(mean))
        second.weight.normal_(generator=torch.Generator().manual_seed(0))
    net = ql.trace(
        nn.Sequential(first, act or nn.ReLU(), *between, second).requires_grad_(False), torch.zeros(1, 2, 8, 8)
    )
    statistics = OutputStatistics(torch.tensor(mean), torch.full((2,), std))
    return net.with_nodes(node.with_attrs(bn=statistics) if node.name == "0" else node for node in net.nodes)


def pictures(count=200):
    return torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def test_amounts_follow_the_formula():
    (found,) = high_biases(network())
    assert found.layer == "0"
    assert found.amounts.tolist() == [2.0, 0.0]  # 5 - 3, and 0.5 - 3
    assert found.border_error == 0.0
    (wider,) = high_biases(network(), sigmas=2.0)
    assert wider.amounts.tolist() == [3.0, 0.0]


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("act", [nn.ReLU(), nn.ReLU6()], ids=str)
@pytest.mark.parametrize("between", [(), (nn.MaxPool2d(2),), (nn.AvgPool2d(2),)], ids=["conv", "max", "avg"])
def test_only_the_tail_changes(act, between, fuse):
    net = network(act=act, between=between)
    net = ql.fuse_activations(net) if fuse else net
    absorbed, x = absorb_high_bias(net), pictures()
    values = {}
    net(x, lambda node, value: values.setdefault(node.name, value))
    tail = (values["0"][:, 0] < 2.0).float().mean()  # values below c = 2, of a normal with mean 5 and deviation 1
    assert 0.0005 < float(tail) < 0.003
    difference = (absorbed(x) - net(x)).abs().amax(dim=1)
    changed = difference > 1e-5
    assert float(changed.float().mean()) < 4 * 0.003
    hidden = any(isinstance(layer, nn.MaxPool2d) for layer in between)  # the smallest of four values is never seen
    assert hidden or bool(changed.any())
    assert absorbed.node("0").params["bias"].tolist() == [3.0, 0.5]
    assert absorbed.node("0").attrs["bn"].mean.tolist() == [3.0, 0.5]
    if isinstance(act, nn.ReLU6):
        assert absorbed.node("0" if fuse else "1").attrs["clamp"][1].tolist() == [4.0, 6.0]


def test_absorbed_activations_are_smaller():
    net, x, seen = network(), pictures(), []
    for model in (net, absorb_high_bias(net)):
        model(x, lambda node, value: seen.append(float(value[:, 0].max())) if node.name == "1" else None)
    assert seen[1] == pytest.approx(seen[0] - 2.0, abs=1e-5)


def test_the_border_error_is_what_is_stated():
    """Beside zero padding, the kernel reads 0 where the bias adds c all the same."""
    net, x = network(kernel=3, padding=1), pictures()
    (found,) = high_biases(net)
    assert absorb_high_bias(net).node("2").params["bias"].equal(net.node("2").params["bias"])  # left alone
    absorbed = absorb_high_bias(net, at_borders=True)
    difference = (absorbed(x) - net(x)).abs()
    weight = net.node("2").params["weight"][:, 0]
    corners = [weight.sum((1, 2)) - weight[:, rows, columns].sum((1, 2))
               for rows in (slice(1, 3), slice(0, 2), slice(0, 3))
               for columns in (slice(1, 3), slice(0, 2), slice(0, 3))]  # fmt: skip
    by_hand = 2.0 * float(torch.stack(corners).abs().max())
    assert found.border_error == pytest.approx(by_hand, rel=1e-5)
    inside, border = difference[:, :, 1:-1, 1:-1], torch.cat([difference[:, :, 0], difference[:, :, -1]], dim=2)
    assert float(inside.median()) < 1e-5
    assert float(border.median(dim=0).values.max()) == pytest.approx(by_hand, rel=0.6)
    assert float(border.median()) > 0.1


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x):
        y = torch.relu(self.first(x))
        return self.second(y) + y


def test_what_cannot_take_it_over_is_left_alone():
    net = ql.trace(Residual(), torch.zeros(1, 2, 4, 4))
    statistics = OutputStatistics(torch.tensor([5.0, 5.0]), torch.ones(2))
    net = net.with_nodes(node.with_attrs(bn=statistics) if node.name == "first" else node for node in net.nodes)
    assert high_biases(net) == []  # the sum reads it too
    assert high_biases(network(act=nn.SiLU())) == []
    assert high_biases(network(act=nn.Hardtanh(-1.0, 8.0))) == []
    assert high_biases(network(mean=(1.0, 0.5))) == []  # nothing is high
    plain = network()
    bare = plain.with_nodes(
        Node(n.name, n.op, n.inputs, {k: v for k, v in n.attrs.items() if k != "bn"}, n.params) for n in plain.nodes
    )
    assert high_biases(bare) == []


def test_a_channel_that_never_leaves_six_keeps_its_amount_below_it():
    (found,) = high_biases(network(act=nn.ReLU6(), mean=(20.0, 0.5)))
    assert found.amounts.tolist() == [6.0, 0.0]
    net, x = network(act=nn.ReLU6(), mean=(20.0, 0.5)), pictures(5)
    assert torch.allclose(absorb_high_bias(net)(x), net(x), atol=1e-4)


def test_a_linear_layer_takes_it_over_feature_by_feature():
    first, linear = nn.Conv2d(2, 2, 1), nn.Linear(2 * 16, 3)
    with torch.no_grad():
        first.weight.copy_(torch.eye(2).reshape(2, 2, 1, 1) * 0.1)
        first.bias.copy_(torch.tensor([4.0, 1.0]))
    net = ql.trace(nn.Sequential(first, nn.ReLU(), nn.Flatten(), linear).requires_grad_(False), torch.zeros(1, 2, 4, 4))
    statistics = OutputStatistics(torch.tensor([4.0, 1.0]), torch.tensor([0.1, 0.1]))
    net = net.with_nodes(node.with_attrs(bn=statistics) if node.name == "0" else node for node in net.nodes)
    x = torch.randn(50, 2, 4, 4, generator=torch.Generator().manual_seed(3)).clamp(-2.9, 2.9)  # nothing in the tail
    assert torch.allclose(absorb_high_bias(net)(x), net(x), atol=1e-4)
    assert (high_biases(net)[0].amounts > 0).all()
