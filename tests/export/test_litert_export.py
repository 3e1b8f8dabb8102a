"""Writing .tflite files: what cannot be written is refused by name. What is written, the runtimes judge."""

import dataclasses
import sys

import numpy as np
import pytest
from integer_networks import everything

import qlearn as ql
from qlearn.errors import ExportError, MissingDependencyError
from qlearn.export.litert import litert_graph
from qlearn.integer.layers import IntegerLayer
from qlearn.numbers.qparams import QParams


def with_layers(**changes):
    """The network with some layers changed."""
    model = everything(policy="xnnpack")
    layers = tuple(dataclasses.replace(layer, **changes.get(layer.name, {})) for layer in model.layers)
    return dataclasses.replace(model, layers=layers)


def with_layer(name, **changes):
    return with_layers(**{name: changes})


def weights(zero_point=0, bits=8):
    layer = everything().layer("pointwise")
    high = 2 ** (bits - 1) - 1
    q = QParams(layer.weight_qparams.scale, np.full(8, zero_point, np.int32), -high, high, 0)
    dtype = np.int8 if bits <= 8 else np.int16
    return {"weight": layer.weight.astype(dtype), "weight_qparams": q}


REFUSED = {
    "zero points": (with_layer("pointwise", **weights(3)), "'pointwise' .* weights have zero points other than 0"),
    "wide weights": (with_layer("pointwise", **weights(0, 10)), "'pointwise' .* weights have more than 8 bits"),
    "wide bias": (with_layer("pointwise", bias=np.zeros(8, np.int64)), "'pointwise' .* bias of int64"),
    "wrapping": (with_layer("excite", output=QParams(1e-7, 0, -128, 127)), "'excite' .* times finer"),
    "aborting": (with_layer("add", output=QParams(1e-7, 0, -128, 127)), "'add' .* times finer"),
    "5 bits": (with_layer("pointwise", output=QParams(0.03, 0, -16, 15)), "'pointwise' has codes from -16 to 15"),
    "sigmoid": (with_layer("gate", output=QParams(0.01, 0, -128, 127)), "'gate' .* scale 1/256 and zero point -128"),
    "silu": (with_layer("gate", attrs={"function": "silu"}), "'gate' .* no int8 operator for silu"),
    "float": (
        with_layer("tanh", op="float", attrs={"reason": "GELU", "function": np.tanh}),
        "'tanh' .* runs in float .GELU.",
    ),
    "padding": (
        with_layer("largest", attrs={"kernel": (2, 2), "stride": (2, 2), "padding": (1, 0, 1, 0)}),
        "'largest' .* padding is not TensorFlow's SAME",
    ),
    "backwards": (with_layer("half", attrs={"slices": ((None, None, None), (None, None, -2))}), "'half' .* backwards"),
    "axes": (
        with_layers(flat={"op": "clamp"}, logits={"weight": everything().layer("logits").weight[:, :2]}),
        "'logits' .* four axes",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_litert_cannot_hold_is_refused_by_name(case):
    model, message = REFUSED[case]
    with pytest.raises(ExportError, match=message):
        litert_graph(model)


def test_a_policy_that_litert_does_not_compute_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"policy 'fixed'.*with_policy\('xnnpack'\)"):
        ql.export_litert(everything(policy="fixed"), tmp_path / "net.tflite")


def test_a_folder_cannot_be_written(tmp_path):
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(ExportError, match="cannot be written"):
        ql.export_litert(everything(policy="xnnpack"), tmp_path)


def test_without_the_package_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'qlearn\[litert\]'"):
        ql.export_litert(everything(policy="xnnpack"), tmp_path / "net.tflite")


def test_padding_becomes_same_valid_or_a_pad_of_its_own():
    graph = litert_graph(everything())
    kinds = [(o.op, o.options.get("padding")) for o in graph.operators if o.op in ("PAD", "CONV_2D", "MAX_POOL_2D")]
    assert kinds == [("PAD", None), ("CONV_2D", 1), ("CONV_2D", 1), ("MAX_POOL_2D", 0)]
    model = everything()
    layers = list(model.layers)
    place = next(i for i, layer in enumerate(layers) if layer.name == "stem")
    layers[place] = dataclasses.replace(layers[place], attrs={**layers[place].attrs, "padding": (1, 0, 1, 0)})
    layers = [layer for layer in layers if isinstance(layer, IntegerLayer)]
    graph = litert_graph(dataclasses.replace(model, layers=tuple(layers)))
    assert [o.op for o in graph.operators][:3] == ["PAD", "PAD", "CONV_2D"]


def test_a_mean_of_uint8_codes_is_refused_for_xnnpack():
    x = IntegerLayer("x", "input", (), QParams(0.1, 100, 0, 255))
    mean = IntegerLayer("m", "mean", ("x",), x.output, attrs={"axes": (2, 3), "keepdim": False})
    model = ql.IntegerModel((x, mean), "m", (3, 2, 2), "xnnpack")
    with pytest.raises(ExportError, match=r"layer 'm' .*signed=True"):
        litert_graph(model)
    assert len(litert_graph(model.with_policy("litert_reference")).operators) == 1


def test_uint8_codes_are_written_as_int8():
    layer = IntegerLayer("x", "input", (), QParams(0.1, 100, 0, 255))
    flat = IntegerLayer("y", "flatten", ("x",), layer.output)
    graph = litert_graph(ql.IntegerModel((layer, flat), "y", (3, 2, 2), "xnnpack"))
    assert (graph.tensors[0].dtype, graph.tensors[0].zero_point.tolist()) == ("int8", [-28])
