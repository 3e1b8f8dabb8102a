"""The torch engine gives the integers of the reference: layer by layer, site by site, under every profile."""

import copy
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_networks import everything
from integer_networks import inputs as any_codes
from random_layers import LAYERS

import qlearn as ql
from qlearn.errors import KernelError, UnknownEngineError
from qlearn.integer import torch_products
from qlearn.integer.layers import IntegerLayer, run_layer
from qlearn.integer.profiles import PROFILES
from qlearn.integer.run import ReferenceEngine
from qlearn.integer.torch_engine import TorchEngine, build
from qlearn.integer.torch_products import Products, Window
from qlearn.integer.torch_values import pack, unpack
from qlearn.numbers.qparams import QParams


def both(layer, inputs, profile):
    """Codes of one layer by the reference and by the torch engine."""
    compute = build(layer, [q for _, q in inputs], profile)
    with torch.inference_mode():
        first, again = (unpack(compute([pack(x, q) for x, q in inputs]), layer.output) for _ in range(2))
    assert np.array_equal(first, again)
    return run_layer(layer, inputs, profile), again


def assert_equal(layer, inputs, profile):
    expected, ours = both(layer, inputs, profile)
    assert ours.dtype == expected.dtype
    assert ours.shape == expected.shape
    assert np.array_equal(ours, expected), (layer.op, profile.name)
    return expected.size


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", LAYERS)
def test_random_layers_of_every_kind(kind, profile):
    for seed in range(12):
        assert_equal(*LAYERS[kind](np.random.default_rng(seed), True), PROFILES[profile])


@st.composite
def formats(draw, fewest=2, most=16, per_channel=0):
    """Bits, signedness, a zero point (often an outermost one) and scales (often powers of two)."""
    bits, signed = draw(st.integers(fewest, most)), draw(st.booleans())
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    zero = st.sampled_from([low, high, min(max(0, low), high)]) | st.integers(low, high)
    scale = st.sampled_from([2.0**-n for n in range(3, 9)]) | st.floats(2.0**-9, 2.0**-3)
    if per_channel:
        scales, zeros = (draw(st.lists(v, min_size=per_channel, max_size=per_channel)) for v in (scale, zero))
        return QParams(np.float32(scales), np.int32(zeros), low, high, 0)
    return QParams(np.float32(draw(scale)), draw(zero), low, high)


@st.composite
def convolutions(draw):
    """A convolution or a linear layer of any format, with input codes that are often the outermost."""
    groups, per_group, times = (draw(st.integers(1, n)) for n in (3, 5, 4))
    outputs = groups * times
    x_format, w_format = draw(formats()), draw(formats(most=8, per_channel=draw(st.sampled_from([0, outputs]))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    linear = draw(st.booleans())
    kernel = () if linear else tuple(draw(st.integers(1, 3)) for _ in range(2))
    shape = (outputs, per_group * (groups if linear else 1), *kernel)
    w = rng.integers(w_format.qmin, w_format.qmax + 1, shape).astype(w_format.dtype)
    wide = x_format.bits > 8 and draw(st.booleans())
    bias = draw(st.sampled_from([None, 10, 3000, 2**22]))
    if bias is not None:
        bias = rng.integers(-bias, bias + 1, outputs).astype(np.int64 if wide else np.int32)
    spread = float(x_format.scale) * float(np.mean(w_format.scale)) * np.sqrt(w[0].size) * 2 ** (x_format.bits - 2)
    spread *= 2 ** (w_format.bits - 2)
    output = draw(formats())
    output = QParams(np.float32(spread / 2 ** (output.bits - 2)), output.zero_point, output.qmin, output.qmax)
    clamp = draw(st.sampled_from([None, (int(output.zero_point), output.qmax)]))
    attrs = {} if linear else {
        "stride": tuple(draw(st.integers(1, 3)) for _ in range(2)),
        "dilation": tuple(draw(st.integers(1, 2)) for _ in range(2)),
        "padding": tuple(draw(st.integers(0, 2)) for _ in range(4)),
        "groups": groups,
    }  # fmt: skip
    layer = IntegerLayer("y", "linear" if linear else "conv2d", ("x",), output, attrs, w, w_format, bias, clamp)
    size = (draw(st.integers(1, 3)), groups * per_group, *((5 + i, 6) if not linear and (i := 1) else ()))
    x = rng.integers(x_format.qmin, x_format.qmax + 1, size)
    if draw(st.booleans()):
        x = rng.choice([x_format.qmin, x_format.qmax], size)
    return layer, [(x.astype(x_format.dtype), x_format)]


@settings(deadline=None, max_examples=150)
@given(convolutions(), st.sampled_from(sorted(PROFILES)))
def test_convolutions_of_2_to_16_bits(case, profile):
    assert_equal(*case, PROFILES[profile])
