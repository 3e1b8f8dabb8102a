"""``qlearn fetch``: the weights of a known network, once, with checksum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qlearn.cli.document import print_json
from qlearn.zoo.fetch import REMOTE, fetch

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    """Fetch one, or list what can be fetched."""
    if arguments.name is None:
        records = [
            {"name": name, "bytes": remote.size, "licence": remote.licence, "address": remote.address}
            for name, remote in sorted(REMOTE.items())
        ]
        lines = [f"{n:<18} {remote.size / 1e6:5.1f} MB  {remote.address}" for n, remote in sorted(REMOTE.items())]
        if arguments.json:
            print_json(records)
        else:
            print("\n".join(lines))
        return 0
    path = fetch(arguments.name, arguments.folder)
    if arguments.json:
        print_json({"name": arguments.name, "path": str(path)})
    else:
        print(f"{arguments.name}: {path}")
    return 0
