"""Functions of one number as a table of 256 codes (paper §4).

An 8-bit tensor takes at most 256 values, so any function of one number is a table, and running it is one look-up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import KernelError
from qlearn.integer.requantize import fixed_multiplier, round_half_away, rounding_shift

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from qlearn.numbers.qparams import QParams

    Real = NDArray[np.float64]
    Codes = NDArray[Any]

INT16 = np.iinfo(np.int16)


def _sigmoid(x: Real) -> Real:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))  # no overflow for large |x|


UNARY: dict[str, Callable[[Real], Real]] = {
    "sigmoid": _sigmoid,
    "tanh": lambda x: np.asarray(np.tanh(x)),
    "silu": lambda x: x * _sigmoid(x),
    "hard_swish": lambda x: x * np.clip(x + 3.0, 0.0, 6.0) / 6.0,
    "hard_sigmoid": lambda x: np.clip(x + 3.0, 0.0, 6.0) / 6.0,
}
"""The functions that a ``unary`` layer may name, in float64."""

RATIONAL = {
    "sigmoid": (
        18.0,
        (4.37031012579801e-11, 1.15627324459942e-07, 6.08574864600143e-05, 8.51377133304701e-03, 2.48287947061529e-01),
        (6.10247389755681e-13, 5.76102136993427e-09, 6.29106785017040e-06, 1.70198817374094e-03, 1.16817656904453e-01,
         9.93151921023180e-01),
    ),
    "tanh": (
        9.0,
        (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
         1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03),
        (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03),
    ),
}  # fmt: skip
"""x p(x**2) / q(x**2), with x clipped: the approximations of Eigen and MLAS, highest power first."""

UNARY32: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "sigmoid": lambda x: (
        np.float32(1) / (np.float32(1) + np.exp(np.minimum(-x.astype(np.float64), 88.0)).astype(np.float32))
    ),
    "tanh": lambda x: np.tanh(x.astype(np.float64)).astype(np.float32),
}
"""The same with float32 arithmetic around a correctly rounded exponential, as C computes them."""

FIXED_OUTPUTS = {"sigmoid": (1 / 256, -128), "tanh": (1 / 128, 0), "softmax": (1 / 256, -128)}
"""Scale and zero point of int8 outputs that LiteRT prescribes: their range is known beforehand."""


def unary_table(function: str, qx: QParams, out: QParams) -> Codes:
    """Return the code of f(S_x (q - Z_x)) for every code q from qmin to qmax: computed in float64, halves away.

    Parameters
    ----------
    function : str
        A key of `UNARY`.
    qx, out : QParams

    Returns
    -------
    integer array, shape (qx.qmax - qx.qmin + 1,), dtype of out

    References
    ----------
    Paper §4 (look-up tables). LiteRT, LOGISTIC and TANH; ONNX Runtime, ``QLinearSigmoid``.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> unary_table("sigmoid", QParams(1.0, 0, -2, 1), QParams(1 / 256, -128, -128, 127))
    array([-97, -59,   0,  59], dtype=int8)
    """
    if function not in UNARY:
        raise KernelError(f"no unary function {function!r}: choose one of {', '.join(sorted(UNARY))}")
    steps = np.arange(qx.qmin - int(qx.zero_point), qx.qmax - int(qx.zero_point) + 1)
    real = steps.astype(np.float64) * float(qx.scale)
    return _saturated(round_half_away(UNARY[function](real) / float(out.scale)) + out.zero_point, out)


def table_litert(function: str, qx: QParams, out: QParams) -> Codes:
    """The table in float32, halves away; hard-swish in fixed point.

    References
    ----------
    LiteRT, ``PopulateLookupTable`` of LOGISTIC and TANH.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> table_litert("hard_swish", QParams(1.0, 0, -4, 3), QParams(0.1, 0, -128, 127))
    array([ 0,  0, -3, -3,  0,  7, 17, 30], dtype=int8)
    """
    if function in UNARY32:
        steps = UNARY32[function](_real32(qx)) * (np.float32(1) / out.scale)
        return _saturated(round_half_away(steps) + out.zero_point, out)
    return hard_swish_fixed(qx, out) if function == "hard_swish" else unary_table(function, qx, out)


def table_xnnpack(function: str, qx: QParams, out: QParams) -> Codes:
    """The table in float32, ties to the even code (the zero point is added before rounding); hard-swish as LiteRT.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> table_xnnpack("sigmoid", QParams(1.0, 0, -2, 1), QParams(1 / 256, -128, -128, 127))
    array([-97, -59,   0,  59], dtype=int8)
    """
    if function in UNARY32:
        steps = UNARY32[function](_real32(qx)) * (np.float32(1) / out.scale)
        return _saturated(np.rint(steps + np.float32(out.zero_point)), out)
    return table_litert(function, qx, out)


def table_onnxruntime(function: str, qx: QParams, out: QParams) -> Codes:
    """The table in float32, ties to even; sigmoid and tanh are the rational functions that MLAS has for them.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> table_onnxruntime("silu", QParams(1.0, 0, -2, 1), QParams(0.01, 0, -128, 127))
    array([-24, -27,   0,  73], dtype=int8)
    """
    x = _real32(qx)
    if function in RATIONAL:
        real = _rational(x, function)
    elif function == "silu":
        real = x * _rational(x, "sigmoid")
    elif function in ("hard_swish", "hard_sigmoid"):
        gate = np.clip(x * np.float32(1 / 6) + np.float32(0.5), 0, 1)
        real = x * gate if function == "hard_swish" else gate
    else:
        return unary_table(function, qx, out)
    return _saturated(np.rint(real / out.scale) + out.zero_point, out)


def hard_swish_fixed(qx: QParams, out: QParams) -> Codes:
    """The table of x relu6(x + 3) / 6 in 16-bit fixed point, as all kernels of LiteRT compute it.

    x is taken on a scale 128 times finer, and relu6(x + 3) / 6 on the scale 3 / 2**15.

    References
    ----------
    LiteRT, ``HardSwish`` of the reference kernels.

    Examples
    --------
    >>> from qlearn.numbers.qparams import QParams
    >>> hard_swish_fixed(QParams(1.0, 0, -4, 3), QParams(0.1, 0, -128, 127))
    array([ 0,  0, -3, -3,  0,  7, 17, 30], dtype=int8)
    """
    fine = np.arange(qx.qmin - int(qx.zero_point), qx.qmax - int(qx.zero_point) + 1, dtype=np.int64) << 7
    fine_scale = float(np.float32(1 / 128) * qx.scale)
    to_out, out_shift = _int16_multiplier(float(np.float32(fine_scale) / out.scale))
    to_gate, gate_shift = _int16_multiplier(float(np.float32(fine_scale) / np.float32(3 / 32768)))
    gate = fine
    if gate_shift > 0:
        gate = np.clip(gate << (gate_shift - 1), INT16.min, INT16.max)
    gate = _high_mul16(gate, to_gate)
    if gate_shift > 0:
        gate = np.clip(gate << 1, INT16.min, INT16.max)
    gate = rounding_shift(gate, max(-gate_shift, 0))
    gate = (gate + 2**15) >> 1  # from [-1, 1] to [0, 1]
    product = gate * _high_mul16(fine, to_out)
    product = np.sign(product) * (np.abs(product) >> 15)  # this one rounds towards zero
    return _saturated(rounding_shift(product, max(-out_shift, 0)) + out.zero_point, out)


def _real32(qx: QParams) -> NDArray[np.float32]:
    """The real numbers of all codes."""
    return np.arange(qx.qmin - int(qx.zero_point), qx.qmax - int(qx.zero_point) + 1).astype(np.float32) * qx.scale


def _rational(x: NDArray[np.float32], function: str) -> NDArray[np.float32]:
    limit, above, below = RATIONAL[function]
    clipped = np.clip(x, np.float32(-limit), np.float32(limit))
    top, bottom = (_polynomial(clipped * clipped, coefficients) for coefficients in (above, below))
    ratio = clipped * top / bottom
    return np.clip(ratio + np.float32(0.5), 0, 1) if function == "sigmoid" else ratio


def _polynomial(t: NDArray[np.float32], coefficients: tuple[float, ...]) -> NDArray[np.float32]:
    """Horner's scheme in fused multiply-adds: each step is rounded once."""
    result = np.full(t.shape, np.float32(coefficients[0]))
    for coefficient in coefficients[1:]:
        result = (result.astype(np.float64) * t + np.float64(np.float32(coefficient))).astype(np.float32)
    return result


def _int16_multiplier(real: float) -> tuple[int, int]:
    """A mantissa of 15 bits and a shift."""
    multiplier = fixed_multiplier(real)
    mantissa = int(multiplier.mantissa)
    return (0x7FFF if mantissa >= 0x7FFF8000 else (mantissa + 2**15) >> 16), int(multiplier.shift)


def _high_mul16(a: NDArray[np.int64], b: int) -> NDArray[np.int64]:
    """The high half of the doubled 32-bit product, halves up."""
    return np.asarray((a * b + 2**14) >> 15)


def _saturated(codes: NDArray[Any], out: QParams) -> Codes:
    return np.asarray(np.clip(codes, out.qmin, out.qmax).astype(out.dtype))
