"""Which layer or function becomes which operation: one short builder each.

A builder takes the arguments by name and returns (op, attrs, params).
It raises Unsupported where no integer kernel computes the variant; the layer then stays in float.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RELU, RELU6 = (0.0, math.inf), (0.0, 6.0)
Operation = tuple[str, dict[str, Any], dict[str, Tensor]]  # op, attrs, params


class Unsupported(Exception):  # noqa: N818  (not an error: the layer stays in float)
    """A builder meets a variant that no integer kernel computes."""


def _pair(value: Any) -> tuple[int, int]:
    """(2 or (2,) or (2, 3)) -> (height, width)."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return (int(values[0]), int(values[-1]))


def _present(**tensors: Tensor | None) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if value is not None}


def _conv2d(a: Mapping[str, Any]) -> Operation:
    if a.get("padding_mode", "zeros") != "zeros":
        raise Unsupported(f"padding_mode={a['padding_mode']!r} has no integer kernel")
    dilation, padding = _pair(a.get("dilation", 1)), a.get("padding", 0)
    if padding == "same":
        spread = [d * (k - 1) for d, k in zip(dilation, a["weight"].shape[2:], strict=True)]
        (top, bottom), (left, right) = ((s // 2, s - s // 2) for s in spread)
    else:
        height, width = (0, 0) if padding == "valid" else _pair(padding)
        top, bottom, left, right = height, height, width, width
    attrs = {
        "stride": _pair(a.get("stride", 1)),
        "padding": (top, bottom, left, right),
        "dilation": dilation,
        "groups": int(a.get("groups", 1)),
    }
    return "conv2d", attrs, _present(weight=a["weight"], bias=a.get("bias"))


def _linear(a: Mapping[str, Any]) -> Operation:
    if len(a["shapes"][0]) != 2:
        raise Unsupported(f"linear over {a['shapes'][0]} has no integer kernel, only over (N, features)")
    return "linear", {}, _present(weight=a["weight"], bias=a.get("bias"))


def _batch_norm(a: Mapping[str, Any]) -> Operation:
    mean, variance = a.get("running_mean"), a.get("running_var")
    if mean is None or variance is None or a.get("use_input_stats"):
        raise Unsupported("batch norm without running statistics has no integer kernel")
    weight, bias = a.get("weight"), a.get("bias")
    params = {
        "weight": torch.ones_like(mean) if weight is None else weight,
        "bias": torch.zeros_like(mean) if bias is None else bias,
        "running_mean": mean,
        "running_var": variance,
    }
    return "batch_norm", {"eps": float(a.get("eps", 1e-5))}, params


def _clamp(lo: Any, hi: Any) -> Operation:
    if isinstance(lo, Tensor) or isinstance(hi, Tensor):
        raise Unsupported("clamp to tensors has no integer kernel, only to two numbers")
    limits = (-math.inf if lo is None else float(lo), math.inf if hi is None else float(hi))
    if not limits[0] <= 0 <= limits[1]:
        raise Unsupported(f"clamp to {limits}, which leaves zero out, has no integer kernel")
    return "clamp", {"clamp": limits}, {}


def _max_pool2d(a: Mapping[str, Any]) -> Operation:
    if a.get("ceil_mode") or a.get("return_indices") or _pair(a.get("dilation", 1)) != (1, 1):
        raise Unsupported("max_pool2d with ceil_mode, dilation or indices has no integer kernel")
    kernel = _pair(a["kernel_size"])
    return "max_pool2d", {"kernel": kernel, "stride": _stride(a, kernel), "padding": _pair(a.get("padding", 0))}, {}


def _avg_pool2d(a: Mapping[str, Any]) -> Operation:
    if a.get("ceil_mode") or a.get("divisor_override"):
        raise Unsupported("avg_pool2d with ceil_mode or divisor_override has no integer kernel")
    kernel = _pair(a["kernel_size"])
    attrs = {"kernel": kernel, "stride": _stride(a, kernel), "padding": _pair(a.get("padding", 0))}
    return "avg_pool2d", {**attrs, "count_include_pad": bool(a.get("count_include_pad", True))}, {}


def _stride(a: Mapping[str, Any], kernel: tuple[int, int]) -> tuple[int, int]:
    stride = a.get("stride")
    return kernel if stride is None or stride == [] else _pair(stride)


def _adaptive_avg_pool2d(a: Mapping[str, Any]) -> Operation:
    if a["output_size"] not in (1, (1, 1), [1, 1]):
        raise Unsupported(f"adaptive_avg_pool2d to {a['output_size']} has no integer kernel, only to 1")
    return "global_avg_pool", {"keepdim": True}, {}


def _mean(a: Mapping[str, Any]) -> Operation:
    dims = a.get("dim", ())
    axes = sorted(d % 4 for d in ((dims,) if isinstance(dims, int) else dims or ()))
    if len(a["shapes"][0]) != 4 or axes != [2, 3]:
        raise Unsupported(f"mean over {dims} has no integer kernel, only over height and width of (N, C, H, W)")
    return "global_avg_pool", {"keepdim": bool(a.get("keepdim", False))}, {}


def _flatten(a: Mapping[str, Any]) -> Operation:
    if a.get("start_dim", 0) != 1 or a.get("end_dim", -1) != -1:
        raise Unsupported("flatten other than flatten(1) has no integer kernel")
    return "flatten", {}, {}


def _view(a: Mapping[str, Any]) -> Operation:
    shape, result = a["shapes"][0], a["result"]
    if result == shape:
        return "identity", {}, {}
    if result != (shape[0], math.prod(shape[1:])):
        raise Unsupported(f"reshape from {shape} to {result} has no integer kernel, only to (N, everything)")
    return "flatten", {}, {}


def _slice(a: Mapping[str, Any]) -> Operation:
    parts = a["index"] if isinstance(a["index"], tuple) else (a["index"],)
    whole = slice(None)
    if not all(isinstance(part, slice) for part in parts) or parts[0] != whole:
        raise Unsupported(f"x[{parts}] has no integer kernel, only slices that keep the whole batch")
    return "slice", {"slices": tuple((part.start, part.stop, part.step) for part in parts)}, {}


def _pad(a: Mapping[str, Any]) -> Operation:
    if a.get("mode", "constant") != "constant" or a.get("value") not in (None, 0, 0.0):
        raise Unsupported(f"pad with mode={a.get('mode')!r}, value={a.get('value')} has no integer kernel, only zeros")
    flat, rank = [int(v) for v in a["pad"]], len(a["shapes"][0])
    if min(flat) < 0 or len(flat) > 2 * (rank - 1):
        raise Unsupported(f"pad by {tuple(flat)} has no integer kernel: negative amounts, or the batch axis")
    amounts = [(flat[2 * i], flat[2 * i + 1]) for i in range(len(flat) // 2)][::-1]
    return "pad", {"amounts": ((0, 0),) * (rank - len(amounts)) + tuple(amounts)}, {}


def _pad_module(a: Mapping[str, Any]) -> Operation:
    return _pad({"pad": a["padding"], "value": a.get("value", 0), "shapes": a["shapes"]})


def _add(a: Mapping[str, Any]) -> Operation:
    if a.get("alpha", 1) != 1:
        raise Unsupported("add with alpha has no integer kernel")
    return "add", {}, {}


def _identity(a: Mapping[str, Any]) -> Operation:
    return "identity", {}, {}


MODULES: dict[type[nn.Module], Callable[[Mapping[str, Any]], Operation]] = {
    nn.Conv2d: _conv2d,
    nn.Linear: _linear,
    nn.BatchNorm2d: _batch_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.ReLU: lambda a: _clamp(*RELU),
    nn.ReLU6: lambda a: _clamp(*RELU6),
    nn.Hardtanh: lambda a: _clamp(a["min_val"], a["max_val"]),
    nn.MaxPool2d: _max_pool2d,
    nn.AvgPool2d: _avg_pool2d,
    nn.AdaptiveAvgPool2d: _adaptive_avg_pool2d,
    nn.Flatten: _flatten,
    nn.ZeroPad2d: _pad_module,
    nn.ConstantPad2d: _pad_module,
    nn.Identity: _identity,
    nn.Dropout: _identity,
    nn.Dropout2d: _identity,
}
_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_POOL = ("input", "kernel_size", "stride", "padding")
FUNCTIONS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Operation]]] = {
    "conv2d": (_CONV, _conv2d),
    "linear": (("input", "weight", "bias"), _linear),
    "batch_norm": (
        ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps"),
        lambda a: _batch_norm({"use_input_stats": a.get("training"), **a}),
    ),
    "relu": (("input", "inplace"), lambda a: _clamp(*RELU)),
    "relu6": (("input", "inplace"), lambda a: _clamp(*RELU6)),
    "hardtanh": (("input", "min_val", "max_val"), lambda a: _clamp(a.get("min_val", -1), a.get("max_val", 1))),
    "clamp": (("input", "min", "max"), lambda a: _clamp(a.get("min"), a.get("max"))),
    "add": (("input", "other"), _add),
    "iadd": (("input", "other"), _add),
    "max_pool2d": ((*_POOL, "dilation", "ceil_mode", "return_indices"), _max_pool2d),
    "avg_pool2d": ((*_POOL, "ceil_mode", "count_include_pad", "divisor_override"), _avg_pool2d),
    "adaptive_avg_pool2d": (("input", "output_size"), _adaptive_avg_pool2d),
    "mean": (("input", "dim", "keepdim"), _mean),
    "flatten": (("input", "start_dim", "end_dim"), _flatten),
    "view": (("input",), _view),
    "reshape": (("input",), _view),
    "getitem": (("input", "index"), _slice),
    "pad": (("input", "pad", "mode", "value"), _pad),
    "dropout": (("input",), _identity),
    "dropout2d": (("input",), _identity),
    "contiguous": (("input",), _identity),
    "detach": (("input",), _identity),
}
