"""How every command prints JSON: one document, and nothing in it that JSON does not have."""

from __future__ import annotations

import json
import math
from typing import Any


def print_json(document: Any) -> None:
    """Print a document. Numbers that are infinite or NaN become null: an exact layer has an SQNR of infinity.

    Examples
    --------
    >>> print_json({"sqnr_db": math.inf})
    {
      "sqnr_db": null
    }
    """
    print(json.dumps(without_infinities(document), indent=2, allow_nan=False))


def without_infinities(value: Any) -> Any:
    """Return the document with None for infinite numbers and NaN.

    Examples
    --------
    >>> without_infinities({"sqnr_db": (math.inf, 3.5), math.nan: "keys are left to json"})
    {'sqnr_db': [None, 3.5], nan: 'keys are left to json'}
    """
    if isinstance(value, dict):
        return {key: without_infinities(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinities(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
