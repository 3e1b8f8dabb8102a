"""A model is checked when it is made: every shape is known, every attribute looked at, every sum bounded."""

import dataclasses
import io
import pickle
import zipfile

import numpy as np
import pytest
from integer_networks import everything, inputs
from random_layers import LAYERS
from random_models import random_model

import qlearn as ql
from qlearn.errors import AccumulatorOverflowError, KernelError, ModelFileError
from qlearn.integer import reference
from qlearn.integer.checks import check_size, check_sums, largest_sum
from qlearn.integer.layers import IntegerLayer, run_layer
from qlearn.integer.profiles import profile_named
from qlearn.integer.shapes import output_shape
from qlearn.numbers.qparams import QParams

INT8 = (-128, 127)
Q = QParams(0.1, 3, *INT8)


@pytest.mark.parametrize("make", [*(lambda seed=seed: random_model(seed, "fixed") for seed in range(60)), everything])
def test_the_shapes_are_those_that_running_gives(make):
    model, seen = make(), {}
    model.run_codes(inputs(model, 1), watch=lambda layer, codes: seen.update({layer.name: codes.shape}))
    assert model.site_shapes == seen


@pytest.mark.parametrize("kind", LAYERS)
def test_the_shape_of_one_layer_is_what_its_kernel_gives(kind):
    for seed in range(10):
        layer, x = LAYERS[kind](np.random.default_rng(seed))
        shape = output_shape(layer, [codes.shape for codes, _ in x])
        assert shape == run_layer(layer, x, profile_named("float32")).shape


def changed(site, **parts):
    """The network with one layer changed."""
    model = everything()
    layers = [dataclasses.replace(layer, **parts) if layer.name == site else layer for layer in model.layers]
    return dataclasses.replace(model, layers=tuple(layers))


def attrs(name, **values):
    return {"attrs": {**everything().layer(name).attrs, **values}}


REFUSED = {
    "stride": ("stem", attrs("stem", stride=(0, 1)), r"stride is \(0, 1\), not 2 whole numbers from 1 on"),
    "dilation": ("stem", attrs("stem", dilation=(1.0, 1)), r"dilation is \(1.0, 1\)"),
    "padding": ("stem", attrs("stem", padding=(0, 0)), r"padding is \(0, 0\), not 4"),
    "no padding": ("largest", {"attrs": {"kernel": (2, 2), "stride": (1, 1)}}, "padding is None"),
    "groups": ("depthwise", attrs("depthwise", groups=4), "in 4 groups for an input of shape"),
    "window": ("stem", attrs("stem", dilation=(9, 9)), "does not fit into"),
    "weights": ("stem", {"weight": None}, "has no weights"),
    "float weights": ("stem", {"weight": np.zeros((8, 3, 3, 3), np.float32)}, "weights are float32"),
    "bias": ("stem", {"bias": np.zeros(7, np.int32)}, "one bias, for each of its 8 outputs"),
    "float bias": ("stem", {"bias": np.zeros(8, np.float32)}, "its bias is float32"),
    "scales": ("stem", {"weight_qparams": QParams(np.ones(7), np.zeros(7, int), *INT8, 0)}, "each of its 8 outputs"),
    "linear": ("logits", {"weight": np.zeros((5, 47), np.int8)}, "weights of shape"),
    "inputs": ("add", {"inputs": ("stem",)}, "has 1 inputs, not 2"),
    "shapes": ("add", {"inputs": ("stem", "pad")}, "inputs of shapes"),
    "later": ("add", {"inputs": ("stem", "softmax")}, "reads what does not exist yet"),
    "name": ("add", {"name": "stem"}, "taken by another layer"),
    "operation": ("add", {"op": "divide"}, "unknown operation 'divide'"),
    "second input": ("add", {"op": "input", "inputs": ()}, "the input comes first, once"),
    "scale": ("largest", {"output": Q}, "moves codes: its output must have the scale of its input"),
    "per channel": ("add", {"output": QParams(np.ones(8), np.zeros(8, int), *INT8, 0)}, "more than one scale"),
    "24 bits": ("add", {"output": QParams(0.1, 0, -(2**23), 2**23 - 1)}, "over 16 bits"),
    "tiny steps": ("add", {"output": QParams(1e-12, 0, *INT8)}, "times finer .* out of all proportion"),
    "function": ("tanh", {"attrs": {"function": "sinh"}}, "no unary function 'sinh': choose one of"),
    "beta": ("softmax", {"attrs": {"beta": float("nan")}}, "beta nan"),
    "axes": ("squeeze", {"attrs": {"axes": (0, 2), "keepdim": True}}, "axes is"),
    "axes twice": ("squeeze", {"attrs": {"axes": (2, 2), "keepdim": True}}, "a mean over the axes"),
    "keepdim": ("squeeze", {"attrs": {"axes": (2, 3), "keepdim": 1}}, "keepdim is 1, neither True nor False"),
    "pool of padding": ("largest", attrs("largest", padding=(0, 2, 0, 2)), "holds whole windows"),
    "pad": ("pad", {"attrs": {"amounts": ((1, 0), (0, 0), (1, 1), (1, 1))}}, "the batch stays"),
    "negative pad": ("pad", {"attrs": {"amounts": ((0, 0), (0, 0), (-1, 1), (1, 1))}}, "amounts is"),
    "slice": ("half", {"attrs": {"slices": ((1, None, None),)}}, "the batch stays"),
    "slice of nothing": ("half", {"attrs": {"slices": ((None, None, None), (8, None, None))}}, "nothing is left"),
    "slice step": ("half", {"attrs": {"slices": ((None, None, None), (0, None, 0))}}, "no start, stop and step"),
    "reshape": ("channels", {"attrs": {"shape": (-1, 5, 5)}}, r"shape is \(-1, 5, 5\)"),
    "transpose": ("swap", {"attrs": {"axes": (1, 0, 2, 3, 4)}}, "the batch stays the first"),
    "concat": ("concat", {"attrs": {"axis": 0}}, "the batch stays"),
    "concat rows": ("concat", {"attrs": {"axis": 2}}, "along axis 2"),
    "limits": ("pointwise", {"clamp": (-300, 5)}, "are no codes of int8"),
    "real limits": ("pointwise", {"clamp": (-3.0, 5)}, "are no codes of int8"),
    "upside down": ("pointwise", {"clamp": (6, 5)}, "a low and a high one"),
    "limits per channel": ("pointwise", {"clamp": (np.zeros(7, int), np.ones(7, int))}, "each of 8 channels"),
    "sum": ("stem", {"bias": np.full(8, 2**31 - 1, np.int32)}, "accumulator can reach"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_run_is_refused_when_the_model_is_made(case):
    name, parts, message = REFUSED[case]
    with pytest.raises(KernelError, match=message) as caught:
        changed(name, **parts)
    assert f"layer {parts.get('name', name)!r}" in str(caught.value)


def test_output_and_input_shape_are_checked():
    with pytest.raises(KernelError, match="the output 'nothing' is no layer"):
        dataclasses.replace(everything(), output="nothing")
    for shape in ((), (3, 0, 9)):
        with pytest.raises(KernelError, match="the input has the shape"):
            dataclasses.replace(everything(), input_shape=shape)


def test_behind_a_layer_in_float_no_shape_is_known_and_the_model_runs():
    model = changed("tanh", op="float", attrs={"function": np.tanh})
    assert model.site_shapes["tanh"] is None
    assert model.site_shapes["softmax"] is None
    assert model.site_shapes["excite"] == (1, 8, 5, 5)
    codes = inputs(model)
    assert np.array_equal(model.run_codes(codes), model.with_engine("torch").run_codes(codes))


def wide(zero_point=0):
    return QParams(0.001, zero_point, -32768, 32767)


def test_a_mean_of_16_bits_over_a_large_map_is_refused_when_the_model_is_made():
    def model(side, q):
        mean = IntegerLayer("pool", "global_avg_pool", ("x",), q, {"keepdim": False})
        return ql.IntegerModel((IntegerLayer("x", "input", (), q), mean), "pool", (1, side, side))

    largest = model(255, wide())  # 255 x 255 x 32768 is the last to fit
    codes = np.full((1, 1, 255, 255), -32768, np.int16)
    assert largest.run_codes(codes) == -32768
    with pytest.raises(AccumulatorOverflowError, match=r"layer 'pool': the accumulator can reach 2.15e\+09.*int32"):
        model(256, wide())
    with pytest.raises(AccumulatorOverflowError, match="layer 'pool'"):
        model(200, wide(-32768))
    assert model(2000, Q).site_shapes["pool"] == (1, 1)


@pytest.mark.parametrize("op", ["conv2d", "linear", "depthwise", "mean", "average pool", "multiply"])
def test_the_bound_is_reached_and_never_passed(op):
    """The worst input is built from the signs of the weights; the kernels' own sums are the oracle."""
    for seed in range(20):
        layer, x = LAYERS[op](np.random.default_rng(seed))
        shapes = [codes.shape for codes, _ in x]
        bound = largest_sum(layer, [q for _, q in x], shapes)
        farthest = [max((q.qmin, q.qmax), key=lambda code, z=int(q.zero_point): abs(code - z)) for _, q in x]
        steps = [code - int(q.zero_point) for code, (_, q) in zip(farthest, x, strict=True)]
        if op == "multiply":
            assert bound == abs(steps[0] * steps[1])
        elif op in ("mean", "average pool"):
            places = layer.attrs.get("kernel", shapes[0][2:])
            assert bound == abs(sum(steps[0] for _ in np.ndindex(*places)))
        else:
            rows = layer.weight.reshape(len(layer.weight), -1).astype(int)
            sums = [abs(int(b)) + sum(abs(w * steps[0]) for w in row) for row, b in zip(rows, layer.bias, strict=True)]
            assert bound == max(map(int, sums))


def test_a_product_of_wide_codes_must_fit_into_int32():
    def model(q):
        layers = (IntegerLayer("x", "input", (), q), IntegerLayer("square", "multiply", ("x", "x"), q))
        return ql.IntegerModel(layers, "square", (4,))

    assert model(wide()).run_codes(np.full((1, 4), -32768, np.int16)).tolist() == [[32767] * 4]
    with pytest.raises(AccumulatorOverflowError, match="layer 'square'"):
        model(wide(-32768))


def test_48_bits_are_the_limit_of_wide_accumulators_and_are_computed_right():
    """Beyond, the product with a mantissa of 15 bits would leave int64."""
    x, w = QParams(0.5, 0, -32768, 32767), QParams(2.0**-30, 0, -127, 127)
    layer = IntegerLayer("y", "linear", ("x",), QParams(1.0, 0, -32768, 32767), {}, np.full((1, 9), 127, np.int8), w,
                         np.array([2**47 - 9 * 127 * 32768], np.int64))  # fmt: skip
    check_sums(layer, [x], [(1, 9)])
    code = run_layer(layer, [(np.full((1, 9), 32767, np.int16), x)], profile_named("fixed"))
    assert code == 32767  # 2**47 / 2**31 = 65536 steps: saturated, not wrapped
    small = QParams(2.0**-31, 0, -127, 127)
    half = dataclasses.replace(layer, weight_qparams=small, bias=np.array([2**46 - 9 * 127 * 32767], np.int64))
    assert run_layer(half, [(np.full((1, 9), 32767, np.int16), x)], profile_named("fixed")) == 2**14
    with pytest.raises(AccumulatorOverflowError, match="48 bits"):
        check_sums(dataclasses.replace(layer, bias=layer.bias + 1), [x], [(1, 9)])


@pytest.mark.parametrize("engine", ["reference", "torch"])
def test_codes_that_are_none_of_the_input_are_refused(engine):
    model = everything().with_engine(engine)
    good = inputs(model, 2)
    assert np.array_equal(model.run_codes(good.astype(np.int64)), model.run_codes(good))
    for bad, message in (
        (good[:0], "N > 0"),
        (good[0], "takes a batch of shape"),
        (good[:, :2], "takes a batch of shape"),
        (good.astype(np.float32), "integer codes from -128 to 127, got float32"),
        (good.astype(np.int16) + 200, "got int16 from"),
        (good.astype(np.uint8), "got uint8 from"),
        (np.array(3), "takes a batch of shape"),
    ):
        with pytest.raises(KernelError, match=message):
            model.run_codes(bad)


def test_what_asks_for_too_much_is_refused_from_a_file_only(tmp_path):
    def model(*layers, shape=(64, 64, 64)):
        return ql.IntegerModel((IntegerLayer("x", "input", (), Q), *layers), layers[-1].name, shape)

    window = {"kernel": (63, 63), "stride": (1, 1), "padding": (31, 31, 31, 31)}
    pools = [IntegerLayer(f"p{i}", "max_pool2d", ("x" if i == 0 else f"p{i - 1}",), Q, window) for i in range(9)]
    doubled = [IntegerLayer(f"c{i}", "concat", ("x" if i == 0 else f"c{i - 1}",) * 2, Q, {"axis": 1}) for i in range(8)]
    pad = IntegerLayer("p", "pad", ("x",), Q, {"amounts": ((0, 0), (0, 0), (10**9, 0), (0, 0))})
    for large, message in (
        (model(*pools), "more than qlearn takes from a file"),
        (model(*doubled), "elements, more than qlearn takes"),
        (model(pad), "elements, more than qlearn takes"),
    ):
        large.save(tmp_path / "net.qlearn")
        with pytest.raises(ModelFileError, match=message):
            ql.IntegerModel.load(tmp_path / "net.qlearn")
    check_size(everything().layers, everything().site_shapes)


def test_the_largest_of_a_window_needs_no_more_memory_than_its_output():
    x = np.random.default_rng(0).integers(-128, 128, (1, 3, 40, 40)).astype(np.int8)
    seen = reference.max_pool2d(x, kernel=(33, 33), stride=(1, 1), padding=(16, 16))
    assert seen[0, :, 20, 20].tolist() == x[0, :, 4:37, 4:37].max(axis=(1, 2)).tolist()


def special(tmp_path, kind):
    path = tmp_path / kind
    if kind == "sparse":
        with path.open("wb") as file:
            file.truncate(2**31)
    elif kind == "large":  # the right first bytes, and nothing behind
        with path.open("wb") as file:
            file.write(b"\x93QLEARN\n" + bytes(4))
            file.truncate(2**31)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("graph.npy", b"hello")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"a": 1}))
    elif kind == "npz":
        buffer = io.BytesIO()
        np.savez(buffer, a=np.zeros(3))
        path.write_bytes(buffer.getvalue())
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "pipe":
        import os

        os.mkfifo(path)
    elif kind == "zero byte":
        return str(path) + "\0"
    elif kind == "a long name":
        return tmp_path / ("x" * 5000)
    return path


KINDS = ["sparse", "large", "zip", "pickle", "npz", "folder", "empty", "pipe", "zero byte", "a long name", "missing"]


@pytest.mark.parametrize("load", [ql.IntegerModel.load, ql.import_litert])
@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_file_but_our_own_is_read(kind, load, tmp_path):
    with pytest.raises(ModelFileError, match=r"cannot be read|not a|up to 536870912"):
        load(special(tmp_path, kind))
