"""The first cell of every chapter: everything is here, and the numbers will be the same."""

from __future__ import annotations

import importlib
import os
import random
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import QLearnError

if TYPE_CHECKING:
    from collections.abc import Mapping

NEEDED: Mapping[str, tuple[int, ...]] = {"numpy": (1, 26), "torch": (2, 4), "matplotlib": (3, 8)}
"""Packages that the chapters use, with the oldest release that will do."""

OLDEST_PYTHON = (3, 11)


def check_environment() -> None:
    """Print one line if everything that the chapters need is here; say what to do if not.

    The line names no third decimal and no other package's version: it is the same on every machine that is ready.

    Raises
    ------
    QLearnError
        If Python or a package is missing or too old, with the command that mends it.

    Examples
    --------
    >>> check_environment()
    qlearn 0.1 is ready (numpy, torch, matplotlib found).
    """
    from qlearn import __version__

    problems = [] if sys.version_info >= OLDEST_PYTHON else [f"Python {_dotted(OLDEST_PYTHON)} or newer"]
    problems += [text for name, oldest in NEEDED.items() if (text := _problem(name, oldest))]
    if problems:
        raise QLearnError(
            f"the chapters need {'; '.join(problems)}. "
            "Install what is missing with: python -m pip install 'qlearn[lab]', then restart the kernel"
        )
    release = ".".join(__version__.split(".")[:2])
    print(f"qlearn {release} is ready ({', '.join(NEEDED)} found).")


def setup(seed: int = 0) -> None:
    """Prepare a chapter: seeds, one thread, readable numbers, and figures as the result of a cell.

    One thread, because sums of float32 depend on how they are split; then the numbers beside the text are yours too.

    Parameters
    ----------
    seed : int
        For Python's, NumPy's and torch's generators.

    Examples
    --------
    >>> setup(seed=0)
    >>> print(np.array([1 / 3, 2.0]))
    [0.3333 2.    ]
    """
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (for code that still uses it)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    np.set_printoptions(precision=4, suppress=True, linewidth=100)
    torch.set_printoptions(precision=4, sci_mode=False, linewidth=100)  # type: ignore[no-untyped-call]
    _show_axes()


def results_folder() -> str:
    """Return the folder of committed results, relative to the notebook: "results".

    It is looked for here, and then as ``notebooks/results`` in this folder and all those above it,
    so that students' copies and those of a grader find it from wherever they lie in the repository.

    Raises
    ------
    QLearnError
        If there is none.
    """
    if os.path.isdir("results"):  # noqa: PTH112
        return "results"
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks" / "results").is_dir():
            return os.path.relpath(folder / "notebooks" / "results").replace(os.sep, "/")  # shown to readers
    raise QLearnError(
        "no folder 'results' here: start Jupyter in the folder notebooks/, or somewhere in the repository"
    )


def _problem(name: str, oldest: tuple[int, ...]) -> str | None:
    """What is wrong with a package, or None."""
    try:
        importlib.import_module(name)
    except ImportError:
        return f"{name} {_dotted(oldest)} or newer (not found)"
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:  # built by hand: it imports, and that must do
        return None
    numbers = tuple(int(part) for part in found.split("+")[0].split(".")[: len(oldest)] if part.isdigit())
    return f"{name} {_dotted(oldest)} or newer (found {found})" if numbers < oldest else None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _show_axes() -> None:
    """Let a notebook show the Axes that a cell returns: the picture, and its title as text."""
    shell = _shell()
    if shell is None:
        return
    from matplotlib.axes import Axes

    from qlearn.viz import png, title_of

    formatters = shell.display_formatter.formatters
    formatters["image/png"].for_type(Axes, png)
    formatters["text/plain"].for_type(Axes, lambda ax, printer, _: printer.text(f"Figure: {title_of(ax)}"))


def _shell() -> Any:
    """The running IPython, or None outside of a notebook."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()
