"""Networks exported to ONNX: ONNX Runtime's default session gives the codes of the integer model, at every site."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from integer_networks import everything, inputs
from networks import make, pictures
from random_models import random_model

import qlearn as ql
from qlearn.errors import ExportError
from qlearn.export.onnx import metadata, onnx_graph
from qlearn.export.onnx_build import OnnxEnd
from qlearn.export.onnx_write import onnx_bytes
from qlearn.integer.profiles import profile_named

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from runtime_models import from_uint8, session, to_uint8

pytestmark = pytest.mark.runtimes
needs_data = pytest.mark.skipif("QLEARN_DATA" not in os.environ, reason="QLEARN_DATA is not set")
REAL = [pytest.param(name, marks=[pytest.mark.realdata, needs_data]) for name in ("resnet20", "mobilenet_v1_0.25")]
PICTURES = 200
RANDOM_MODELS = 250


def quantized(network, batches, recipe=None):
    network, recipe = ql.fold_batch_norm(network), recipe or ql.Recipe()
    return ql.quantize_model(network, recipe, ql.calibrate(network, batches, recipe)).to_integer("onnxruntime")


def own(name):
    """A small network of the tests with random weights, or one of the zoo, and pictures for it."""
    if name in ("depthwise", "residual"):
        network = ql.trace(make(name), pictures(1), name=name)
        return quantized(network, [pictures(32)]), pictures(PICTURES, seed=3).numpy()
    network, data = ql.load(name)
    x = torch.cat([images for images, _ in data.evaluation.subset(PICTURES)]).numpy()
    return quantized(network, data.calibration.subset(50)), x


@pytest.mark.parametrize("name", ["depthwise", "residual", "tiny_resnet", "tiny_mobilenet", *REAL])
def test_same_logits(name, tmp_path, capsys):
    model, x = own(name)
    ql.export_onnx(model, tmp_path / "net.onnx")
    ql.export_onnx(model, tmp_path / "codes.onnx", integers=True)
    codes = profile_named("onnxruntime").quantize(x, model.layers[0].output)
    ours = np.concatenate([model.run_codes(codes[at : at + 20]) for at in range(0, PICTURES, 20)])
    real = session(tmp_path / "net.onnx").run(None, {"input": x})[0]
    fused = session(tmp_path / "codes.onnx")
    feed = {fused.get_inputs()[0].name: to_uint8(codes, model.layers[0].output)}
    q = model.layer(model.output).output
    theirs = from_uint8(fused.run(None, feed)[0], q)
    plain = from_uint8(session(tmp_path / "codes.onnx", optimized=False).run(None, feed)[0], q)
    mismatches, off = int((ours != theirs).sum()), np.abs(ours.astype(int) - plain)
    with capsys.disabled():
        print(f"\n  {name:18} {len(ours)} pictures {ours.size:6} logit codes {mismatches} mismatches "
              f"(optimizations off: {int((off > 0).sum())}, by {off.max()} at most)", end="")  # fmt: skip
    assert ours.shape == theirs.shape == (PICTURES, *ours.shape[1:])
    assert mismatches == 0
    assert np.array_equal(real, (ours.astype(np.int32) - q.zero_point).astype(np.float32) * q.scale)


def every_site(model, codes):
    """Codes at every site, ours and theirs: every result of a QuantizeLinear becomes an output of the file."""
    ours = {}
    model.run_codes(codes, watch=lambda layer, value: ours.update({layer.name: to_uint8(value, layer.output)}))
    graph = onnx_graph(model, integers=True)
    made = {node.output for node in graph.nodes}
    named = {layer.name: [f"{layer.name}:{part}" for part in ("clamped:codes", "codes")] for layer in model.layers[1:]}
    sites = {site: next((n for n in names if n in made), None) for site, names in named.items()}
    sites = {site: name for site, name in sites.items() if name is not None}  # a layer that changes nothing has none
    tapped = replace(graph, outputs=tuple(OnnxEnd(n, "uint8", ours[s].shape[1:]) for s, n in sites.items()))
    feed = {graph.inputs[0].name: to_uint8(codes, model.layers[0].output)}
    values = session(onnx_bytes(tapped, model.name, {})).run(None, feed)
    (output,) = session(onnx_bytes(graph, model.name, metadata(model))).run(None, feed)
    pairs = {site: (ours[site], value) for site, value in zip(sites, values, strict=True)}
    return pairs | {"the output alone": (ours[model.output], output)}


def count(pairs, seed):
    compared = mismatches = 0
    for site, (ours, theirs) in pairs.items():
        assert ours.shape == theirs.shape, (seed, site)
        compared, mismatches = compared + ours.size, mismatches + int((ours != theirs).sum())
    return compared, mismatches


def test_random_models(capsys):
    compared = mismatches = layers = 0
    for seed in range(RANDOM_MODELS):
        model = random_model(seed, "onnxruntime")
        codes = np.random.default_rng(seed).integers(-128, 128, (7, *model.input_shape)).astype(np.int8)
        new, different = count(every_site(model, codes), seed)
        compared, mismatches, layers = compared + new, mismatches + different, layers + len(model.layers)
    with capsys.disabled():
        print(f"\n  {RANDOM_MODELS} random models, {layers} layers, {compared} codes, {mismatches} mismatches", end="")
    assert mismatches == 0


@pytest.mark.parametrize("seed", range(10))
def test_every_operation_in_one_network(seed):
    model = everything(seed, "onnxruntime")
    assert count(every_site(model, inputs(model, 50)), seed)[1] == 0


ACTIVATIONS = [
    ql.TensorRecipe(scheme="affine", bits=4),
    ql.TensorRecipe(scheme="symmetric"),
    ql.TensorRecipe(scheme="affine", signed=False),
    ql.TensorRecipe(scheme="symmetric_restricted", bits=7),
]
WEIGHTS = [
    ql.TensorRecipe(scheme="symmetric", bits=4, granularity="per_channel"),
    ql.TensorRecipe(scheme="symmetric_restricted"),
]


@pytest.mark.parametrize("activations", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
def test_other_recipes(activations, weights):
    network = ql.trace(make("residual"), pictures(1), name="residual")
    recipe = ql.Recipe(activations=activations, weights=weights)
    model = quantized(network, [pictures(32)], recipe)
    codes = profile_named("onnxruntime").quantize(pictures(50, seed=3).numpy(), model.layers[0].output)
    assert count(every_site(model, codes), "residual")[1] == 0


def test_what_runs_in_float_is_refused_by_name(tmp_path):
    network = ql.trace(make("mixed"), pictures(1), name="mixed")
    with pytest.warns(ql.errors.FallbackWarning):
        model = quantized(network, [pictures(32)])
    with pytest.raises(ExportError, match=r"layer 'norm' \(float\) cannot be written as ONNX: it runs in float"):
        ql.export_onnx(model, tmp_path / "net.onnx")
