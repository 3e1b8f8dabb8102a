"""Measure what every chapter takes, and write the status page: ``make status``.

Each notebook runs alone under nbval, as in ``make test``: a chapter whose outputs differ gets no time.
The numbers go to ``book/status.json``; the page ``book/status.md`` and the last column of the README's table of
chapters are written from them. ``--write`` counts cells and writes both again, without measuring.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import math
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
NUMBERS = ROOT / "book" / "status.json"
PAGE = ROOT / "book" / "status.md"
README = ROOT / "README.md"
PACKAGES = ("torch", "numpy", "pluggy", "matplotlib", "scipy", "onnxruntime", "jupyterlab", "nbval", "jupyter-book")
NBVAL = ("--override-ini=addopts=", "--quiet", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env")
NBVAL += ("--nbval-cell-timeout=300", "--nbval-sanitize-with=tests/nbval.cfg")
SECONDS, MIB, MINUTES = 60, 2048, 8
"""What a chapter may take on two cores, and all together."""

PAUSE = 0.05  # seconds between two looks at the memory


class StatusError(Exception):
    """A chapter failed; the message has what nbval said."""


def measure(path: Path) -> dict[str, Any]:
    """Run one notebook under nbval.

    Returns
    -------
    dict
        ``seconds`` of wall time, ``cpu_seconds`` of all processes, and ``peak_mib``: the largest resident memory
        of the kernel and its children together, looked at every twentieth of a second.

    Raises
    ------
    StatusError
        If an output differs or a cell fails.
    """
    command = [sys.executable, "-m", "pytest", str(path), *NBVAL]
    reader = {name: value for name, value in os.environ.items() if name != "QLEARN_DATA"}  # what a reader has
    before, started, peak = _cpu_seconds(), time.perf_counter(), 0
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as said,
        subprocess.Popen(command, cwd=ROOT, env=reader, stdout=said, stderr=subprocess.STDOUT) as run,
    ):
        pytest = psutil.Process(run.pid)
        while run.poll() is None:
            peak = max(peak, _resident_bytes(pytest))
            time.sleep(PAUSE)
        seconds = time.perf_counter() - started
        said.seek(0)
        if run.returncode:
            raise StatusError(f"{path.name} failed:\n{said.read()[-3000:]}")
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(_cpu_seconds() - before, 1),
        "peak_mib": round(peak / 2**20),
    }


def _cpu_seconds() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _resident_bytes(parent: psutil.Process) -> int:
    """Resident memory of the processes that pytest started: the kernel, and what it starts."""
    total = 0
    try:
        children = parent.children(recursive=True)
    except psutil.Error:
        return 0
    for child in children:
        try:
            total += child.memory_info().rss
        except psutil.Error:  # it has just ended
            continue
    return total


def facts(path: Path) -> dict[str, Any]:
    """Return name and title of a notebook, and how many cells and exercises it has."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return {
        "name": path.stem,
        "title": "".join(cells[0]["source"]).splitlines()[0].removeprefix("# "),
        "cells": len(cells),
        "code_cells": sum(cell["cell_type"] == "code" for cell in cells),
        "exercises": sum(bool(re.fullmatch(r"ex-\d+-\d+", cell["id"])) for cell in cells),
    }


def measure_all(paths: Sequence[Path]) -> dict[str, Any]:
    """Run the notebooks one after the other; return what the page says."""
    chapters = []
    for position, path in enumerate(paths, start=1):
        print(f"[{position}/{len(paths)}] {path.name} ", end="", flush=True)
        chapters.append(facts(path) | measure(path))
        print("{seconds:.0f} s, CPU {cpu_seconds:.0f} s, {peak_mib} MiB".format(**chapters[-1]))
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "command": "make status",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")) or None,
        "chapters": chapters,
    }


def recounted(status: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers with titles and counts as the notebooks have them now; what was measured stays."""
    chapters = [chapter | facts(ROOT / "notebooks" / f"{chapter['name']}.ipynb") for chapter in status["chapters"]]
    return status | {"chapters": chapters}


def page(status: dict[str, Any]) -> str:
    """Return the status page as Markdown."""
    chapters = status["chapters"]
    rows = [
        "| [{title}](../notebooks/{name}.ipynb) | {cells} | {exercises} "
        "| {seconds:.0f}&nbsp;s | {cpu_seconds:.0f}&nbsp;s | {peak_mib} MiB |".format(**chapter)
        for chapter in chapters
    ]
    total = {key: sum(chapter[key] for chapter in chapters) for key in ("cells", "exercises", "seconds", "cpu_seconds")}
    total["peak_mib"] = max(chapter["peak_mib"] for chapter in chapters)
    threads = f", {status['threads']} thread for each process" if status["threads"] == 1 else ""
    return "\n".join(
        [
            "# Status",
            "",
            "<!-- Written by `make status` from book/status.json. -->",
            "",
            "What the chapters take, and with which versions they print what these pages show.",
            f"Measured by `{status['command']}` on {status['date']}: Python {status['python']},",
            f"{status['system']}, {status['cores']} cores{threads}.",
            "",
            "Every chapter ran alone, in a fresh kernel, and every output was compared with the one shown here.",
            "*Time* is what one waits for, the start of the kernel and the imports of torch included.",
            "*CPU* adds up all processes. *Memory* is the largest resident memory of the kernel.",
            "",
            "| chapter | cells | exercises | time | CPU | memory |",
            "|---|---|---|---|---|---|",
            *rows,
            "| **all** | {cells} | {exercises} "
            "| {seconds:.0f}&nbsp;s | {cpu_seconds:.0f}&nbsp;s | {peak_mib} MiB |".format(**total),
            "",
            f"The bounds on two cores: {SECONDS} s and {MIB // 1024} GiB for each chapter, {MINUTES} minutes for all.",
            *exceeded(status),
            "",
            "## Versions",
            "",
            "| package | version |",
            "|---|---|",
            *(f"| {name} | {number} |" for name, number in status["packages"].items()),
            "",
            "`constraints.txt` pins these and all others.",
            "With other versions the chapters run too, but a last digit, or a picture, may differ.",
            "",
        ]
    )


def exceeded(status: dict[str, Any]) -> list[str]:
    """Return a sentence for every bound that was not kept, or the one that says that all were."""
    chapters = status["chapters"]
    slow = [f"{c['name']} took {c['seconds']:.0f} s." for c in chapters if c["seconds"] > SECONDS]
    large = [f"{c['name']} took {c['peak_mib']} MiB." for c in chapters if c["peak_mib"] > MIB]
    minutes = sum(c["seconds"] for c in chapters) / 60
    long = [f"All together took {minutes:.1f} minutes."] if minutes >= MINUTES else []
    return [*slow, *large, *long] or ["All were kept."]


def spoken(seconds: float) -> str:
    """Say a time as the README does, rounded up to five seconds.

    Examples
    --------
    >>> spoken(16.2)
    'about 20 s'
    """
    return f"about {max(1, math.ceil(seconds / 5)) * 5} s"


def with_times(readme: str, status: dict[str, Any]) -> str:
    """Return the README with the last column of its table of chapters as measured."""
    times = {chapter["name"]: spoken(chapter["seconds"]) for chapter in status["chapters"]}

    def row(found: re.Match[str]) -> str:
        return f"{found[1]} {times[found[2]]} |" if found[2] in times else found[0]

    return re.sub(r"^(\| \[.*?\]\(notebooks/(\w+)\.ipynb\) \|.*\|)[^|\n]*\|$", row, readme, flags=re.MULTILINE)


def write(status: dict[str, Any]) -> None:
    """Write the numbers, the page, and the README's column."""
    NUMBERS.write_text(json.dumps(status, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(status), encoding="utf-8")
    README.write_text(with_times(README.read_text(encoding="utf-8"), status), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write; return 1, and write nothing, if a chapter fails."""
    parser = argparse.ArgumentParser(description="Measure what every chapter takes, and write the status page.")
    parser.add_argument("--write", action="store_true", help="measure nothing: count cells, write the page again")
    options = parser.parse_args(argv)
    try:
        if options.write:
            status = recounted(json.loads(NUMBERS.read_text(encoding="utf-8")))
        else:
            status = measure_all(sorted((ROOT / "notebooks").glob("*.ipynb")))
    except StatusError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    write(status)
    print(" ".join(exceeded(status)), f"Written: {NUMBERS.name}, {PAGE.name}, and the times in {README.name}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
