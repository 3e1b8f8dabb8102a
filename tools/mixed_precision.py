"""Measure mixed precision on two networks: ``python tools/mixed_precision.py`` writes results of chapter 07.

Each run is the command that the file names; on one core resnet20 takes about half an hour.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from pathlib import Path
from typing import Any

import torch

from qlearn.cli import main as qlearn

FOLDER = Path(__file__).parents[1] / "notebooks" / "results"
NETWORKS = ("tiny_mobilenet", "resnet20")
OPTIONS = ["--budget", "6bit", "4bit", "--measure", "kl", "sqnr", "hessian", "accuracy", "--pareto", "--json"]


def measured(network: str) -> dict[str, Any]:
    """Run ``qlearn mixed`` and return its document."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        if qlearn(["mixed", network, *OPTIONS]) != 0:
            raise SystemExit(f"qlearn mixed {network} failed")
    document: dict[str, Any] = json.loads(output.getvalue())
    return document


def formatted(document: dict[str, Any]) -> str:
    """Return JSON with one line per network, layer and point of the front, numbers to six digits."""

    def short(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.6g}")
        if isinstance(value, dict):
            return {key: short(one) for key, one in value.items()}
        return [short(one) for one in value] if isinstance(value, list) else value

    def lines(value: Any, depth: int) -> str:
        indent = " " * (depth + 1)
        if depth < 3 and isinstance(value, dict) and any(isinstance(one, dict | list) for one in value.values()):
            inner = [f"{indent}{json.dumps(key)}: {lines(one, depth + 1)}" for key, one in value.items()]
            return "{\n" + ",\n".join(inner) + "\n" + indent[1:] + "}"
        if isinstance(value, list) and any(isinstance(one, dict) for one in value):
            inner = [indent + json.dumps(one, ensure_ascii=False) for one in value]
            return "[\n" + ",\n".join(inner) + "\n" + indent[1:] + "]"
        return json.dumps(value, ensure_ascii=False)

    return lines(short(document), 0) + "\n"


def main() -> None:
    """Measure and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("networks", nargs="*", default=NETWORKS, metavar="NETWORK", help="which (both)")
    torch.set_num_threads(1)
    for network in parser.parse_args().networks:
        path = FOLDER / f"mixed_precision_{network}.json"
        path.write_text(formatted(measured(network)), encoding="utf-8")
        print(path.name)


if __name__ == "__main__":
    main()
