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
from networks import NETWORKS, make, pictures
from random_layers import LAYERS

import qlearn as ql
from qlearn.errors import KernelError, UnknownEngineError
from qlearn.integer import reference, torch_products
from qlearn.integer.kernels import KERNELS
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
    size = (draw(st.integers(1, 3)), groups * per_group, *(() if linear else (6, 7)))
    x = rng.integers(x_format.qmin, x_format.qmax + 1, size)
    if draw(st.booleans()):
        x = rng.choice([x_format.qmin, x_format.qmax], size)
    return layer, [(x.astype(x_format.dtype), x_format)]


@settings(deadline=None, max_examples=150)
@given(convolutions(), st.sampled_from(sorted(PROFILES)))
def test_convolutions_of_2_to_16_bits(case, profile):
    assert_equal(*case, PROFILES[profile])


def compare_sites(model, codes):
    """Return how many codes both engines gave, all of them equal."""
    expected, ours = {}, {}
    model.run_codes(codes, watch=lambda layer, value: expected.update({layer.name: value}))
    output = model.with_engine("torch").run_codes(codes, watch=lambda layer, value: ours.update({layer.name: value}))
    assert list(ours) == list(expected)
    for site, values in expected.items():
        assert ours[site].dtype == values.dtype
        assert np.array_equal(ours[site], values), site
    assert np.array_equal(output, expected[model.output])
    return sum(values.size for values in expected.values())


@pytest.mark.parametrize("profile", PROFILES)
def test_a_model_with_every_operation(profile):
    for seed in range(3):
        model = everything(seed, profile)
        compare_sites(model, any_codes(model, 5, seed))


ACTIVATIONS = [("affine", 8, True), ("affine", 8, False), ("symmetric", 8, True), ("affine", 4, True),
               ("affine", 12, False), ("affine", 16, True)]  # fmt: skip
WEIGHTS = [("symmetric_restricted", "per_channel", 8), ("symmetric", "per_tensor", 8), ("affine", "per_channel", 8),
           ("affine", "per_tensor", 5)]  # fmt: skip


def quantized(network, batches, activation, weight):
    recipe = ql.Recipe(
        activations=ql.TensorRecipe(scheme=activation[0], bits=activation[1], signed=activation[2]),
        weights=ql.TensorRecipe(scheme=weight[0], granularity=weight[1], bits=weight[2]),
    )
    network = ql.fold_batch_norm(network)
    return ql.quantize_model(network, recipe, ql.calibrate(network, batches, recipe)).to_integer()


@pytest.mark.filterwarnings("ignore::qlearn.errors.FallbackWarning")
@pytest.mark.parametrize("weight", WEIGHTS, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_small_networks(name, activation, weight):
    model = quantized(ql.trace(make(name), pictures(1)), [pictures(8, seed=2)], activation, weight)
    codes = reference.quantize(pictures(9, seed=4).numpy() * 1.5, model.layers[0].output)
    for policy in ("fixed", "float32"):
        compare_sites(model.with_policy(policy), codes)


needs_data = [
    pytest.mark.realdata,
    pytest.mark.skipif("QLEARN_DATA" not in os.environ, reason="QLEARN_DATA is not set"),
]
TRAINED = [("tiny_resnet", 60), ("tiny_mobilenet", 60), pytest.param("mobilenet_v1_0.25", 3, marks=needs_data),
           pytest.param("resnet20", 20, marks=needs_data)]  # fmt: skip


@pytest.mark.parametrize(("name", "count"), TRAINED)
def test_trained_networks_under_every_profile(name, count, capsys):
    network, data = ql.load(name)
    model = quantized(network, data.calibration.subset(20), ACTIVATIONS[0], WEIGHTS[0])
    x = torch.cat([images for images, _ in data.evaluation.subset(count)]).numpy()
    compared = 0
    for profile in PROFILES:
        profiled = model.with_policy(profile)
        compared += compare_sites(profiled, PROFILES[profile].quantize(x, model.layers[0].output))
        assert np.array_equal(profiled(x), profiled.with_engine("torch")(x))
    with capsys.disabled():
        print(f"\n{name}: {compared:,} codes of {len(PROFILES)} profiles, reference and torch engine: 0 mismatches")


class Broken:
    """An int8 convolution that saturates pairs of products, as processors without VNNI have it."""

    def __init__(self, monkeypatch, wrong=None):
        self.pack, self.calls = torch_products.PackedConvolution, 0
        self.wrong = wrong
        monkeypatch.setattr(torch_products, "PackedConvolution", self)

    def __call__(self, weight, bias, zero, window, shape):
        if self.wrong is not None:
            raise self.wrong
        self.calls += 1
        return self.pack(np.clip(weight, -64, 63), bias, zero, window, shape)


def products(weight=100, inputs=8, bias=0, steps=0.0, rounded=False):
    w = np.full((4, inputs, 1, 1), weight, np.int64)
    return Products(w, np.full(4, bias), QParams(1.0, -128, -128, 127), Window(), rounded=rounded, steps=steps)


def test_a_convolution_that_saturates_is_found_out(monkeypatch):
    broken, x = Broken(monkeypatch), torch.full((1, 8, 3, 3), 255, dtype=torch.uint8)
    assert products(weight=63)(x)[0, 0, 0, 0] == 63 * 255 * 8
    sums = products()
    assert sums(x)[0, 0, 0, 0] == 100 * 255 * 8
    assert not sums.packed
    assert broken.calls == 2


@pytest.mark.parametrize("error", [AttributeError("no such operator"), RuntimeError("not here"), TypeError("changed")])
def test_without_the_operator_the_float_convolution_runs(monkeypatch, error):
    Broken(monkeypatch, wrong=error)
    sums = products()
    assert sums(torch.full((1, 8, 3, 3), 255, dtype=torch.uint8)).unique().tolist() == [100 * 255 * 8]
    assert not sums.packed


def test_a_sum_that_float32_may_round_is_not_packed_unless_it_saturates():
    x = torch.full((1, 8000, 1, 1), 255, dtype=torch.uint8)
    for steps, packed in ((0.0, False), (1e-6, False), (1e-3, True)):
        sums = products(inputs=8000, weight=101, bias=1, steps=steps)
        total = sums(x).double()
        assert sums.packed in (packed, False)  # False where the processor has no exact int8 convolution
        assert sums.dtype == torch.float64
        assert (total - (101 * 255 * 8000 + 1)).abs().max() <= (8 if sums.packed else 0)


@pytest.mark.parametrize(("bias", "packed"), [(2**30, True), (2**30 + 64, True), (2**30 + 1, False)])
def test_a_large_bias_is_packed_if_the_sum_is_rounded_to_float32_once(bias, packed):
    sums, x = products(weight=1, bias=bias, rounded=True), torch.full((1, 8, 1, 1), 13, dtype=torch.uint8)
    assert float(sums(x)[0, 0, 0, 0]) in (float(np.float32(bias + 104)), bias + 104)
    assert sums.packed in (packed, False)
    assert not products(weight=1, bias=bias)._may_pack


@pytest.mark.parametrize("clamps", [None, (0, 6), "per channel"])
@pytest.mark.parametrize("profile", PROFILES)
def test_dead_channels_and_channels_of_very_different_scales(profile, clamps):
    rng = np.random.default_rng(3)
    w = rng.integers(-127, 128, (9, 4, 3, 3)).astype(np.int8)
    w[:2] = 0
    scales = np.float32([1.2e-38, 3e-9, 1e-7, 1e-5, 1e-4, 0.004, 0.05, 0.6, 3.0])
    bias = np.int32([2**30, 2**30, -(2**28), 2**24 + 1, -99999, 300, 70, -5, 1])
    x, output = QParams(0.25, 3, -128, 127), QParams(0.5, -7, -128, 127)
    limits = clamps
    if clamps == "per channel":
        limits = (np.full(9, -9), np.arange(9) * 14)
    w_qparams = QParams(scales, np.zeros(9, np.int32), -127, 127, 0)
    attrs = {"stride": (1, 1), "padding": (1, 1, 1, 1), "dilation": (1, 1), "groups": 1}
    layer = IntegerLayer("y", "conv2d", ("x",), output, attrs, w, w_qparams, bias, limits)
    assert_equal(layer, [(rng.integers(-128, 128, (3, 4, 12, 12)).astype(np.int8), x)], PROFILES[profile])


def test_an_engine_is_chosen_by_name_or_given():
    model = everything()
    assert model.engine == "reference"
    assert model.with_engine("torch").engine == "torch"
    engine = ql.engine("torch")
    codes = any_codes(model)
    expected = model.run_codes(codes)
    assert np.array_equal(model.with_engine(engine).run_codes(codes), expected)
    assert np.array_equal(model.with_engine(ReferenceEngine()).run_codes(codes), expected)
    assert np.array_equal(model.with_engine("torch").with_policy("xnnpack").run_codes(codes),
                          model.with_policy("xnnpack").run_codes(codes))  # fmt: skip
    assert (repr(engine), repr(ReferenceEngine())) == ("TorchEngine()", "ReferenceEngine()")
    with pytest.raises(UnknownEngineError, match=r"no engine 'tensor'.*reference, torch"):
        model.with_engine("tensor")
    with pytest.raises(KernelError, match="is no engine: it lacks prepare"):
        model.with_engine(3)


def test_a_prepared_model_can_be_copied_and_pickled():
    model = everything().with_engine("torch")
    codes = any_codes(model)
    expected = model.run_codes(codes)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.engine == "torch"
        assert np.array_equal(other.run_codes(codes), expected)


def test_an_error_names_layer_and_engine(monkeypatch):
    model, works = everything(), KERNELS["unary"]

    def fails(layer, *rest):
        if layer.name == "tanh":
            raise KernelError("no tanh today")
        return works(layer, *rest)

    monkeypatch.setitem(KERNELS, "unary", fails)
    with pytest.raises(KernelError, match="no tanh today") as caught:
        replace(model, engine=TorchEngine()).run_codes(any_codes(model))
    assert caught.value.__notes__ == ["in layer 'tanh' (unary) of everything",
                                      "while engine TorchEngine() prepared everything"]  # fmt: skip


def test_codes_of_any_layout_and_read_only_ones():
    model = everything()
    codes = any_codes(model)
    expected = model.run_codes(codes)
    turned = np.ascontiguousarray(codes.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    turned.setflags(write=False)
    assert np.array_equal(model.with_engine("torch").run_codes(turned), expected)
