"""``qlearn plugins``: what is there, and what failed to load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qlearn.cli.document import print_json
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
    elif arguments.json:
        print_json(shown.to_dict())
    else:
        print(shown)
    return int(arguments.strict and bool(table.failures))
