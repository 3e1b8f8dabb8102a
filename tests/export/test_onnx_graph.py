"""What an ONNX file of ours says, read without ONNX Runtime; what cannot be said is refused by name."""

import json
from dataclasses import replace

import numpy as np
import pytest
from integer_networks import Stack, conv, everything

import qlearn as ql
from qlearn.errors import ExportError
from qlearn.export.onnx import metadata, onnx_graph
from qlearn.graph.preprocess import Preprocess
from qlearn.integer.kernels import KERNELS
from qlearn.integer.layers import IntegerLayer
from qlearn.numbers.qparams import QParams


def model(seed=0):
    return everything(seed, "onnxruntime")


def ops(graph):
    return [node.op for node in graph.nodes]


def changed(name, **parts):
    """The model with one layer changed."""
    whole = model()
    return replace(whole, layers=tuple(replace(n, **parts) if n.name == name else n for n in whole.layers))


def test_everything_is_between_dequantize_and_quantize():
    graph = onnx_graph(model())
    made = {node.output: node.op for node in graph.nodes}
    inner = {"Sigmoid", "Clip", "Max", "Min"}
    for node in graph.nodes:
        if node.op not in ("QuantizeLinear", "DequantizeLinear"):
            assert {made[name] for name in node.inputs if name in made} <= {"DequantizeLinear"} | inner
    assert (graph.inputs[0].name, graph.inputs[0].dtype, graph.inputs[0].shape) == ("input", "float32", (3, 9, 9))
    assert (graph.outputs[0].name, graph.outputs[0].dtype, graph.outputs[0].shape) == ("output", "float32", (5,))


def test_integers_at_both_ends():
    graph = onnx_graph(model(), integers=True)
    assert (graph.inputs[0].name, graph.inputs[0].dtype) == ("x:codes", "uint8")
    assert (graph.outputs[0].name, graph.outputs[0].dtype) == ("softmax:codes", "uint8")
    assert ops(onnx_graph(model()))[0] == "QuantizeLinear"
    assert ops(graph)[0] == "DequantizeLinear"


def test_weights_are_int8_and_biases_int32_in_steps_of_both_scales():
    whole = model()
    graph, layer = onnx_graph(whole), whole.layer("stem")
    assert np.array_equal(graph.constants["stem:weight"], layer.weight)
    assert np.array_equal(graph.constants["stem:bias"], layer.bias)
    assert graph.constants["stem:weight"].dtype == np.int8
    assert graph.constants["stem:bias"].dtype == np.int32
    scale = whole.layer("x").output.scale * layer.weight_qparams.scale
    assert np.array_equal(graph.constants["stem:bias_scale"], scale)
    assert graph.constants["stem:bias_scale"].dtype == np.float32


def test_a_clamp_that_uint8_does_anyway_is_not_written():
    graph = onnx_graph(model())
    assert "stem:clip" not in {node.output for node in graph.nodes}  # ReLU with the zero point at the end
    assert "depthwise:clip" in {node.output for node in graph.nodes}  # ReLU6 with room above 6
    assert graph.constants["depthwise:low"] == 0
    assert graph.constants["depthwise:high"] == np.float32(200) * np.float32(0.03)


def test_clamps_per_channel_are_max_and_min():
    low = np.arange(8, dtype=np.int32) - 100
    graph = onnx_graph(changed("pointwise", clamp=(low, low + 50)))
    (largest,) = (node for node in graph.nodes if node.output == "pointwise:max")
    assert largest.op == "Max"
    assert graph.constants["pointwise:low"].shape == (8, 1, 1)
    assert np.array_equal(graph.constants["pointwise:low"].ravel(), (low - 7).astype(np.float32) * np.float32(0.04))


def test_a_change_of_scale_is_kept_apart():
    """ONNX Runtime merges DequantizeLinear -> QuantizeLinear with the pairs around it, which changes codes."""
    graph = onnx_graph(model())
    made = {node.output: node for node in graph.nodes}
    for node in graph.nodes:
        if node.op == "QuantizeLinear" and node.inputs[0] in made:
            assert made[node.inputs[0]].op != "DequantizeLinear"


def test_between_int8_and_uint8_of_one_scale_nothing_happens():
    net = Stack((2, 3, 3), 0)
    net.layers.append(IntegerLayer("unsigned", "convert", ("x",), QParams(0.02, 125, 0, 255)))
    assert ops(onnx_graph(net.model("unsigned", "onnxruntime"))) == ["QuantizeLinear", "DequantizeLinear"]


def test_names_are_unique_whatever_layers_are_called():
    net = Stack((2, 3, 3), 0)
    net.weighted("input", "conv2d", "x", (4, 2, 1, 1), (0.05, 3), **conv())
    net.weighted("input:conv", "conv2d", "input", (4, 4, 1, 1), (0.05, 3), **conv())
    net.weighted("output", "conv2d", "input:conv", (4, 4, 1, 1), (0.05, 3), **conv())
    graph = onnx_graph(net.model("output", "onnxruntime"))
    names = [*(node.output for node in graph.nodes), *graph.constants, graph.inputs[0].name]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("name", "parts", "message"), [
    ("tanh", {"attrs": {"function": "exp"}}, r"no unary function 'exp'|ONNX Runtime has no exp"),
    ("stem", {"bias": np.zeros(8, np.int64)}, "its bias is int64, and the accumulators have 32 bits"),
    ("stem", {"output": QParams(0.1, 0, -32768, 32767)}, "Quantize activations with bits=8"),
    ("stem", {"weight_qparams": QParams(np.full(8, 0.1), np.full(8, 3), -128, 127, 0)}, "a symmetric scheme"),
    ("stem", {"weight_qparams": QParams(np.full(8, 0.1), np.zeros(8, int), 0, 255, 0)}, "a symmetric scheme"),
    ("squeeze", {"attrs": {"axes": (0, 2, 3), "keepdim": True}}, "axes is"),
    ("tanh", {"op": "float", "attrs": {"function": lambda x: x, "reason": "a lambda"}}, r"in float \(a lambda\)"),
])  # fmt: skip
def test_what_cannot_be_said_is_refused_by_name(name, parts, message, tmp_path):
    with pytest.raises((ExportError, ql.errors.KernelError), match=message) as caught:
        ql.export_onnx(changed(name, **parts), tmp_path / "net.onnx")
    assert f"layer '{name}'" in str(caught.value) + "".join(getattr(caught.value, "__notes__", ()))
    assert not list(tmp_path.iterdir())


def test_another_profile_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(ExportError, match=r"has the policy 'fixed'.*export model\.with_policy\('onnxruntime'\)"):
        ql.export_onnx(everything(policy="fixed"), tmp_path / "net.onnx")


def test_every_kernel_is_exported_or_runs_in_float():
    from qlearn.export.onnx_layers import EMITTERS

    assert set(KERNELS) - set(EMITTERS) == {"float"}


def test_the_file_says_what_it_is(tmp_path):
    onnx = pytest.importorskip("onnx")
    preprocess = Preprocess((9, 9), (0.5,) * 3, (0.25,) * 3)
    ql.export_onnx(replace(model(), preprocess=preprocess), tmp_path / "net.onnx")
    read = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(read, full_check=True)
    assert (read.producer_name, read.producer_version) == ("qlearn", ql.__version__)
    assert [(o.domain, o.version) for o in read.opset_import] == [("", 17)]
    assert read.graph.name == "everything"
    record = {entry.key: entry.value for entry in read.metadata_props}
    assert record == metadata(replace(model(), preprocess=preprocess))
    assert json.loads(record["preprocess"])["size"] == [9, 9]
    assert (record["policy"], record["input_zero_point"]) == ("onnxruntime", "125")
    shape = read.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in shape] == ["N", 3, 9, 9]


def test_a_network_that_the_checker_refuses_gives_our_error():
    pytest.importorskip("onnx")
    from qlearn.export.onnx_write import onnx_bytes

    graph = onnx_graph(model())
    with pytest.raises(ExportError, match="the checker of ONNX does not accept"):
        onnx_bytes(replace(graph, nodes=graph.nodes[1:]), "broken", {})
