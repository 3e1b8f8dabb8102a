"""Seeded random integer models of every operation, one after the other, with branches: what exports are compared on."""

import numpy as np
from random_layers import EXTREMES, clamp, qparams, scale, weights

from qlearn.integer.layers import SHARING_OPS, IntegerLayer, run_layer
from qlearn.integer.model import IntegerModel
from qlearn.integer.profiles import profile_named
from qlearn.numbers.qparams import QParams


class Grown:
    """Layers and the codes that they give, so that every next layer fits."""

    def __init__(self, rng, policy):
        self.rng, self.profile = rng, profile_named(policy)
        self.layers, self.values = [], {}
        shape = (int(rng.integers(1, 7)), *(int(v) for v in rng.integers(5, 13, 2)))
        self.put(IntegerLayer("x0", "input", (), qparams(rng)), rng.integers(-128, 128, (6, *shape)).astype(np.int8))

    def put(self, layer, codes=None):
        inputs = [self.values[name] for name in layer.inputs]
        codes = run_layer(layer, inputs, self.profile) if codes is None else codes
        self.layers.append(layer)
        self.values[layer.name] = (codes, layer.output)

    def layer(self, op, inputs, output=None, clamps=True, **parts):
        """Add a layer; without `output` it has the scale of its first input."""
        q = self.values[inputs[0]][1] if output is None else output
        name = f"x{len(self.layers)}"
        parts.setdefault("clamp", clamp(self.rng, q, clamps=clamps and op not in SHARING_OPS))
        if output is not None and parts["clamp"] is None and q.qmin < 0 and self.rng.random() < 0.1:  # fewer codes
            q = QParams(q.scale, max(-100, min(99, int(q.zero_point))), -100, 99)
        self.put(IntegerLayer(name, op, tuple(inputs), q, **parts))

    def pick(self, ndim=None):
        """The last value, or now and then an earlier one, with that many axes."""
        names = [name for name, (codes, _) in self.values.items() if ndim in (None, codes.ndim)]
        return None if not names else names[-1] if self.rng.random() < 0.7 else str(self.rng.choice(names))

    def shape(self, name):
        return self.values[name][0].shape


def conv2d(net, x):
    rng, (_, channels, height, width) = net.rng, net.shape(x)
    groups = int(rng.choice([g for g in (1, 1, 2, 3, channels) if channels % g == 0]))
    outputs = groups * int(rng.integers(1, 5))
    kernel = tuple(int(min(k, n)) for k, n in zip(rng.integers(1, 4, 2), (height, width), strict=True))
    stride, dilation = tuple(int(v) for v in rng.integers(1, 3, 2)), (1, 1)
    if min(height, width) >= 5 and rng.random() < 0.3:
        dilation = (2, 1)
    parts = weights(rng, (outputs, channels // groups, *kernel), net.values[x][1], clamps=True)
    if rng.random() < 0.2:
        parts["bias"] = None
    if rng.random() < 0.2:
        low = rng.integers(-128, 0, outputs).astype(np.int32)
        parts["clamp"] = (low, low + rng.integers(1, 127, outputs).astype(np.int32))
    padding = tuple(int(v) for v in rng.integers(0, 3, 4))
    attrs = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    net.layer("conv2d", [x], attrs=attrs, **parts)


def linear(net, x):
    parts = weights(net.rng, (int(net.rng.integers(1, 9)), net.shape(x)[-1]), net.values[x][1], clamps=True)
    if net.rng.random() < 0.2:
        parts["bias"] = None
    if len(net.shape(x)) == 4:  # limits per channel would be those of axis 1
        parts["clamp"] = None
    net.layer("linear", [x], **parts)


def two(op):
    def make(net, x):
        partners = [name for name in net.values if name == x or _broadcasts(net.shape(name), net.shape(x))]
        other = str(net.rng.choice(partners))
        s, t = (float(net.values[name][1].scale) for name in (x, other))
        output = qparams(net.rng, 100 * s * t if op == "multiply" else 1.7 * max(s, t))
        net.layer(op, [x, other] if net.rng.random() < 0.5 else [other, x], output=output)

    return make


def _broadcasts(a, b):
    return len(a) == len(b) and all(
        m == n or (axis > 0 and 1 in (m, n)) for axis, (m, n) in enumerate(zip(a, b, strict=True))
    )


def concat(net, x):
    shape = net.shape(x)
    axis = int(net.rng.integers(1, len(shape)))
    same_rank = [name for name in net.values if len(net.shape(name)) == len(shape)]
    fits = [name for name in same_rank if np.array_equal(*(np.delete(net.shape(n), axis) for n in (name, x)))]
    names = [x, *(str(name) for name in net.rng.choice(fits, int(net.rng.integers(0, 3))))]
    around = max(float(net.values[name][1].scale) for name in names)
    output = None if net.rng.random() < 0.3 else qparams(net.rng, around)
    net.layer("concat", names, output=output, attrs={"axis": axis})


def mean(net, x):
    ndim = len(net.shape(x))
    axes = (2, 3) if ndim == 4 and net.rng.random() < 0.6 else (int(net.rng.integers(1, ndim)),)
    if ndim == 2 or np.prod([net.shape(x)[a] for a in axes]) > 4000:
        return
    s = float(net.values[x][1].scale)
    net.layer(
        "mean", [x], output=qparams(net.rng, 0.5 * s), attrs={"axes": axes, "keepdim": bool(net.rng.random() < 0.5)}
    )


def pool(op):
    def make(net, x):
        rng, sides = net.rng, net.shape(x)[2:]
        kernel = tuple(int(rng.integers(1, min(4, side) + 1)) for side in sides)
        padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
        if rng.random() < 0.5:
            padding = tuple(int(rng.integers(0, kernel[side // 2])) for side in range(4))
        attrs = {"kernel": kernel, "stride": tuple(int(v) for v in rng.integers(1, 3, 2)), "padding": padding}
        if op == "avg_pool2d":
            attrs["count_include_pad"] = bool(rng.random() < 0.5)
        net.layer(op, [x], attrs=attrs)

    return make


def unary(net, x):
    function = str(net.rng.choice(["sigmoid", "tanh", "silu", "hard_swish", "hard_sigmoid"]))
    around = {"sigmoid": 1 / 256, "tanh": 1 / 128, "hard_sigmoid": 1 / 256}
    net.layer("unary", [x], output=qparams(net.rng, around.get(function, 0.02)), attrs={"function": function})


def softmax(net, x):
    beta = float(net.rng.choice([1.0, 1.0, 0.3]))
    net.layer("softmax", [x], output=QParams(1 / 256, -128, -128, 127), clamps=False, attrs={"beta": beta})


def convert(net, x):
    around = scale(net.rng, float(net.values[x][1].scale))
    net.layer("convert", [x], output=QParams(around, int(net.rng.choice(EXTREMES)), -128, 127))


def to_unsigned(net, x):
    q = net.values[x][1]
    if q.qmin < 0:
        net.layer("convert", [x], output=QParams(q.scale, int(q.zero_point) + 128, 0, 255), clamps=False)


def clamped(net, x):
    net.layer("clamp", [x], clamp=clamp(net.rng, net.values[x][1], clamps=True))


def pad(net, x):
    sides = len(net.shape(x)) - 1
    amounts = ((0, 0), *(tuple(int(v) for v in net.rng.integers(0, 2, 2)) for _ in range(sides)))
    net.layer("pad", [x], attrs={"amounts": amounts})


def strided_slice(net, x):
    slices = [(None, None, None)]
    for size in net.shape(x)[1:]:
        start = int(net.rng.integers(-size, size)) if net.rng.random() < 0.5 else None
        slices.append((start, None, int(net.rng.integers(1, 3))))
    net.layer("slice", [x], attrs={"slices": tuple(slices)})


def transpose(net, x):
    axes = (0, *(int(axis) + 1 for axis in net.rng.permutation(len(net.shape(x)) - 1)))
    net.layer("transpose", [x], attrs={"axes": axes})


def reshape(net, x):
    shape = net.shape(x)[1:]
    choices = [
        (int(np.prod(shape)),),
        shape[::-1],
        (1, *shape) if len(shape) < 3 else (shape[0] * shape[1], *shape[2:]),
    ]
    net.layer("reshape", [x], attrs={"shape": choices[net.rng.integers(3)]})


def flatten(net, x):
    net.layer("flatten", [x])


MAKERS = {
    "conv2d": (conv2d, 4), "linear": (linear, None), "add": (two("add"), None), "subtract": (two("subtract"), None),
    "multiply": (two("multiply"), None), "concat": (concat, None), "mean": (mean, None),
    "avg_pool2d": (pool("avg_pool2d"), 4), "max_pool2d": (pool("max_pool2d"), 4), "unary": (unary, None),
    "softmax": (softmax, 2), "convert": (convert, None), "unsigned": (to_unsigned, None), "clamp": (clamped, None),
    "pad": (pad, None), "slice": (strided_slice, None), "transpose": (transpose, None), "reshape": (reshape, None),
    "flatten": (flatten, None),
}  # fmt: skip
OFTEN = ("conv2d", "conv2d", "conv2d", "add")


def random_model(seed, policy, operations=12):
    """Return a model; its output is all values that nobody reads, flattened and joined."""
    rng = np.random.default_rng(seed)
    net = Grown(rng, policy)
    while len(net.layers) <= operations:
        make, ndim = MAKERS[str(rng.choice([*MAKERS, *OFTEN]))]
        x = net.pick(ndim)
        if x is not None and 0 < net.values[x][0].size < 30_000:
            make(net, x)
    read = {name for layer in net.layers for name in layer.inputs}
    leaves = [name for name in net.values if name not in read and net.values[name][0].size]
    for name in leaves:
        net.layer("flatten", [name])
    flat = [layer.name for layer in net.layers[-len(leaves) :]]
    widest = max((net.values[name][1] for name in flat), key=lambda q: float(q.scale))
    net.layer("concat", flat, output=widest, clamps=False, attrs={"axis": 1})
    used = _used(net.layers)
    shape = net.shape("x0")[1:]
    return IntegerModel(tuple(used), net.layers[-1].name, shape, policy, f"random {seed}")


def _used(layers):
    wanted, kept = {layers[-1].name}, []
    for layer in reversed(layers):
        if layer.name in wanted or layer.op == "input":
            kept.append(layer)
            wanted.update(layer.inputs)
    return kept[::-1]
