"""Seeded random layers of every operation, with input codes: what kernels and runtimes are compared on."""

import dataclasses
import functools

import numpy as np

from qlearn.integer.layers import IntegerLayer, code_limits
from qlearn.integer.tables import FIXED_OUTPUTS
from qlearn.numbers.qparams import QParams

EXTREMES = (-128, 127, 0)


def scale(rng, around=0.03):
    """A random scale, or a power of two (where ties are common)."""
    if rng.random() < 0.5:
        return np.float32(2.0 ** np.round(np.log2(around * rng.uniform(0.3, 3))))
    return np.float32(around * rng.uniform(0.3, 3))


def nearly_tied(rng, exact, around):
    """An output scale 2**k times the product of the other scales, rounded to float32: many sums lie *almost* on a tie.

    Whether a runtime rounds that product to float32, and when, shows nowhere else.
    """
    return (
        np.float32(np.float32(exact) * 2.0 ** np.round(np.log2(around / float(exact)))) if rng.random() < 0.4 else None
    )


def zero_point(rng):
    """The outermost ones, 0, or any."""
    return int(rng.choice([*EXTREMES, rng.integers(-128, 128)]))


def qparams(rng, around=0.03, exact=None):
    tied = None if exact is None else nearly_tied(rng, exact, around)
    return QParams(scale(rng, around) if tied is None else tied, zero_point(rng), -128, 127)


def codes(rng, shape, extreme=0.1):
    """Random codes; now and then all of them the smallest or the largest."""
    if rng.random() < extreme:
        return rng.choice(np.int8([-128, 127]), shape)
    return rng.integers(-128, 128, shape).astype(np.int8)


def clamp(rng, output, clamps, channels=None):
    if clamps and channels is not None and rng.random() < 0.2:  # one pair per channel
        return rng.integers(-128, 0, channels).astype(np.int32), rng.integers(0, 128, channels).astype(np.int32)
    real = [None, (0.0, np.inf), (0.0, 6.0)][rng.integers(3)] if clamps else None
    return None if real is None else code_limits(real, output)


def weights(rng, shape, x, clamps, per_channel=None):
    """Weights, bias, weight scales, and output qparams that spread the sums over the codes."""
    per_channel = rng.random() < 0.7 if per_channel is None else per_channel
    outputs, taps = shape[0], int(np.prod(shape[1:]))
    w = rng.integers(-127, 128, shape).astype(np.int8)
    s_w = np.float32([scale(rng, 0.005) for _ in range(outputs)]) if per_channel else scale(rng, 0.005)
    zeros = np.zeros(outputs, np.int32) if per_channel else 0
    w_qparams = QParams(s_w, zeros, -127, 127, 0 if per_channel else None)
    bias = rng.integers(-3000, 3000, outputs).astype(np.int32)
    spread = 73.0 * 100.0 * np.sqrt(taps) * float(x.scale) * float(np.mean(s_w))
    output = qparams(rng, spread / 50, exact=np.float32(x.scale) * np.ravel(s_w)[0])
    return {
        "weight": w,
        "weight_qparams": w_qparams,
        "bias": bias,
        "output": output,
        "clamp": clamp(rng, output, clamps, outputs),
    }


def same(size, k, s, d):
    total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def conv2d(rng, clamps=True, depthwise=False):
    per_group, groups = int(rng.integers(1, 9)), 1 if rng.random() < 0.8 else int(rng.integers(2, 4))
    multiplier = int(rng.integers(1, 13))
    if depthwise:
        per_group, groups, multiplier = 1, int(rng.integers(2, 17)), int(rng.choice([1, 1, 2, 3]))
    kernel, stride = (tuple(int(v) for v in rng.integers(1, 4, 2)) for _ in range(2))
    dilation = (1, 1) if rng.random() < 0.7 else tuple(int(v) for v in rng.integers(1, 3, 2))
    height, width = (1, 1) if rng.random() < 0.05 else (int(v) for v in rng.integers(5, 24, 2))
    sides = [same(n, *each) for n, *each in zip((height, width), kernel, stride, dilation, strict=True)]
    padding = (*sides[0], *sides[1])
    if height > 1 and rng.random() < 0.5:
        padding = (0, 0, 0, 0) if rng.random() < 0.5 else tuple(int(v) for v in rng.integers(0, 3, 4))
    x = qparams(rng)
    parts = weights(rng, (groups * multiplier, per_group, *kernel), x, clamps)
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return IntegerLayer("y", "conv2d", ("x",), attrs=attrs, **parts), [
        (codes(rng, (8, groups * per_group, height, width)), x)
    ]


def depthwise(rng, clamps=True):
    return conv2d(rng, clamps, depthwise=True)


def linear(rng, clamps=True):
    inputs, outputs, rows = (int(rng.integers(1, high)) for high in (200, 64, 1000))
    x = qparams(rng)
    parts = weights(rng, (outputs, inputs), x, clamps)
    return IntegerLayer("y", "linear", ("x",), **parts), [(codes(rng, (rows, inputs)), x)]


def wide(make):
    """The same with 16-bit activations and 64-bit sums; zero points are 0."""

    def run(rng, clamps=False):
        layer, [(x, q)] = make(rng, clamps=False)
        wide_x = rng.integers(-32768, 32768, x.shape).astype(np.int16)
        bias = rng.integers(-(2**20), 2**20, layer.bias.shape).astype(np.int64)
        output = QParams(layer.output.scale, 0, -32768, 32767)
        return dataclasses.replace(layer, output=output, bias=bias), [(wide_x, QParams(q.scale, 0, -32768, 32767))]

    return run


def linear3(rng, clamps=True):
    """More than two axes."""
    layer, [(x, q)] = linear(rng, clamps)
    rows = x.shape[0] // 3 * 3
    return (layer, [(x[:rows].reshape(rows // 3, 3, -1), q)]) if rows else linear3(rng, clamps)


def _shape(rng, channels, side):
    """Channels, height and width; often one channel, or one pixel."""
    pixel = rng.random() < 0.1
    return (
        1 if rng.random() < 0.1 else int(rng.integers(1, channels)),
        *(1 if pixel else int(v) for v in rng.integers(1, side, 2)),
    )


def _picture(rng):
    return codes(rng, (int(rng.integers(1, 4)), *_shape(rng, 17, 40)))


def _two(rng, op, output, clamps, broadcast=False):
    a, a_qparams, b_qparams = _picture(rng), qparams(rng), qparams(rng)
    b = codes(rng, (*a.shape[:2], 1, 1) if broadcast else a.shape)
    out = output(a_qparams, b_qparams)
    layer = IntegerLayer("y", op, ("a", "b"), out, clamp=clamp(rng, out, clamps))
    return layer, [(a, a_qparams), (b, b_qparams)]


def add(rng, clamps=True):
    return _two(rng, "add", lambda a, b: qparams(rng, 2 * float(max(a.scale, b.scale)), exact=a.scale), clamps)


def subtract(rng, clamps=True):
    return _two(rng, "subtract", lambda a, b: qparams(rng, 2 * float(max(a.scale, b.scale)), exact=a.scale), clamps)


def multiply(rng, clamps=True):
    wide = bool(rng.random() < 0.3)
    return _two(
        rng,
        "multiply",
        lambda a, b: qparams(rng, 120 * float(a.scale * b.scale), exact=a.scale * b.scale),
        clamps,
        broadcast=wide,
    )


def concat(rng, clamps=False, same_scale=False):
    a, q = _picture(rng), qparams(rng)
    b = codes(rng, (a.shape[0], int(rng.integers(1, 9)), *a.shape[2:]))
    other = q if same_scale else qparams(rng)
    return IntegerLayer("y", "concat", ("a", "b"), q, attrs={"axis": 1}), [(a, q), (b, other)]


def mean(rng, clamps=False):
    x = codes(rng, (16, *_shape(rng, 256, 12)))
    q = qparams(rng)
    out = q if rng.random() < 0.2 else qparams(rng, float(q.scale) * 0.4, exact=q.scale)
    return IntegerLayer("y", "mean", ("x",), out, attrs={"axes": (2, 3), "keepdim": bool(rng.random() < 0.5)}), [(x, q)]


def pool(op):
    def make(rng, clamps=False):
        x, q = _picture(rng), qparams(rng)
        kernel = tuple(int(rng.integers(1, min(6, size) + 1)) for size in x.shape[2:])
        stride = tuple(int(v) for v in rng.integers(1, 4, 2))
        sides = [same(n, k, s, 1) for n, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
        padding = (*sides[0], *sides[1]) if rng.random() < 0.5 else (0, 0, 0, 0)
        attrs = {"kernel": kernel, "stride": stride, "padding": padding}
        if op == "avg_pool2d":
            attrs["count_include_pad"] = False
        return IntegerLayer("y", op, ("x",), q, attrs=attrs), [(x, q)]

    return make


def unary(function):
    def make(rng, clamps=False):
        x, q = _picture(rng), qparams(rng)
        fixed = FIXED_OUTPUTS.get(function)
        out = qparams(rng) if fixed is None else QParams(np.float32(fixed[0]), fixed[1], -128, 127)
        return IntegerLayer("y", "unary", ("x",), out, attrs={"function": function}), [(x, q)]

    return make


def softmax(rng, clamps=False):
    x = codes(rng, (int(rng.integers(1, 500)), int(rng.integers(1, 100))))
    output = QParams(np.float32(1 / 256), -128, -128, 127)
    return IntegerLayer("y", "softmax", ("x",), output, attrs={"beta": 1.0}), [(x, qparams(rng))]


def convert(rng, clamps=False):
    x, q = _picture(rng), qparams(rng)
    return IntegerLayer("y", "convert", ("x",), qparams(rng, float(q.scale), exact=q.scale)), [(x, q)]


def pad(rng, clamps=False):
    x, q = _picture(rng), qparams(rng)
    amounts = ((0, 0), *(tuple(int(v) for v in rng.integers(0, 3, 2)) for _ in range(3)))
    return IntegerLayer("y", "pad", ("x",), q, attrs={"amounts": amounts}), [(x, q)]


def strided_slice(rng, clamps=False):
    x, q = _picture(rng), qparams(rng)
    slices = ((None, None, None), *((int(rng.integers(0, n)), None, int(rng.integers(1, 4))) for n in x.shape[1:]))
    return IntegerLayer("y", "slice", ("x",), q, attrs={"slices": slices}), [(x, q)]


def transpose(rng, clamps=False):
    x, q = _picture(rng), qparams(rng)
    axes = (0, *(int(axis) + 1 for axis in rng.permutation(3)))
    return IntegerLayer("y", "transpose", ("x",), q, attrs={"axes": axes}), [(x, q)]


def reshape(rng, clamps=False):
    x, q = _picture(rng), qparams(rng)
    shape = [(x[0].size,), (x.shape[2] * x.shape[1], x.shape[3]), x.shape[:0:-1]][rng.integers(3)]
    return IntegerLayer("y", "reshape", ("x",), q, attrs={"shape": tuple(shape)}), [(x, q)]


LAYERS = {
    "conv2d": conv2d,
    "depthwise": depthwise,
    "linear": linear,
    "linear, 3 axes": linear3,
    "conv2d, 16 bits": wide(conv2d),
    "depthwise, 16 bits": wide(depthwise),
    "linear, 16 bits": wide(linear),
    "add": add,
    "subtract": subtract,
    "multiply": multiply,
    "concat": concat,
    "concat, one scale": functools.partial(concat, same_scale=True),
    "average pool": pool("avg_pool2d"),
    "max pool": pool("max_pool2d"),
    "mean": mean,
    "softmax": softmax,
    "sigmoid": unary("sigmoid"),
    "tanh": unary("tanh"),
    "hard_swish": unary("hard_swish"),
    "hard_sigmoid": unary("hard_sigmoid"),
    "silu": unary("silu"),
    "convert": convert,
    "pad": pad,
    "slice": strided_slice,
    "transpose": transpose,
    "reshape": reshape,
}
