"""Which layer or function becomes which operation: one short builder each.

A builder takes the arguments by name and returns (op, attrs, params).
It raises Unsupported where no integer kernel computes the variant; the layer then stays in float.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qlearn.graph import moves
from qlearn.graph.moves import Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qlearn.graph.moves import Operation

RELU, RELU6 = (0.0, math.inf), (0.0, 6.0)


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
    return "batch_norm", {"eps": float(a.get("eps", 1e-5)), "rank": len(a["shapes"][0])}, params


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
    rank, keepdim = len(a["shapes"][0]), bool(a.get("keepdim", False))
    axes = tuple(sorted(d % rank for d in ((dims,) if isinstance(dims, int) else dims or range(rank))))
    if 0 in axes:
        raise Unsupported(f"mean over {dims} has no integer kernel: it would mix the batch")
    if rank == 4 and axes == (2, 3):
        return "global_avg_pool", {"keepdim": keepdim}, {}
    return "mean", {"axes": axes, "keepdim": keepdim}, {}


def _sum(op: str, a: Mapping[str, Any]) -> Operation:
    if a.get("alpha", 1) != 1:
        raise Unsupported(f"{op} with alpha has no integer kernel")
    if len(set(a["shapes"])) > 1:
        raise Unsupported(f"{op} of two shapes (broadcasting) has no integer kernel")
    return op, {}, {}


def _multiply(a: Mapping[str, Any]) -> Operation:
    left, right = a["shapes"]
    if len(left) != len(right) or left[0] != right[0]:
        raise Unsupported(f"multiply of {left} by {right} has no integer kernel: give both the same number of axes")
    return "multiply", {}, {}


def _unary(function: str, a: Mapping[str, Any]) -> Operation:
    return "unary", {"function": function}, {}


def _softmax(a: Mapping[str, Any]) -> Operation:
    rank, dim = len(a["shapes"][0]), a.get("dim")
    if rank < 2 or dim is None or int(dim) % rank != rank - 1:
        raise Unsupported(f"softmax over axis {dim} of {rank} has no integer kernel, only over the last")
    return "softmax", {"beta": 1.0}, {}


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
    nn.Flatten: moves.flatten,
    nn.Unflatten: moves.view,
    nn.ZeroPad2d: moves.pad_module,
    nn.ConstantPad2d: moves.pad_module,
    nn.Sigmoid: partial(_unary, "sigmoid"),
    nn.Tanh: partial(_unary, "tanh"),
    nn.SiLU: partial(_unary, "silu"),
    nn.Hardswish: partial(_unary, "hard_swish"),
    nn.Hardsigmoid: partial(_unary, "hard_sigmoid"),
    nn.Softmax: _softmax,
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
    "add": (("input", "other"), partial(_sum, "add")),
    "iadd": (("input", "other"), partial(_sum, "add")),
    "sub": (("input", "other"), partial(_sum, "subtract")),
    "isub": (("input", "other"), partial(_sum, "subtract")),
    "mul": (("input", "other"), _multiply),
    "imul": (("input", "other"), _multiply),
    "sigmoid": (("input",), partial(_unary, "sigmoid")),
    "tanh": (("input",), partial(_unary, "tanh")),
    "silu": (("input", "inplace"), partial(_unary, "silu")),
    "hardswish": (("input", "inplace"), partial(_unary, "hard_swish")),
    "hardsigmoid": (("input", "inplace"), partial(_unary, "hard_sigmoid")),
    "softmax": (("input", "dim"), _softmax),
    "cat": (("tensors", "dim"), moves.concat),
    "concat": (("tensors", "dim"), moves.concat),
    "max_pool2d": ((*_POOL, "dilation", "ceil_mode", "return_indices"), _max_pool2d),
    "avg_pool2d": ((*_POOL, "ceil_mode", "count_include_pad", "divisor_override"), _avg_pool2d),
    "adaptive_avg_pool2d": (("input", "output_size"), _adaptive_avg_pool2d),
    "mean": (("input", "dim", "keepdim"), _mean),
    "flatten": (("input", "start_dim", "end_dim"), moves.flatten),
    "view": (("input",), moves.view),
    "reshape": (("input",), moves.view),
    "squeeze": (("input",), moves.view),
    "unsqueeze": (("input",), moves.view),
    "permute": (("input", "*dims"), moves.permute),
    "transpose": (("input", "dim0", "dim1"), moves.transpose),
    "getitem": (("input", "index"), moves.index),
    "pad": (("input", "pad", "mode", "value"), moves.pad),
    "dropout": (("input",), _identity),
    "dropout2d": (("input",), _identity),
    "contiguous": (("input",), _identity),
    "detach": (("input",), _identity),
}
