"""Our own networks, exported: LiteRT gives the same logit codes as the integer model, under each of its profiles."""

import os

import numpy as np
import pytest
import torch
from integer_networks import everything, inputs

import qlearn as ql
from qlearn.integer.profiles import profile_named

pytest.importorskip("ai_edge_litert")
from runtime_models import from_file, interpreter, to_file

pytestmark = pytest.mark.runtimes
needs_data = pytest.mark.skipif("QLEARN_DATA" not in os.environ, reason="QLEARN_DATA is not set")
REAL = [pytest.param(name, marks=[pytest.mark.realdata, needs_data]) for name in ("resnet20", "mobilenet_v1_0.25")]
PICTURES = 200


def litert(path, profile, codes):
    made = interpreter(path.read_bytes(), profile)
    source, target = made.get_input_details()[0]["index"], made.get_output_details()[0]["index"]
    outputs = []
    for picture in codes:
        made.set_tensor(source, to_file(picture[None]))
        made.invoke()
        outputs.append(from_file(made.get_tensor(target)))
    return np.concatenate(outputs)


@pytest.fixture(scope="module")
def quantized():
    models = {}

    def make(name):
        if name not in models:
            network, data = ql.load(name)
            network, recipe = ql.fold_batch_norm(network), ql.Recipe()
            table = ql.calibrate(network, data.calibration.subset(50), recipe)
            x = torch.cat([images for images, _ in data.evaluation.subset(PICTURES)]).numpy()
            models[name] = ql.quantize_model(network, recipe, table), x
        return models[name]

    return make


@pytest.mark.parametrize("profile", ["litert_reference", "xnnpack"])
@pytest.mark.parametrize("name", ["tiny_resnet", "tiny_mobilenet", *REAL])
def test_own_networks(name, profile, quantized, tmp_path, capsys):
    simulated, x = quantized(name)
    model = simulated.to_integer(profile)
    ql.export_litert(model, tmp_path / "net.tflite")
    codes = profile_named(profile).quantize(x, model.layers[0].output)
    ours = np.concatenate([model.run_codes(codes[at : at + 20]) for at in range(0, PICTURES, 20)])
    mismatches = int((ours != litert(tmp_path / "net.tflite", profile, codes)).sum())
    with capsys.disabled():
        print(f"\n  {name} {profile}: {len(ours)} pictures, {ours.size} logit codes, {mismatches} mismatches", end="")
    assert len(ours) == PICTURES
    assert mismatches == 0


@pytest.mark.parametrize("profile", ["litert_reference", "xnnpack"])
@pytest.mark.parametrize("seed", range(10))
def test_every_operation_in_one_network(seed, profile, tmp_path):
    model = everything(seed, profile)
    ql.export_litert(model, tmp_path / "net.tflite")
    codes = inputs(model, 50)
    expected = model.run_codes(codes)
    assert np.array_equal(litert(tmp_path / "net.tflite", profile, codes), expected)
    assert np.array_equal(ql.import_litert(tmp_path / "net.tflite", profile).run_codes(codes), expected)
