"""Networks of mixed bits in other runtimes: narrow weights run everywhere, other activations run or are refused."""

import numpy as np
import pytest
import torch

import qlearn as ql
from qlearn.analysis.mixed_precision import Choice, with_choices
from qlearn.errors import ExportError
from qlearn.integer.profiles import profile_named

pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")
from runtime_models import from_file, interpreter, session, to_file

pytestmark = pytest.mark.runtimes


def mixed(*choices):
    """tiny_mobilenet with weights of 2 to 8 bits in turn, and these choices besides."""
    network, data = ql.load("tiny_mobilenet")
    network = ql.fold_batch_norm(network)
    layers = [node.name for node in network.nodes if node.op in ("conv2d", "linear")]
    narrow = [Choice(name, "weights", 2 + place % 7) for place, name in enumerate(layers)]
    recipe = with_choices(ql.Recipe(), [*narrow, *choices])
    table = ql.calibrate(network, data.calibration.subset(32), recipe)
    x = torch.cat([images for images, _ in data.evaluation.subset(20)]).numpy()
    return ql.quantize_model(network, recipe, table), x


@pytest.mark.parametrize("choices", [(), (Choice("blocks.0.expand", "activations", 4),)], ids=["weights", "and 4 bits"])
def test_onnx_runtime_gives_our_codes(choices, tmp_path):
    quantized, x = mixed(*choices)
    model = quantized.to_integer("onnxruntime")
    ql.export_onnx(model, tmp_path / "mixed.onnx")
    assert np.array_equal(session(tmp_path / "mixed.onnx").run(None, {"input": x})[0], model(x))


@pytest.mark.parametrize("profile", ["litert_reference", "xnnpack"])
def test_litert_gives_our_codes(profile, tmp_path):
    quantized, x = mixed()
    model = quantized.to_integer(profile)
    ql.export_litert(model, tmp_path / "mixed.tflite")
    made = interpreter((tmp_path / "mixed.tflite").read_bytes(), profile)
    codes = profile_named(profile).quantize(x, model.layers[0].output)
    for picture, expected in zip(codes, model.run_codes(codes), strict=True):
        made.set_tensor(made.get_input_details()[0]["index"], to_file(picture[None]))
        made.invoke()
        assert np.array_equal(from_file(made.get_tensor(made.get_output_details()[0]["index"]))[0], expected)


def test_what_a_runtime_cannot_hold_is_refused_by_name(tmp_path):
    for bits in (4, 16):
        model = mixed(Choice("blocks.0.expand", "activations", bits))[0].to_integer("litert_reference")
        with pytest.raises(ExportError, match=r"layer 'blocks\.0"):
            ql.export_litert(model, tmp_path / "refused.tflite")
    with pytest.raises(ExportError, match=r"'blocks\.0\.expand' has codes from -32768"):
        ql.export_onnx(model.with_policy("onnxruntime"), tmp_path / "refused.onnx")
    assert not list(tmp_path.iterdir())
