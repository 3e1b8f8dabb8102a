"""``qlearn plugins``: what is there, and what failed to load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qlearn.registry import plugins

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    """Print the table, its names, its JSON, or one traceback. 1 under --strict if a plugin failed."""
    table = plugins()
    if arguments.traceback is not None:
        print(table.traceback(arguments.traceback))
        return 0
    builtin = True if arguments.builtin else (False if arguments.third_party else None)
    shown = table.select(kind=arguments.kind, builtin=builtin)
    if arguments.names:
        print("\n".join(row.name for row in shown.rows))
    else:
        print(shown.to_json() if arguments.json else shown)
    return int(arguments.strict and bool(table.failures))
