"""Compare an answer with what is expected, and say in a few words what is different."""

from __future__ import annotations

from typing import Any

import numpy as np

RELATIVE, ABSOLUTE = 1e-5, 1e-7
"""How far a real number may be off: float32 arithmetic passes."""

LONGEST = 8
"""Numbers of a list that are shown."""


def difference(yours: Any, expected: Any) -> str | None:
    """Return None if the two are equal, else what is wrong ("" where the values themselves say it).

    Lists, tuples, NumPy arrays and torch tensors count as the same thing.
    Integers must be integers; real numbers may be a little off.

    Examples
    --------
    >>> difference(3, 3), difference(np.int64(3), 3), difference((1.0, 2.0), [1.0, 2.0])
    (None, None, None)
    >>> difference(3.0, 3)
    'an integer is expected, this is a float'
    >>> difference([1, 2], [1, 2, 3])
    'shape (2,) instead of (3,)'
    >>> difference(float("nan"), 0.5)
    'NaN'
    >>> difference(4, 3)
    ''
    """
    if yours is None:
        return "nothing was returned"
    target = np.asarray(expected)
    try:
        values = _array(yours)
    except (TypeError, ValueError):
        return f"a number or a list of numbers is expected, this is {type(yours).__name__}"
    if problem := _kind_problem(values, target):
        return problem
    if values.shape != target.shape:
        return f"shape {values.shape} instead of {target.shape}"
    return _value_problem(values, target)


def show(value: Any) -> str:
    """Return a value as one short line.

    Examples
    --------
    >>> show(np.array([0.5, 1 / 3])), show(7), show(list(range(20)))
    ('[0.5, 0.333333]', '7', '[0, 1, 2, 3, 4, 5, 6, 7, … 20 in all]')
    """
    if isinstance(value, str):
        return repr(value[:60])
    try:
        array = _array(value)
    except (TypeError, ValueError):
        return repr(value)[:60]
    if array.dtype == object or array.dtype.kind in "US":
        return repr(value)[:60]
    return _listed(array.tolist())


def _listed(value: Any) -> str:
    if isinstance(value, list):
        shown = ", ".join(_listed(item) for item in value[:LONGEST])
        more = f", … {len(value)} in all" if len(value) > LONGEST else ""
        return f"[{shown}{more}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _array(value: Any) -> np.ndarray[Any, Any]:
    """A list, array or tensor (also one with a gradient) as an array."""
    detached = value.detach() if hasattr(value, "detach") else value
    array = np.asarray(detached)
    if array.dtype == object:
        raise TypeError
    return array


def _value_problem(values: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> str | None:
    """None if equal, or nearly so where real numbers are expected."""
    if not np.issubdtype(target.dtype, np.floating):
        return None if bool((values == target).all()) else ""
    if np.isnan(values).any():
        return "NaN"
    return None if np.allclose(values, target, rtol=RELATIVE, atol=ABSOLUTE) else ""


def _kind_problem(values: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> str | None:
    """Integers where integers are expected, and numbers at all."""
    if values.dtype.kind not in "iufb":
        return f"numbers are expected, this is {values.dtype}"
    if target.dtype.kind in "iu" and values.dtype.kind not in "iu":
        if values.size == 0:
            return None
        one = "an integer is expected, this is a" if target.ndim == 0 else "integers are expected, these are"
        names = {"f": ("float", "floats"), "b": ("truth value", "truth values")}[values.dtype.kind]
        return f"{one} {names[int(target.ndim > 0)]}"
    return None
