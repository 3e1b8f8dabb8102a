"""A small integer model that uses every operation: for files, exports and their fuzzing."""

import numpy as np

from qlearn.integer.layers import IntegerLayer, code_limits
from qlearn.integer.model import IntegerModel
from qlearn.numbers.qparams import QParams

INT8 = (-128, 127)


class Stack:
    """Layers one after the other, with the scales of their outputs chosen from what random inputs give."""

    def __init__(self, shape, seed):
        self.rng = np.random.default_rng(seed)
        self.layers = [IntegerLayer("x", "input", (), QParams(0.02, -3, *INT8))]
        self.shape = shape

    def __call__(self, name, op, *inputs, output=None, relu=None, **parts):
        """Add a layer; without `output` it has the scale of its first input."""
        q = self.qparams(inputs[0]) if output is None else QParams(*output, *INT8)
        clamp = None if relu is None else code_limits((0.0, relu), q)
        self.layers.append(IntegerLayer(name, op, inputs, q, clamp=clamp, **parts))
        return name

    def weighted(self, name, op, source, shape, output, relu=None, **parts):
        """Add a convolution or a linear layer with random int8 weights, one scale per channel."""
        weight = self.rng.integers(-127, 128, shape).astype(np.int8)
        scales = self.rng.uniform(0.002, 0.004, shape[0]).astype(np.float32)
        bias = self.rng.integers(-500, 500, shape[0]).astype(np.int32)
        w_qparams = QParams(scales, np.zeros(shape[0], np.int32), -127, 127, 0)
        return self(
            name, op, source, output=output, relu=relu, weight=weight, weight_qparams=w_qparams, bias=bias, **parts
        )

    def qparams(self, name):
        return next(layer.output for layer in self.layers if layer.name == name)

    def model(self, output, policy="litert_reference"):
        return IntegerModel(tuple(self.layers), output, self.shape, policy, "everything")


def conv(stride=(1, 1), padding=(0, 0, 0, 0), groups=1, dilation=(1, 1)):
    return {"attrs": {"stride": stride, "padding": padding, "groups": groups, "dilation": dilation}}


def everything(seed=0, policy="litert_reference"):
    """Return the model: input (3, 9, 9), five outputs."""
    net = Stack((3, 9, 9), seed)
    net("pad", "pad", "x", attrs={"amounts": ((0, 0), (0, 0), (1, 1), (1, 1))})
    net.weighted("stem", "conv2d", "pad", (8, 3, 3, 3), (0.02, -128), relu=np.inf, **conv(stride=(2, 2)))
    net.weighted("depthwise", "conv2d", "stem", (8, 1, 3, 3), (0.03, -128), relu=6.0, **conv((1, 1), (1, 1, 1, 1), 8))
    net.weighted("pointwise", "conv2d", "depthwise", (8, 8, 1, 1), (0.04, 7), **conv())
    net("add", "add", "stem", "pointwise", output=(0.05, -20), relu=np.inf)
    net("squeeze", "mean", "add", attrs={"axes": (2, 3), "keepdim": True}, output=(0.03, -100))
    net("gate", "unary", "squeeze", attrs={"function": "sigmoid"}, output=(1 / 256, -128))
    net("excite", "multiply", "add", "gate", output=(0.03, -10))
    net("swish", "unary", "excite", attrs={"function": "hard_swish"}, output=(0.03, -100))
    net("tanh", "unary", "excite", attrs={"function": "tanh"}, output=(1 / 128, 0))
    net("difference", "subtract", "swish", "tanh", output=(0.04, 0))
    net("shuffle", "reshape", "difference", attrs={"shape": (2, 4, 5, 5)})
    net("swap", "transpose", "shuffle", attrs={"axes": (0, 2, 1, 3, 4)})
    net("channels", "reshape", "swap", attrs={"shape": (8, 5, 5)})
    net("half", "slice", "channels", attrs={"slices": ((None, None, None), (0, None, 2))})
    net("concat", "concat", "half", "channels", attrs={"axis": 1})
    net("largest", "max_pool2d", "concat", attrs={"kernel": (2, 2), "stride": (2, 2), "padding": (0, 1, 0, 1)})
    pool = {"kernel": (2, 2), "stride": (1, 1), "padding": (0, 0, 0, 0), "count_include_pad": False}
    net("average", "avg_pool2d", "largest", attrs=pool)
    net("other", "convert", "average", output=(0.05, 3))
    net("clamp", "clamp", "other", relu=6.0)
    net("flat", "flatten", "clamp")
    net.weighted("logits", "linear", "flat", (5, 48), (0.05, 10))
    net("softmax", "softmax", "logits", attrs={"beta": 1.0}, output=(1 / 256, -128))
    return net.model("softmax", policy)


def inputs(model, count=4, seed=1):
    """Random input codes."""
    q = model.layers[0].output
    return np.random.default_rng(seed).integers(q.qmin, q.qmax + 1, (count, *model.input_shape)).astype(q.dtype)
