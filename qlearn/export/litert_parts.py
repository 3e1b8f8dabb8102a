"""What several operators of a .tflite file share: weights, padding, clamps, changes of layout."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.export.litert_build import TO_FILE, LiteBuilder, Site, file_shape, refuse, same_padding, stored_as
from qlearn.export.litert_graph import ACTIVATIONS, OPERATIONS, SAME, VALID, LiteOperator
from qlearn.integer.layers import code_limits
from qlearn.integer.tables import FIXED_OUTPUTS
from qlearn.numbers.qparams import QParams

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qlearn.integer.layers import IntegerLayer

NO_CLAMP = 0


def weight_and_bias(
    builder: LiteBuilder, layer: IntegerLayer, x: QParams, stored: NDArray[Any], axis: int
) -> list[int]:
    """Add the weights, in the layout of the file with their channels along `axis`, and the bias (zeros if none)."""
    qparams = layer.weight_qparams
    assert qparams is not None
    if np.any(qparams.zero_point):
        raise refuse(layer, "its weights have zero points other than 0: use a symmetric scheme for weights")
    if stored.dtype != np.int8:
        raise refuse(layer, "its weights have more than 8 bits")
    channel_axis = None if qparams.axis is None else axis
    int8 = QParams(qparams.scale, qparams.zero_point, -128, 127, channel_axis)
    weight = builder.codes(f"{layer.name}/weight", stored.shape, int8, layer.name, stored)
    wide = stored_as(x, layer.name)[0] == "int16"
    outputs = len(layer.bias) if layer.bias is not None else stored.shape[axis]
    bias = np.zeros(outputs, np.int64 if wide else np.int32) if layer.bias is None else layer.bias
    if (bias.dtype == np.int64) != wide:
        raise refuse(layer, f"a bias of {bias.dtype} does not go with its input of {'16' if wide else '8'} bits")
    steps = QParams(
        x.scale * qparams.scale, np.zeros_like(qparams.zero_point), -1, 1, None if qparams.axis is None else 0
    )
    index = builder.constant(f"{layer.name}/bias", bias)
    scale, zero = np.atleast_1d(steps.scale), np.atleast_1d(steps.zero_point).astype(np.int64)
    builder.tensors[index] = replace(builder.tensors[index], scale=scale, zero_point=zero)
    return [weight, index]


def padded(
    builder: LiteBuilder,
    layer: IntegerLayer,
    x: Site,
    kernel: tuple[int, ...],
    dilation: tuple[int, int] = (1, 1),
    *,
    by_pad: bool = True,
    same: bool = True,
) -> tuple[int, int]:
    """Return the tensor to read and the kind of padding; a PAD comes first where neither SAME nor VALID will do.

    `by_pad` says whether zeros around the picture give the same result, `same` whether SAME does.
    """
    given = layer.attrs["padding"]
    top, bottom, left, right = given if len(given) == 4 else (given[0], given[0], given[1], given[1])
    if not any((top, bottom, left, right)):
        return x.index, VALID
    automatic = [
        same_padding(size, k, s, d)
        for size, k, s, d in zip(x.shape[2:], kernel, layer.attrs["stride"], dilation, strict=True)
    ]
    if same and automatic == [(top, bottom), (left, right)]:
        return x.index, SAME
    if not by_pad:
        raise refuse(layer, "its padding is not TensorFlow's SAME, and padded places must not count")
    amounts = ((0, 0), (0, 0), (top, bottom), (left, right))
    shape = tuple(size + sum(amount) for size, amount in zip(x.shape, amounts, strict=True))
    around = builder.site(f"{layer.name}/padded", shape, x.qparams, layer.name)
    return pad(builder, around, f"{layer.name}/padding", x.index, amounts), VALID


def pad(builder: LiteBuilder, output: Site, name: str, index: int, amounts: tuple[tuple[int, int], ...]) -> int:
    """Add a PAD, `amounts` in our layout."""
    order = TO_FILE if len(amounts) == 4 else range(len(amounts))
    constant = builder.constant(name, np.array([amounts[axis] for axis in order], np.int32))
    return builder.add("PAD", [index, constant], output.index)


def transposed(builder: LiteBuilder, name: str, index: int, axes: tuple[int, ...], qparams: QParams) -> int:
    """Add a TRANSPOSE of a tensor, axes and shape in the layout of the file."""
    shape = tuple(builder.tensors[index].shape[axis] for axis in axes)
    output = builder.codes(name, shape, qparams, name)
    return builder.add("TRANSPOSE", [index, builder.constant(f"{name}/axes", np.array(axes, np.int32))], output)


def reshaped(builder: LiteBuilder, name: str, index: int, output: int) -> int:
    """Add a RESHAPE to the shape of the tensor `output`."""
    shape = builder.constant(f"{name}/shape", np.array(builder.tensors[output].shape, np.int32))
    return builder.add("RESHAPE", [index, shape], output)


def strides(stride: tuple[int, int]) -> dict[str, int]:
    """Return the two options."""
    return {"strideH": stride[0], "strideW": stride[1]}


def check_fixed_output(builder: LiteBuilder, layer: IntegerLayer, function: str) -> None:
    """Refuse another output scale than the one LiteRT prescribes for the function."""
    if function not in FIXED_OUTPUTS:
        return
    scale, zero = FIXED_OUTPUTS[function]
    _, shift = stored_as(layer.output, layer.name)
    if float(layer.output.scale) != scale or int(layer.output.zero_point) + shift != zero:
        raise refuse(layer, f"LiteRT wants its output with scale 1/{1 / scale:.0f} and zero point {zero}")


def activation_number(layer: IntegerLayer) -> int | None:
    """Return the number of the fused activation that clamps to the layer's limits, None if none does."""
    low, high = layer.limits
    stored, _ = stored_as(layer.output, layer.name)
    everything = (-32768, 32767) if stored == "int16" else (-128, 127) if layer.output.qmin < 0 else (0, 255)
    if np.ndim(low) or np.ndim(high):
        return None
    if (low, high) == everything:
        return NO_CLAMP
    whole = replace_limits(layer.output, everything)
    for number, clamp in ACTIVATIONS.items():
        if clamp is not None and code_limits(clamp, whole) == (low, high):
            return number
    return None


def replace_limits(qparams: QParams, limits: tuple[int, int]) -> QParams:
    """Return the same scale and zero point with other outermost codes."""
    return QParams(qparams.scale, qparams.zero_point, *limits, qparams.axis)


def with_activation(operator: LiteOperator, number: int) -> LiteOperator | None:
    """Return the operator with a fused activation, None if it cannot have one."""
    if number == NO_CLAMP:
        return operator
    options = OPERATIONS[operator.op].options
    if options is None or all(name != "fusedActivationFunction" for name, *_ in options.fields):
        return None
    return replace(operator, options={**operator.options, "fusedActivationFunction": number})


def clamped(builder: LiteBuilder, layer: IntegerLayer, site: Site) -> Site:
    """Add MAXIMUM and MINIMUM with constants: clamps that are no fused activation, one per channel included."""
    _, shift = stored_as(layer.output, layer.name)
    for op, limit in zip(("MAXIMUM", "MINIMUM"), layer.limits, strict=True):
        codes = (np.atleast_1d(limit) + shift).astype(np.int8)
        constant = builder.codes(f"{layer.name}/{op.lower()}", codes.shape, layer.output, layer.name, codes)
        output = builder.codes(f"{layer.name}/clamped/{op.lower()}", file_shape(site.shape), layer.output, layer.name)
        site = replace(site, index=builder.add(op, [site.index, constant], output))
    return site
