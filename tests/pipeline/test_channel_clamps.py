"""One clamp per channel, through the whole pipeline: float, simulation, integers, profiles, files, exports."""

import math

import numpy as np
import pytest
import torch
from networks import make, pictures

import qlearn as ql
from qlearn.graph.dead import zero_dead_inputs
from qlearn.graph.equalize import cross_layer_equalize
from qlearn.graph.model import Node
from qlearn.graph.ops import FLOAT_OPS
from qlearn.integer.layers import code_limits, run_layer
from qlearn.integer.profiles import PROFILES, profile_named
from qlearn.numbers.qparams import QParams


def quantized(bits=8, signed=True, scheme="affine"):
    network = ql.fold_batch_norm(ql.trace(make("depthwise", seed=2), pictures(1)))
    network = cross_layer_equalize(zero_dead_inputs(network))
    weights = ql.TensorRecipe(scheme="symmetric_restricted")
    recipe = ql.Recipe(activations=ql.TensorRecipe(scheme=scheme, bits=bits, signed=signed), weights=weights)
    model = ql.quantize_model(network, recipe, ql.calibrate(network, [pictures(8, seed=2)], recipe))
    ends = [layer.clamp for layer in model.layers if layer.clamp is not None]
    assert [np.ndim(high) for _, high in ends] == [1, 1]  # two ReLU6, equalized
    assert all(len(np.unique(high)) > 1 for _, high in ends)
    return model


def test_the_float_clamp_by_loops():
    x = torch.randn(3, 4, 5, 5) * 5
    high = torch.tensor([1.0, 6.0, math.inf, 0.0])
    node = Node("c", "clamp", ("x",), {"clamp": (0.0, high)})
    for channel, end in enumerate(high.tolist()):
        expected = [min(max(v, 0.0), end) for v in x[:, channel].flatten().tolist()]
        assert FLOAT_OPS["clamp"](node, [x])[:, channel].flatten().tolist() == expected
    flat = FLOAT_OPS["clamp"](node, [x[:, :, 0, 0]])
    assert torch.equal(flat, torch.minimum(x[:, :, 0, 0].clamp(min=0.0), high))


def test_codes_of_limits_are_those_of_each_limit_alone():
    qparams = QParams(0.05, -100, -128, 127)
    limits = np.float32([0.0, 0.024, 0.026, 6.0, 11.36, 1e30, np.inf])
    _, codes = code_limits((0.0, limits), qparams)
    assert codes.tolist() == [code_limits((0.0, float(limit)), qparams)[1] for limit in limits]
    low, _ = code_limits((-limits, 0.0), qparams)
    assert low.tolist() == [code_limits((-float(limit), 0.0), qparams)[0] for limit in limits]


@pytest.mark.parametrize(
    ("bits", "signed", "scheme"),
    [(8, True, "affine"), (8, False, "affine"), (8, True, "symmetric"), (4, True, "affine"), (16, True, "symmetric")],
)
def test_simulation_equals_integers_at_every_site(bits, signed, scheme):
    model = quantized(bits, signed, scheme)
    x = pictures(16, seed=4) * 2  # beyond the calibrated range
    expected, integers = model.codes(x), model.to_integer("float32").codes(x.numpy())
    assert list(expected) == list(integers)
    for site, codes in integers.items():
        assert np.array_equal(expected[site].numpy(), codes), site
    assert np.array_equal(model(x).numpy(), model.to_integer("float32")(x.numpy()))


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_stay_within_one_code_and_the_engine_agrees(name):
    model = quantized().to_integer(name)
    x = pictures(16, seed=4).numpy() * 2
    codes = model.codes(x)
    qparams = {layer.name: layer.output for layer in model.layers}
    for layer in model.layers[1:]:
        inputs = [(codes[site], qparams[site]) for site in layer.inputs]
        ours = run_layer(layer, inputs, profile_named("float32")).astype(int)
        assert np.abs(codes[layer.name].astype(int) - ours).max() <= 1, layer.name
        low, high = layer.limits
        rows = codes[layer.name].astype(int)
        if np.ndim(high):
            assert (rows.max((0, 2, 3)) <= high).all()
            assert (rows.min((0, 2, 3)) >= low).all()
    fast = model.with_engine("torch").codes(x)
    assert all(np.array_equal(fast[site], codes[site]) for site in codes)


def test_files_keep_them(tmp_path):
    model = quantized().to_integer()
    model.save(tmp_path / "net.qlearn")
    x = pictures(8).numpy()
    assert np.array_equal(ql.IntegerModel.load(tmp_path / "net.qlearn")(x), model(x))


@pytest.mark.runtimes
def test_onnx_runtime_computes_the_same_integers(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = quantized().to_integer("onnxruntime")
    ql.export_onnx(model, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    x = pictures(16, seed=4).numpy() * 2
    (logits,) = session.run(None, {session.get_inputs()[0].name: x})
    assert np.array_equal(logits, model(x))


@pytest.mark.runtimes
def test_litert_computes_the_same_integers(tmp_path):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    model = quantized().to_integer("litert_reference")
    ql.export_litert(model, tmp_path / "net.tflite")
    reference = interpreter.OpResolverType.BUILTIN_REF
    runner = interpreter.Interpreter(str(tmp_path / "net.tflite"), experimental_op_resolver_type=reference)
    runner.allocate_tensors()
    (source,), (result,) = runner.get_input_details(), runner.get_output_details()
    codes = model.codes(pictures(8, seed=4).numpy() * 2)
    for picture, expected in zip(codes[model.layers[0].name], codes[model.output], strict=True):
        runner.set_tensor(source["index"], picture.transpose(1, 2, 0)[None].astype(source["dtype"]))
        runner.invoke()
        assert np.array_equal(runner.get_tensor(result["index"])[0], expected)
