"""Reading .tflite files: what the file says is what runs; everything else is refused with our error, quickly."""

import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from integer_networks import everything, inputs
from lite_graphs import GRAPHS, PICTURE, chain, constant, input_for, linear_constants, one, tensor

import qlearn as ql
from qlearn.errors import KernelError, ModelFileError
from qlearn.export.litert import litert_graph
from qlearn.export.litert_graph import LiteGraph, LiteOperator, LiteTensor
from qlearn.export.litert_import import integer_model
from qlearn.export.litert_read import lite_graph

ASSET = Path(__file__).parent.parent / "data" / "litert" / "everything.tflite"
DATA = Path(os.environ.get("QLEARN_DATA", "."))
needs_data = pytest.mark.skipif("QLEARN_DATA" not in os.environ, reason="QLEARN_DATA is not set")


def test_the_imported_model_is_the_exported_one():
    model, imported = everything(), ql.import_litert(ASSET)
    x = inputs(model, 20)
    ours, theirs = ({}, {})
    model.run_codes(x, watch=lambda layer, codes: ours.update({layer.name: codes}))
    imported.run_codes(x, watch=lambda layer, codes: theirs.update({layer.name: codes}))
    for name in set(ours) - {"clamp"}:  # a clamp is two operators, MAXIMUM and MINIMUM
        assert np.array_equal(ours[name], theirs[name]), name
    assert np.array_equal(ours["clamp"], theirs["clamp/clamped/minimum"])
    assert (imported.name, imported.policy, imported.input_shape) == ("everything", "litert_reference", (3, 9, 9))
    assert ql.import_litert(ASSET, "xnnpack", name="mine").name == "mine"


def test_the_plain_graph_goes_both_ways():
    graph, read = litert_graph(everything()), lite_graph(ASSET.read_bytes())
    assert (graph.inputs, graph.outputs, graph.name) == (read.inputs, read.outputs, read.name)
    for ours, theirs in zip(graph.tensors, read.tensors, strict=True):
        assert (ours.name, ours.shape, ours.dtype) == (theirs.name, theirs.shape, theirs.dtype)
        for field in ("scale", "zero_point", "data"):
            assert np.array_equal(getattr(ours, field), getattr(theirs, field)), (ours.name, field)
    for ours, theirs in zip(graph.operators, read.operators, strict=True):
        assert (ours.op, ours.inputs, ours.outputs) == (theirs.op, theirs.inputs, theirs.outputs)
        assert all(theirs.options[key] == value for key, value in ours.options.items())


@pytest.mark.parametrize("name", ["", "x", "missing.tflite"])
def test_what_is_no_file_is_refused(name, tmp_path):
    (tmp_path / "x").write_bytes(b"hello, this is no flatbuffer")
    with pytest.raises(ModelFileError, match=r"cannot be read|not a \.tflite file"):
        ql.import_litert(tmp_path / name)
    with pytest.raises(KernelError, match="no requantization policy 'half'"):
        ql.import_litert(ASSET, "half")


@pytest.mark.realdata
@needs_data
@pytest.mark.parametrize(
    "name", ["mlperf_tiny/pretrainedResnet.tflite", "mobilenet_v1_0.25/mobilenet_v1_0.25_224_float32.tflite"]
)
def test_a_float_model_is_refused(name):
    with pytest.raises(ModelFileError, match=r"not quantized|computes before|never computed"):
        ql.import_litert(DATA / name)


@pytest.mark.parametrize("name", GRAPHS)
def test_what_other_converters_write_is_read(name):
    graph = GRAPHS[name]
    model = integer_model(graph, "litert_reference", name)
    x = input_for(graph)
    codes = (model.run if x.dtype == np.float32 else model.run_codes)(x.transpose(0, 3, 1, 2))
    shape = graph.tensors[graph.outputs[0]].shape
    assert codes.shape == (tuple(shape[axis] for axis in (0, 3, 1, 2)) if len(shape) == 4 else shape)
    assert codes.min() < codes.max()


def test_squeeze_is_a_reshape():
    graph = chain(
        ("MEAN", tensor("m", (1, 1, 1, 8)), (constant("a", [1, 2]),), {"keepDims": True}),
        ("SQUEEZE", tensor("y", (1, 8)), (), {}),
    )
    assert integer_model(graph, "fixed", "squeeze").run_codes(np.zeros((2, 8, 4, 6), np.int8)).shape == (2, 8)


def graph_with(**changes) -> LiteGraph:
    return replace(lite_graph(ASSET.read_bytes()), **changes)


def changed_operator(name, **changes):
    graph = graph_with()
    operators = list(graph.operators)
    place = next(i for i, operator in enumerate(operators) if operator.op == name)
    options = {**operators[place].options, **changes.pop("options", {})}
    operators[place] = replace(operators[place], options=options, **changes)
    return replace(graph, operators=tuple(operators))


def indexed(name):
    return next(i for i, tensor in enumerate(graph_with().tensors) if tensor.name == name)


def changed_tensor(name, **changes):
    graph = graph_with()
    return replace(graph, tensors=tuple(replace(t, **changes) if t.name == name else t for t in graph.tensors))


REFUSED = {
    "two inputs": (graph_with(inputs=(0, 1)), "2 inputs and 1 outputs"),
    "no output": (graph_with(outputs=()), "1 inputs and 0 outputs"),
    "output is a constant": (graph_with(outputs=(indexed("stem/weight"),)), "a constant"),
    "tanh": (changed_operator("CONV_2D", options={"fusedActivationFunction": 4}), "CONV_2D .*fused activation 4"),
    "stride 0": (changed_operator("CONV_2D", options={"strideW": 0}), r"strides \(2, 0\)"),
    "stride 1": (changed_operator("CONV_2D", options={"strideW": 1}), r"would have the shape \(1, 8, 5, 9\)"),
    "huge dilation": (changed_operator("CONV_2D", options={"dilationHFactor": 2**30}), "does not fit into"),
    "huge window": (changed_operator("MAX_POOL_2D", options={"filterHeight": 2**30}), "elements, more than"),
    "large window": (
        changed_operator("MAX_POOL_2D", options={"filterHeight": 2**11, "filterWidth": 2**10}), "elements, more than"
    ),
    "padding 7": (changed_operator("AVERAGE_POOL_2D", options={"padding": 7}), "padding 7"),
    "no weights": (changed_operator("CONV_2D", inputs=(2,)), "1 inputs"),
    "left out": (changed_operator("CONV_2D", inputs=(indexed("pad"), -1, -1)), "left out"),
    "two outputs": (changed_operator("ADD", outputs=(0, 1)), "2 outputs"),
    "cycle": (changed_operator("CONV_2D", outputs=(0,)), "shape|twice|scale"),
    "axis": (changed_operator("CONCATENATION", options={"axis": 0}), "along axis"),
    "axis 9": (changed_operator("CONCATENATION", options={"axis": 9}), "along axis"),
    "mask": (changed_operator("STRIDED_SLICE", options={"newAxisMask": 1}), "adds or removes axes"),
    "beta": (changed_operator("SOFTMAX", options={"beta": float("nan")}), "beta nan"),
    "format": (changed_operator("FULLY_CONNECTED", options={"weightsFormat": 1}), "in format 1"),
    "float": (changed_tensor("stem", dtype="float32"), "not quantized"),
    "no scale": (changed_tensor("stem", scale=None), "not quantized"),
    "scale 0": (changed_tensor("stem", scale=np.float32([0])), "scale must be"),
    "scale nan": (changed_tensor("stem", scale=np.float32([np.nan])), "scale must be"),
    "huge scale": (changed_tensor("stem", scale=np.float32([1e30])), "out of all proportion"),
    "tiny scale": (changed_tensor("stem", scale=np.float32([1e-30])), "out of all proportion"),
    "zero point": (changed_tensor("stem", zero_point=np.int64([2**40])), "zero_point|does not fit"),
    "batch": (changed_tensor("stem", shape=(2, 5, 5, 8)), "batch of one"),
    "sigmoid": (changed_tensor("gate", zero_point=np.int64([3])), "in steps of 1/256"),
    "bias": (changed_tensor("stem/bias", shape=(7,), data=np.zeros(7, np.int32)), "bias of shape"),
    "bias type": (changed_tensor("stem/bias", data=np.zeros(8, np.float32), dtype="float32"), "no constant of"),
    "weights": (changed_tensor("stem/weight", data=np.zeros((8, 3, 3, 2), np.int8)), "weights of shape"),
    "weight axis": (changed_tensor("stem/weight", axis=3), "another axis"),
    "overflow": (changed_tensor("stem/bias", data=np.full(8, 2**31 - 1, np.int32)), "accumulator can reach"),
    "pad": (changed_tensor("pad/amounts", data=np.int32([[1, 0], [0, 0], [0, 0], [0, 0]])), "amounts"),
    "moved scale": (changed_tensor("half", scale=np.float32([0.5])), "another scale or zero point"),
}  # fmt: skip


def limits(*shape):
    return tensor("c", shape, data=np.zeros(shape, np.int8))


def nothing(op):
    return LiteGraph((tensor("x", PICTURE), tensor("y", PICTURE)), (LiteOperator(op, (), (1,)),), (0,), (1,))


FLOAT = tensor("x", PICTURE, "float32", None)
SMALL = {
    "mean of the batch": (one("MEAN", tensor("y", PICTURE), constant("a", [0]), keepDims=True), "the batch must stay"),
    "mean of nothing": (one("MEAN", tensor("y", PICTURE), constant("a", [7]), keepDims=True), "the batch must stay"),
    "batch moved": (one("TRANSPOSE", tensor("y", PICTURE), constant("p", [1, 0, 2, 3])), "the batch stays the first"),
    "elements lost": (one("RESHAPE", tensor("y", (1, 5)), constant("s", [1, 5])), r"from \(1, 4, 6, 8\) to \(1, 5\)"),
    "float middle": (one("DEQUANTIZE", tensor("y", PICTURE, "float32", None)), None),
    "relu moves": (one("RELU", tensor("y", PICTURE, q=(0.1, 0))), "another scale"),
    "wide sigmoid": (
        one("LOGISTIC", tensor("y", PICTURE, "int16", (1 / 32768, 0)), source=tensor("x", PICTURE, "int16", (0.1, 0))),
        "tables for 8",
    ),
    "softmax of four axes": (one("SOFTMAX", tensor("y", PICTURE, q=(1 / 256, -128)), beta=1.0), "beta 1.0 over"),
    "linear": (one("FULLY_CONNECTED", tensor("y", (1, 5)), *linear_constants(7, 5)), "weights of shape"),
    "linear of four axes": (
        one("FULLY_CONNECTED", tensor("y", (1, 4, 6, 5)), *linear_constants(8, 5), keepNumDims=True), "weights of shape"
    ),
    "ranks": (
        chain(("MEAN", tensor("m", (1, 8)), (constant("a", [1, 2]),), {}), ("ADD", tensor("y", (1, 8)), (), {})),
        "1 inputs",
    ),
    "slice of the batch": (
        one("STRIDED_SLICE", tensor("y", PICTURE), *(constant(n, [0, 0, 0, 0]) for n in "be"), constant("s", [1] * 4)),
        "cuts the batch",
    ),
    "bounds": (
        one("STRIDED_SLICE", tensor("y", PICTURE), *(constant(n, [0]) for n in "be"), constant("s", [1])), "1 bounds"
    ),
    "no concat": (nothing("CONCATENATION"), "no inputs"),
    "no reshape": (nothing("RESHAPE"), "no input"),
    "limit": (one("MAXIMUM", tensor("y", PICTURE), limits(3)), "one number per channel"),
    "limit per row": (one("MAXIMUM", tensor("y", PICTURE), limits(8, 1, 1)), "one number per channel"),
    "limit of three axes": (
        chain(
            ("RESHAPE", tensor("r", (1, 24, 8)), (constant("s", [1, 24, 8]),), {}),
            ("MINIMUM", tensor("y", (1, 24, 8)), (limits(24),), {}),
        ),
        "one number per channel",
    ),
    "float first": (one("RELU", tensor("y", PICTURE), source=tensor("x", PICTURE, "float32", None)), "never computed"),
    "float reshaped": (one("QUANTIZE", tensor("y", (1, 8)), source=FLOAT), "another shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", [case for case in SMALL if SMALL[case][1]])
def test_small_contradictions_are_refused(case):
    graph, message = SMALL[case]
    with pytest.raises(ModelFileError, match=message):
        integer_model(graph, "fixed", "broken")


def test_two_networks_and_odd_tensors_are_refused_while_reading():
    content = ASSET.read_bytes()
    with pytest.raises(ModelFileError, match=r"not a \.tflite file"):
        lite_graph(b"\0\0\0\0TFL2" + content[8:])
    for size in (8, 12, 40, 400, len(content) // 2):
        with pytest.raises(ModelFileError, match=r"damaged|networks"):
            lite_graph(content[:size])


@pytest.mark.parametrize("case", REFUSED)
def test_contradictions_are_refused_by_name(case):
    graph, message = REFUSED[case]
    with pytest.raises((ModelFileError, KernelError), match=message):
        integer_model(graph, "fixed", "broken")


def test_an_operator_that_we_lack_is_named():
    content = bytearray(ASSET.read_bytes())
    graph = lite_graph(bytes(content))
    assert any(operator.op == "SOFTMAX" for operator in graph.operators)
    codes = [i for i in range(len(content) - 4) if struct.unpack_from("<i", content, i)[0] == 25]  # SOFTMAX
    named = 0
    for position in codes:
        changed = bytearray(content)
        changed[position : position + 4] = struct.pack("<i", 82)  # REDUCE_MAX, which qlearn does not read
        try:
            lite_graph(bytes(changed))
        except ModelFileError as error:
            named += "operator number 82: qlearn reads ADD, AVERAGE_POOL_2D" in str(error)
    assert named == 1


def test_constants_as_inputs_of_an_add_are_refused():
    graph = graph_with()
    constant = LiteTensor(
        "c", (1, 5, 5, 8), "int8", np.float32([0.1]), np.int64([0]), data=np.zeros((1, 5, 5, 8), np.int8)
    )
    add = next(i for i, operator in enumerate(graph.operators) if operator.op == "ADD")
    operators = list(graph.operators)
    operators[add] = LiteOperator("ADD", (operators[add].inputs[0], len(graph.tensors)), operators[add].outputs, {})
    with pytest.raises(ModelFileError, match=r"operator ADD that gives .*'add'.*: tensor 'c' is a constant"):
        integer_model(replace(graph, tensors=(*graph.tensors, constant), operators=tuple(operators)), "fixed", "broken")
