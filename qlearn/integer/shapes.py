"""The shape of every layer's output, computed without running anything, and with it a check of all attributes.

One short rule per operation. A rule takes the layer and the shapes of its inputs, batch included, and returns the
shape of the output; an attribute that its kernel could not use raises a KernelError that names the layer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import KernelError
from qlearn.integer.tables import UNARY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qlearn.integer.layers import IntegerLayer

    Shape = tuple[int, ...]
    Rule = Callable[[IntegerLayer, Sequence[Shape]], Shape]

WHOLE = ((None, None, None), (None, None, 1), (0, None, None), (0, None, 1))
"""Bounds that keep an axis as it is."""


def output_shape(layer: IntegerLayer, inputs: Sequence[Shape | None]) -> Shape | None:
    """Return the shape of a layer's output, batch included.

    Parameters
    ----------
    layer : IntegerLayer
    inputs : sequence of shapes
        None for one that is not known before the network runs.

    Returns
    -------
    tuple of int, or None
        None behind a layer in float: only running it tells.

    Raises
    ------
    KernelError
        If the layer does not fit its inputs, or has an attribute that its kernel cannot use.

    Examples
    --------
    >>> from qlearn.integer.layers import IntegerLayer
    >>> from qlearn.numbers.qparams import QParams
    >>> attrs = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1)}
    >>> output_shape(IntegerLayer("pool", "max_pool2d", ("x",), QParams(0.1, 0, -128, 127), attrs), [(1, 8, 15, 15)])
    (1, 8, 8, 8)
    """
    expected = INPUTS.get(layer.op, 1)
    if (expected and len(inputs) != expected) or not inputs:
        raise _refused(layer, f"it has {len(inputs)} inputs, not {expected or 'one or more'}")
    known = [shape for shape in inputs if shape is not None]
    if layer.op == "float" or len(known) < len(inputs):
        return None
    shape = RULES[layer.op](layer, known)
    if not shape or min(shape) < 1:
        raise _refused(layer, f"nothing is left of inputs of shape {known}")
    return shape


def _conv2d(layer: IntegerLayer, inputs: Sequence[Shape]) -> Shape:
    x, weight = inputs[0], _weight_shape(layer)
    (groups,) = _numbers(layer, "groups", 1, least=1)
    if len(x) != 4 or len(weight) != 4 or x[1] != weight[1] * groups or weight[0] % groups:
        raise _refused(layer, f"weights of shape {weight} in {groups} groups for an input of shape {x}")
    return (x[0], weight[0], *_seen(layer, x, weight[2:], _numbers(layer, "dilation", 2, least=1)))


def _linear(layer: IntegerLayer, inputs: Sequence[Shape]) -> Shape:
    x, weight = inputs[0], _weight_shape(layer)
    if len(x) < 2 or len(weight) != 2 or x[-1] != weight[1]:
        raise _refused(layer, f"weights of shape {weight} for an input of shape {x}")
    return (*x[:-1], weight[0])


def _two(layer: IntegerLayer, inputs: Sequence[Shape]) -> Shape:
    a, b = inputs
    if len(a) != len(b) or any(m != n and 1 not in (m, n) for m, n in zip(a, b, strict=True)):
        raise _refused(layer, f"inputs of shapes {a} and {b}")
    return tuple(map(max, a, b))


def _concat(layer: IntegerLayer, inputs: Sequence[Shape]) -> Shape:
    ndim = len(inputs[0])
    (axis,) = _numbers(layer, "axis", 1, least=-ndim)
    axis = axis % ndim if axis < ndim else 0
    rest = {(*shape[:axis], *shape[axis + 1 :]) for shape in inputs}
    if axis == 0 or len(rest) != 1 or any(len(shape) != ndim for shape in inputs):
        raise _refused(layer, f"inputs of shapes {list(inputs)} along axis {layer.attrs['axis']}; the batch stays")
    return (*inputs[0][:axis], sum(shape[axis] for shape in inputs), *inputs[0][axis + 1 :])


def _same(layer: IntegerLayer, inputs: Sequence[Shape]) -> Shape:
    return inputs[0]


def _unary(layer: IntegerLayer, inputs: Sequence[Shape]) -> Shape:
    function = layer.attrs.get("function")
    if function not in UNARY:
        raise _refused(layer, f"no unary function {function!r}: choose one of {', '.join(sorted(UNARY))}")
    return inputs[0]


def _softmax(layer: IntegerLayer, inputs: Sequence[Shape]) -> Shape:
    beta = layer.attrs.get("beta", 1.0)
    if not isinstance(beta, int | float) or not 0 < beta < 2**20 or len(inputs[0]) < 2:
        raise _refused(layer, f"beta {beta!r} for an input of shape {inputs[0]}")
    return inputs[0]


def _mean(layer: IntegerLayer, inputs: Sequence[Shape]) -> Shape:
    x = inputs[0]
    axes = mean_axes(layer)
    if not axes or len(set(axes)) < len(axes) or max(axes) >= len(x):
        raise _refused(layer, f"a mean over the axes {axes} of {x}; the batch stays")
    keepdim = _flag(layer, "keepdim")
    return tuple(1 if axis in axes else n for axis, n in enumerate(x) if keepdim or axis not in axes)


def _pool(layer: IntegerLayer, inputs: Sequence[Shape]) -> Shape:
    x, kernel = inputs[0], _numbers(layer, "kernel", 2, least=1)
    if len(x) != 4:
        raise _refused(layer, f"an input of shape {x} has no height and width")
    sides = padding_sides(layer)
    if max(sides[:2]) >= kernel[0] or max(sides[2:]) >= kernel[1]:
        raise _refused(layer, f"padding {sides} holds whole windows of {kernel}")
    if layer.op == "avg_pool2d":
        _flag(layer, "count_include_pad", default=False)
    return (*x[:2], *_seen(layer, x, kernel, (1, 1)))


def _pad(layer: IntegerLayer, inputs: Sequence[Shape]) -> Shape:
    x, amounts = inputs[0], layer.attrs.get("amounts")
    if not isinstance(amounts, tuple) or len(amounts) != len(x) or any(amounts[0]):
        raise _refused(layer, f"amounts {amounts} for an input of shape {x}; the batch stays")
    pairs = [_numbers(layer, "amounts", 2, least=0, value=pair) for pair in amounts]
    return tuple(n + before + after for n, (before, after) in zip(x, pairs, strict=True))


def _slice(layer: IntegerLayer, inputs: Sequence[Shape]) -> Shape:
    x, slices = inputs[0], layer.attrs.get("slices")
    if not isinstance(slices, tuple) or not 1 <= len(slices) <= len(x) or slices[0] not in WHOLE:
        raise _refused(layer, f"bounds {slices} for an input of shape {x}; the batch stays")
    for bounds in slices:
        if len(bounds) != 3 or any(v is not None and not _is_whole(v) for v in bounds) or bounds[2] == 0:
            raise _refused(layer, f"bounds {bounds} are no start, stop and step")
    cut = [len(range(*slice(*bounds).indices(n))) for bounds, n in zip(slices, x, strict=False)]
    return (*cut, *x[len(cut) :])


def _reshape(layer: IntegerLayer, inputs: Sequence[Shape]) -> Shape:
    x = inputs[0]
    given = layer.attrs.get("shape")
    shape = _numbers(layer, "shape", len(given) if isinstance(given, tuple) else 1, least=1)
    if math.prod(shape) != math.prod(x[1:]):
        raise _refused(layer, f"from {x} to {(x[0], *shape)}")
    return (x[0], *shape)


def _transpose(layer: IntegerLayer, inputs: Sequence[Shape]) -> Shape:
    x = inputs[0]
    axes = _numbers(layer, "axes", len(x), least=0)
    if axes[0] != 0 or sorted(axes) != list(range(len(x))):
        raise _refused(layer, f"the axes {axes} of {x}; the batch stays the first")
    return tuple(x[axis] for axis in axes)


def _flatten(layer: IntegerLayer, inputs: Sequence[Shape]) -> Shape:
    return (inputs[0][0], math.prod(inputs[0][1:]))


RULES: dict[str, Rule] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "add": _two,
    "subtract": _two,
    "multiply": _two,
    "concat": _concat,
    "convert": _same,
    "mean": _mean,
    "global_avg_pool": _mean,
    "avg_pool2d": _pool,
    "max_pool2d": _pool,
    "unary": _unary,
    "softmax": _softmax,
    "pad": _pad,
    "slice": _slice,
    "reshape": _reshape,
    "transpose": _transpose,
    "flatten": _flatten,
    "clamp": _same,
}
"""The rule of every operation that has a kernel; a layer in float has none."""

INPUTS = {"add": 2, "subtract": 2, "multiply": 2, "concat": 0, "float": 0}
"""How many inputs an operation has: 1 unless it is listed, 0 for one or more."""


def mean_axes(layer: IntegerLayer) -> tuple[int, ...]:
    """Return the axes of a mean, by default height and width."""
    given = layer.attrs.get("axes", (2, 3))
    return _numbers(layer, "axes", len(given) if isinstance(given, tuple) else 1, least=1, value=given)


def padding_sides(layer: IntegerLayer) -> tuple[int, ...]:
    """Return (top, bottom, left, right); pools may give (rows, columns)."""
    given = layer.attrs.get("padding")
    if isinstance(given, tuple) and len(given) == 2 and layer.op != "conv2d":
        rows, columns = _numbers(layer, "padding", 2, least=0)
        return (rows, rows, columns, columns)
    return _numbers(layer, "padding", 4, least=0)


def _seen(layer: IntegerLayer, x: Shape, kernel: Sequence[int], dilation: Sequence[int]) -> Shape:
    """Height and width of what a sliding window gives."""
    top, bottom, left, right = padding_sides(layer)
    padded = (x[2] + top + bottom, x[3] + left + right)
    stride = _numbers(layer, "stride", 2, least=1)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    if any(span > size for span, size in zip(spans, padded, strict=True)):
        raise _refused(layer, f"a window of {tuple(spans)} does not fit into {padded}")
    return tuple((size - span) // s + 1 for size, span, s in zip(padded, spans, stride, strict=True))


def _weight_shape(layer: IntegerLayer) -> Shape:
    assert layer.weight is not None  # `checks` has looked
    return layer.weight.shape


def _numbers(layer: IntegerLayer, key: str, count: int, *, least: int, value: Any = None) -> Shape:
    """The whole numbers of an attribute: a tuple of them, or one."""
    given = layer.attrs.get(key) if value is None else value
    numbers = given if isinstance(given, tuple) else (given,)
    if len(numbers) != count or not all(_is_whole(n) and n >= least for n in numbers):
        raise _refused(layer, f"{key} is {given!r}, not {count} whole numbers from {least} on")
    return tuple(int(n) for n in numbers)


def _flag(layer: IntegerLayer, key: str, *, default: bool | None = None) -> bool:
    value = layer.attrs.get(key, default)
    if not isinstance(value, bool | np.bool_):
        raise _refused(layer, f"{key} is {value!r}, neither True nor False")
    return bool(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _refused(layer: IntegerLayer, reason: str) -> KernelError:
    return KernelError(f"layer {layer.name!r} ({layer.op}): {reason}")
