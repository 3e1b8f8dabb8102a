"""A Sphinx extension for docstrings that are written to be read in a terminal first.

``|x|`` means an absolute value there, "a line: with a colon" is a sentence, and ``Tensor, int64, shape (C,)`` is a
description. Sphinx would take them for a substitution, a type and four cross references. This puts them right.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_BARS = re.compile(r"\|([^|\s][^|]*)\|")
_ATTRIBUTE = re.compile(r":(ivar|vartype) ([^:]+): ?(.*)")


def escape_bars(lines: list[str]) -> list[str]:
    """Write ``|x|`` as text, outside examples and inline code."""
    escaped, example = [], False
    for line in lines:
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        parts = line.split("``")
        if not example:
            parts[::2] = [_BARS.sub(r"\\|\1\\|", part) for part in parts[::2]]
        escaped.append("``".join(parts))
    return escaped


def describe_attributes(lines: list[str]) -> list[str]:
    """Put what napoleon takes for the type of an attribute in front of its description, as plain text."""
    found = [_ATTRIBUTE.fullmatch(line) for line in lines]
    types = {match[2]: match[3] for match in found if match and match[1] == "vartype"}
    kept = []
    for line, match in zip(lines, found, strict=True):
        if match is None:
            kept.append(line)
        elif match[1] == "ivar":
            *others, last = match[2].split(", ")  # "lo, hi": a field holds one name
            text = f"*{types[match[2]]}*" if match[2] in types else ""
            kept += [f":ivar {name}: {text}" for name in others]
            kept.append(f":ivar {last}: {text}{'. ' if text and match[3] else ''}{match[3]}")
    return kept


def trim_code(_app: Sphinx, doctree: nodes.document) -> None:
    """Take the empty line from the end of a code block: doctest needs one before the closing fence."""
    for block in doctree.findall(nodes.literal_block):
        if len(block) == 1 and isinstance(block[0], nodes.Text):
            block[0] = nodes.Text(block.astext().rstrip())
            block.rawsource = block.astext()


def setup(app: Sphinx) -> dict[str, Any]:
    """Let Sphinx call this extension: once before napoleon (priority 500), once after it."""
    properties: dict[str, list[str]] = {}

    def before(_app: Sphinx, what: str, name: str, *rest: Any) -> None:
        lines = rest[-1]
        lines[:] = escape_bars(lines)
        if what == "property":
            properties[name] = list(lines)

    def after(_app: Sphinx, _what: str, name: str, *rest: Any) -> None:
        lines = rest[-1]
        lines[:] = properties.get(name, describe_attributes(lines))

    app.connect("doctree-read", trim_code)
    app.connect("autodoc-process-docstring", before, priority=400)
    app.connect("autodoc-process-docstring", after, priority=600)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
