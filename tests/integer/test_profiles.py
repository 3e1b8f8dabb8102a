"""What the profiles promise, without the runtimes: bounds, limits, errors, and the layers they are made of."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from integer_networks import everything, inputs
from random_layers import LAYERS

import qlearn as ql
from qlearn.errors import AccumulatorOverflowError, KernelError
from qlearn.integer.checks import check_sums
from qlearn.integer.layers import IntegerLayer, run_layer
from qlearn.integer.profiles import PROFILES, profile_named
from qlearn.integer.requantize import requantize_float64, requantize_wide, round_half_away
from qlearn.numbers.qparams import QParams

INT8 = (-128, 127)
COARSE = {"convert", "concat", "softmax", "hard_swish"}
"""XNNPACK rounds changes of scale to 8 bits, and all of LiteRT hard-swish to 16: more than one code apart."""


@pytest.mark.parametrize("op", [op for op in LAYERS if op not in COARSE and "16" not in op])
def test_all_profiles_are_within_one_code_of_each_other(op):
    rng = np.random.default_rng(0)
    for _ in range(20):
        layer, x = LAYERS[op](rng)
        results = [run_layer(layer, x, profile).astype(int) for profile in PROFILES.values()]
        assert max(np.abs(a - results[0]).max(initial=0) for a in results) <= 1
        assert all(np.abs(a - b).max(initial=0) <= 2 for a in results for b in results)


def test_a_profile_is_a_frozen_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile_named("fixed").name = "other"
    mine = dataclasses.replace(profile_named("xnnpack"), name="mine", add=profile_named("fixed").add)
    layer, x = LAYERS["add"](np.random.default_rng(0))
    assert np.array_equal(run_layer(layer, x, mine), run_layer(layer, x, profile_named("fixed")))


@given(st.integers(-(2**31), 2**31), st.floats(1e-6, 10.0), st.floats(1e-3, 10.0), st.floats(1e-3, 10.0))
def test_float64_is_the_nearest_integer(acc, s_in, s_w, s_out):
    s_in, s_w, s_out = (np.float32(s) for s in (s_in, s_w, s_out))
    code = int(requantize_float64(np.array([acc]), s_in, s_w, s_out, None)[0])
    exact = acc * Fraction(float(s_in)) * Fraction(float(s_w)) / Fraction(float(s_out))
    assert abs(code - exact) <= Fraction(1, 2) + abs(exact) / 2**50


@given(st.integers(-(2**45), 2**45), st.floats(1e-3, 1.0), st.floats(1e-5, 1e-3))
def test_wide_has_15_bits(acc, s_in, s_w):
    assume(abs(acc) * s_in * s_w < 2**40)
    s_in, s_w = np.float32(s_in), np.float32(s_w)
    code = int(requantize_wide(np.array([acc]), s_in, s_w, np.float32(1), None)[0])
    exact = acc * Fraction(float(s_in)) * Fraction(float(s_w))
    assert abs(code - exact) <= Fraction(1, 2) + abs(exact) / 2**15


@given(st.floats(-(2.0**40), 2.0**40))
def test_halves_go_away_from_zero(value):
    exact, code = Fraction(value), int(round_half_away(np.array([value]))[0])
    assert abs(code - exact) <= Fraction(1, 2)
    if abs(code - exact) == Fraction(1, 2):
        assert abs(code) > abs(exact)


def test_clamps_per_channel_are_kept_and_saved(tmp_path):
    model = everything()
    low, high = np.arange(-8, 0, dtype=np.int32), np.arange(10, 18, dtype=np.int32)
    layers = tuple(
        dataclasses.replace(layer, clamp=(low, high)) if layer.name == "pointwise" else layer for layer in model.layers
    )
    model = dataclasses.replace(model, layers=layers)
    seen = {}
    codes = inputs(model, 20)
    expected = model.run_codes(codes, watch=lambda layer, value: seen.update({layer.name: value}))
    per_channel = seen["pointwise"].transpose(1, 0, 2, 3).reshape(8, -1)
    assert (per_channel.min(axis=1) >= low).all()
    assert (per_channel.max(axis=1) <= high).all()
    assert per_channel.min() < -5
    assert per_channel.max() > 15
    model.save(tmp_path / "net.qlearn")
    loaded = ql.IntegerModel.load(tmp_path / "net.qlearn")
    assert np.array_equal(loaded.run_codes(codes), expected)
    assert np.array_equal(loaded.layer("pointwise").clamp[0], low)


@pytest.mark.parametrize("policy", PROFILES)
def test_every_operation_runs_and_is_saved_under_every_profile(policy, tmp_path):
    model = everything(policy=policy)
    model.save(tmp_path / "net.qlearn")
    loaded = ql.IntegerModel.load(tmp_path / "net.qlearn")
    codes = inputs(model, 20)
    assert loaded.policy == policy
    assert np.array_equal(loaded.run_codes(codes), model.run_codes(codes))
    x = np.random.default_rng(2).normal(0, 1, (3, 3, 9, 9)).astype(np.float32)
    assert model(x).shape == (3, 5)
    assert np.abs(model(x).sum(axis=1) - 1).max() < 0.02  # a softmax


def test_real_numbers_are_quantized_as_the_runtime_does():
    q = QParams(0.5, 1, *INT8)
    ties = np.float32([0.25, 0.75, -0.25, 100.0])
    assert profile_named("litert_reference").quantize(ties, q).tolist() == [2, 3, 0, 127]
    assert profile_named("xnnpack").quantize(ties, q).tolist() == [1, 3, 1, 127]
    assert profile_named("onnxruntime").quantize(ties, q).tolist() == [1, 3, 1, 127]


def test_errors_name_the_layer_and_the_function():
    wide = QParams(0.1, 0, -32768, 32767)
    layer = IntegerLayer("gate", "unary", ("x",), QParams(0.1, 0, *INT8), attrs={"function": "sigmoid"})
    with pytest.raises(KernelError, match="layer 'gate': a table of sigmoid needs 8-bit codes"):
        run_layer(layer, [(np.zeros((1, 2), np.int16), wide)], profile_named("fixed"))
    layer = dataclasses.replace(layer, attrs={"function": "sine"})
    with pytest.raises(KernelError, match="no unary function 'sine': choose one of hard_sigmoid"):
        run_layer(layer, [(np.zeros((1, 2), np.int8), QParams(0.1, 0, *INT8))], profile_named("fixed"))


def test_64_bit_accumulators_have_a_bound_too():
    layer, [(_, q)] = LAYERS["linear, 16 bits"](np.random.default_rng(0))
    check_sums(layer, [q], [None])
    bias = np.full(layer.bias.shape, 2**47, np.int64)
    with pytest.raises(AccumulatorOverflowError, match=r"layer 'y': .* more than a 64-bit accumulator of 48 bits"):
        check_sums(dataclasses.replace(layer, bias=bias), [q], [None])
