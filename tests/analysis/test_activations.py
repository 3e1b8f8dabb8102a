"""The study of activation functions against the 8-bit path written out with NumPy and plain functions."""

import json
import math

import numpy as np
import pytest
import torch

import qlearn as ql
from qlearn.analysis.activations import ACTIVATION_FUNCTIONS, normal_inputs
from qlearn.errors import DataError
from qlearn.zoo.models.families import family

PLAIN = {
    "relu": lambda v: max(v, 0.0),
    "relu6": lambda v: min(max(v, 0.0), 6.0),
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "tanh": math.tanh,
    "silu": lambda v: v / (1 + math.exp(-v)),
    "hard_swish": lambda v: v * min(max(v + 3, 0), 6) / 6,
    "hard_sigmoid": lambda v: min(max(v + 3, 0), 6) / 6,
}
MINMAX = ql.TensorRecipe(scheme="affine", calibrator="minmax")


def affine(lo, hi):
    """Scale and zero point by the paper's eq. 3 and 4, for [-128, 127], range reaching to zero."""
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    scale = float(np.float32((hi - lo) / 255))
    return scale, max(-128, min(127, round(-128 - lo / scale)))


def through(values, scale, zero):
    return [(max(-128, min(127, round(v / scale) + zero)) - zero) * scale for v in values]


def sqnr(exact, other):
    return 10 * math.log10(sum(v * v for v in exact) / sum((a - b) ** 2 for a, b in zip(exact, other, strict=True)))


@pytest.mark.parametrize("function", ACTIVATION_FUNCTIONS)
def test_the_path_by_hand(function):
    x = torch.randn(3000, generator=torch.Generator().manual_seed(4)) * 3
    values, f = x.double().tolist(), PLAIN[function]
    exact = [f(v) for v in values]
    q_in = affine(min(values), max(values))
    fixed = {"sigmoid": (1 / 256, -128), "tanh": (1 / 128, 0)}
    q_out = fixed.get(function) or affine(min(exact), max(exact))
    output_only = through(exact, *q_out)
    seen = through(values, *q_in)
    if function == "relu":
        table = [max(v, 0.0) for v in seen]
    elif function == "relu6":
        six = round(6 / q_in[0]) * q_in[0]
        table = [min(max(v, 0.0), six) for v in seen]
    else:
        table = through([f(v) for v in seen], *q_out)
    deployed = output_only if function in ("relu", "relu6") else table
    row = ql.activation_study({"x": x}, [function], recipe=MINMAX).row(function, "x")
    assert row.output_db == pytest.approx(sqnr(exact, output_only), abs=0.05)
    assert row.table_db == pytest.approx(sqnr(exact, table), abs=0.05)
    assert row.deployed_db == (row.output_db if function in ("relu", "relu6") else row.table_db)
    assert row.against_relu_db == pytest.approx(sqnr([max(v, 0.0) for v in values], deployed), abs=0.05)


def test_what_is_measured_about_the_claim_of_the_paper():
    """§4 says that ReLU beats ReLU6 by SQNR. Against its own output ReLU6 is never worse; against ReLU's it is."""
    study = ql.activation_study(normal_inputs([1.0, 4.0], samples=20_000))
    for label in ("N(0, 1)", "N(0, 4)"):
        assert study.row("relu6", label).deployed_db >= study.row("relu", label).deployed_db - 0.01
    assert study.row("relu6", "N(0, 4)").against_relu_db < 20 < study.row("relu", "N(0, 4)").against_relu_db
    # a table costs the rounding of its input as well
    for function in ("sigmoid", "silu", "hard_swish"):
        assert study.row(function, "N(0, 4)").table_db < study.row(function, "N(0, 4)").output_db


def test_the_study_is_a_value():
    study = ql.activation_study(normal_inputs([1.0], samples=1000), ["relu", "silu"])
    assert len(study.rows) == 2
    assert "8 bits, mse; SQNR in dB" in str(study)
    assert json.loads(json.dumps(study.to_dict(), allow_nan=False))["rows"][1]["function"] == "silu"
    with pytest.raises(DataError, match="no row for 'tanh'"):
        study.row("tanh", "N(0, 1)")
    zeros = ql.activation_study({"zero": np.zeros(10)}, ["relu", "silu"])
    assert all(row.deployed_db == math.inf for row in zeros.rows)
    assert zeros.to_dict()["rows"][0]["deployed_db"] is None


def test_exchanging_the_activation_of_a_network():
    net = ql.trace(family("mobilenet_v2"), torch.zeros(1, 3, 32, 32))
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    module = family("mobilenet_v2")
    for owner in list(module.modules()):
        for name, child in owner.named_children():
            if isinstance(child, torch.nn.ReLU6):
                setattr(owner, name, torch.nn.SiLU())
    swapped = ql.with_activation(net, "silu")
    assert torch.allclose(swapped(x), module(x), atol=1e-5)
    assert [node.name for node in swapped.nodes] == [node.name for node in net.nodes]
    back = ql.with_activation(swapped, "relu6", replaced=["silu"])
    assert torch.equal(back(x), net(x))


def test_limits_per_channel_are_no_relu6():
    net = ql.trace(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.ReLU6()), torch.zeros(1, 1, 2, 2))
    limits = (torch.zeros(2), torch.tensor([6.0, 3.0]))
    moved = net.with_nodes(node.with_attrs(clamp=limits) if node.op == "clamp" else node for node in net.nodes)
    with pytest.raises(DataError, match="has no relu or relu6"):
        ql.with_activation(moved, "silu")
    assert ql.with_activation(net, "silu").nodes[-1].op == "unary"


def test_what_does_not_fit_is_refused():
    net = ql.trace(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), torch.zeros(1, 1, 2, 2))
    with pytest.raises(DataError, match="no function 'gelu'; there are relu, relu6"):
        ql.activation_study(functions=["gelu"])
    with pytest.raises(DataError, match="at most 8 bits, got 16"):
        ql.activation_study(recipe=ql.TensorRecipe(scheme="affine", bits=16))
    with pytest.raises(DataError, match="no function 'gelu'"):
        ql.with_activation(net, "gelu")
    with pytest.raises(DataError, match="has no relu or relu6"):
        ql.with_activation(net, "silu")
