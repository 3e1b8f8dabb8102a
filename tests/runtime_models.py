"""One layer, or one file, in LiteRT and in ONNX Runtime. Import it only where these are installed."""

import numpy as np

from qlearn.export.litert_build import FROM_FILE, TO_FILE, LiteBuilder
from qlearn.export.litert_layers import emit
from qlearn.export.litert_write import lite_bytes

KINDS = {"litert_reference": "BUILTIN_REF", "xnnpack": "AUTO"}


def interpreter(content, profile, **options):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = getattr(OpResolverType, KINDS[profile])
    made = Interpreter(model_content=content, experimental_op_resolver_type=kind, num_threads=1, **options)
    made.allocate_tensors()
    return made


def to_file(x):
    return np.ascontiguousarray(x.transpose(TO_FILE)) if x.ndim == 4 else x


def from_file(x):
    return x.transpose(FROM_FILE) if x.ndim == 4 else x


def litert_layer(layer, inputs, shape, profile):
    """The codes that LiteRT gives for one layer."""
    builder = LiteBuilder()
    sites = [builder.site(name, x.shape, q, name) for name, (x, q) in zip(layer.inputs, inputs, strict=True)]
    output = emit(builder, layer, sites, shape)
    made = interpreter(lite_bytes(builder.graph(sites, [output])), profile)
    for detail, (x, _) in zip(made.get_input_details(), inputs, strict=True):
        made.set_tensor(detail["index"], to_file(x))
    made.invoke()
    return from_file(made.get_tensor(made.get_output_details()[0]["index"]))


class Qdq:
    """An ONNX model in QDQ form with uint8 activations (int8 codes plus 128), node by node."""

    def __init__(self):
        self.nodes, self.constants, self.inputs = [], [], []

    def constant(self, array):
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op, inputs, **attributes):
        from onnx import helper

        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def _parameters(self, q):
        return [self.constant(np.float32(q.scale)), self.constant(np.uint8(int(q.zero_point) + 128))]

    def input(self, name, shape, q):
        from onnx import TensorProto, helper

        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
        return self.node("DequantizeLinear", [name, *self._parameters(q)])

    def weights(self, integers, s, axis=0):
        inputs = [self.constant(integers), self.constant(s), self.constant(np.zeros(s.shape, integers.dtype))]
        return self.node("DequantizeLinear", inputs, **({"axis": axis} if s.ndim else {}))

    def requantized(self, value, q):
        return self.node(
            "DequantizeLinear", [self.node("QuantizeLinear", [value, *self._parameters(q)]), *self._parameters(q)]
        )

    def finish(self, value, q, shape):
        import onnxruntime
        from onnx import TensorProto, helper

        output = self.node("QuantizeLinear", [value, *self._parameters(q)])
        outputs = [helper.make_tensor_value_info(output, TensorProto.UINT8, shape)]
        graph = helper.make_graph(self.nodes, "layer", self.inputs, outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _windowed(layer):
    top, bottom, left, right = layer.attrs["padding"]
    return {"strides": layer.attrs["stride"], "pads": (top, left, bottom, right)}


def _onnx_weighted(graph, layer, values, s_x):
    s_w = layer.weight_qparams.scale
    parts = [*values, graph.weights(layer.weight, s_w), graph.weights(layer.bias, np.float32(s_x) * s_w)]
    if layer.op == "linear":
        return graph.node("Gemm", parts, transB=1)
    return graph.node("Conv", parts, group=layer.attrs["groups"], dilations=layer.attrs["dilation"], **_windowed(layer))


def _onnx_mean(graph, layer, values, s_x):
    pooled = graph.node("GlobalAveragePool", values)
    return pooled if layer.attrs["keepdim"] else graph.node("Flatten", [graph.requantized(pooled, layer.output)])


def _onnx_unary(graph, layer, values, s_x):
    if layer.attrs["function"] == "silu":
        return graph.node("Mul", [*values, graph.node("Sigmoid", values)])
    names = {"sigmoid": "Sigmoid", "tanh": "Tanh", "hard_swish": "HardSwish"}
    return graph.node(names[layer.attrs["function"]], values)


def _onnx_pool(graph, layer, values, s_x):
    name = {"avg_pool2d": "AveragePool", "max_pool2d": "MaxPool"}[layer.op]
    return graph.node(name, values, kernel_shape=layer.attrs["kernel"], **_windowed(layer))


def _onnx_plain(name, **attributes):
    return lambda graph, layer, values, s_x: graph.node(name, values, **attributes)


ONNX_NODES = {
    "conv2d": _onnx_weighted,
    "linear": _onnx_weighted,
    "avg_pool2d": _onnx_pool,
    "max_pool2d": _onnx_pool,
    "mean": _onnx_mean,
    "unary": _onnx_unary,
    "concat": _onnx_plain("Concat", axis=1),
    "softmax": _onnx_plain("Softmax", axis=-1),
    "add": _onnx_plain("Add"),
    "subtract": _onnx_plain("Sub"),
    "multiply": _onnx_plain("Mul"),
    "convert": lambda graph, layer, values, s_x: values[0],
}
"""Each of our operations as float nodes between DequantizeLinear and QuantizeLinear."""


def onnx_layer(layer, inputs, shape):
    """The codes that ONNX Runtime gives for one layer."""
    graph = Qdq()
    values = [graph.input(name, x.shape, q) for name, (x, q) in zip(layer.inputs, inputs, strict=True)]
    value = ONNX_NODES[layer.op](graph, layer, values, inputs[0][1].scale)
    session = graph.finish(value, layer.output, shape)
    feeds = {
        name: (x.astype(np.int16) + 128).astype(np.uint8) for name, (x, _) in zip(layer.inputs, inputs, strict=True)
    }
    return (session.run(None, feeds)[0].astype(np.int16) - 128).astype(np.int8)
