"""Files that nobody here made: every tensor as LiteRT's reference kernels compute it, the output as XNNPACK does."""

import os
from pathlib import Path

import numpy as np
import pytest

import qlearn as ql

pytest.importorskip("ai_edge_litert")
from runtime_models import from_file, interpreter, to_file

DATA = Path(os.environ.get("QLEARN_DATA", "."))
needs_data = pytest.mark.skipif("QLEARN_DATA" not in os.environ, reason="QLEARN_DATA is not set")
pytestmark = [pytest.mark.runtimes, pytest.mark.realdata, needs_data]
PICTURES = 20
FILES = [
    "mlperf_tiny/pretrainedResnet_quant.tflite",
    "mobilenet_v1_0.25/mobilenet_v1_0.25_224_int8_per_channel.tflite",
    "mobilenet_v1_0.25/mobilenet_v1_0.25_224_int8_per_tensor.tflite",
    "coral_tflite/tf2_mobilenet_v2_1.0_224_ptq.tflite",
    "coral_tflite/mobilenet_v1_0.25_128_quant.tflite",  # uint8, weights with zero points
]


def pictures(side):
    """Real pictures, (N, 3, side, side), uint8."""
    from PIL import Image

    if side == 32:
        mosaic = np.asarray(Image.open(DATA / "cifar10" / "test_00.png"))
        tiles = mosaic.reshape(25, 32, 40, 32, 3).transpose(0, 2, 4, 1, 3)
        return tiles.reshape(-1, 3, 32, 32)[:PICTURES]
    files = sorted((DATA / "imagenet_val650_227").glob("*.JPEG"))[:PICTURES]
    return np.stack([np.asarray(Image.open(f).convert("RGB").resize((side, side))).transpose(2, 0, 1) for f in files])


def run(made, codes):
    made.set_tensor(made.get_input_details()[0]["index"], to_file(codes))
    made.invoke()
    return from_file(made.get_tensor(made.get_output_details()[0]["index"]))


@pytest.mark.parametrize("name", FILES)
def test_every_tensor_equals_litert(name, capsys):
    content = (DATA / name).read_bytes()
    model = ql.import_litert(DATA / name)
    fast = model.with_policy("xnnpack")
    reference = interpreter(content, "litert_reference", experimental_preserve_all_tensors=True)
    default = interpreter(content, "xnnpack")
    codes = pictures(model.input_shape[-1]) if model.layers[0].output.qmin == 0 else None
    if codes is None:
        codes = (pictures(model.input_shape[-1]).astype(np.int16) - 128).astype(np.int8)
    tensors = {detail["name"]: detail["index"] for detail in reference.get_tensor_details()}
    names = [layer.name for layer in model.layers if layer.name in tensors]
    compared = mismatches = outputs = different = 0
    for picture in codes:
        ours = {}
        model.run_codes(picture[None], watch=lambda layer, value, ours=ours: ours.update({layer.name: value}))
        run(reference, picture[None])
        for site in names:
            theirs = from_file(reference.get_tensor(tensors[site]))
            assert theirs.shape == ours[site].shape
            compared, mismatches = compared + theirs.size, mismatches + int((theirs != ours[site]).sum())
        logits = fast.run_codes(picture[None])
        outputs, different = outputs + logits.size, different + int((logits != run(default, picture[None])).sum())
    with capsys.disabled():
        print(f"\n  {name}: {len(names)} tensors, {compared} values, {mismatches} mismatches; "
              f"XNNPACK {outputs} outputs, {different} mismatches", end="")  # fmt: skip
    assert len(names) == len({i for operator in reference._get_ops_details() for i in operator["outputs"]}) + 1
    assert mismatches == different == 0


@pytest.mark.parametrize("name", FILES[:4])  # the last has weights with zero points, which are refused
def test_the_same_network_in_onnxruntime(name, tmp_path, capsys):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from runtime_models import session, to_uint8

    model = ql.import_litert(DATA / name).with_policy("onnxruntime")
    ql.export_onnx(model, tmp_path / "net.onnx", integers=True)
    codes = pictures(model.input_shape[-1]).astype(np.int16) + model.layers[0].output.qmin
    codes = codes.astype(model.layers[0].output.dtype)
    runtime = session(tmp_path / "net.onnx")
    (theirs,) = runtime.run(None, {runtime.get_inputs()[0].name: to_uint8(codes, model.layers[0].output)})
    mismatches = int((to_uint8(model.run_codes(codes), model.layer(model.output).output) != theirs).sum())
    with capsys.disabled():
        print(f"\n  {name} in ONNX Runtime: {theirs.size} outputs, {mismatches} mismatches", end="")
    assert mismatches == 0
