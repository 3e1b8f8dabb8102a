"""``qlearn plugins new``: a package that is found, works and passes the conformance kit, for its author to change."""

from __future__ import annotations

import importlib.resources
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from qlearn.errors import PluginError
from qlearn.registry import build_registry
from qlearn.registry.records import Kind, canonical, check_name

if TYPE_CHECKING:
    import argparse

_WORDS = re.compile(r"qlearn-mine|qlearn_mine|\b(?:mine|calibrator)\b|Mine|Calibrator")
"""What stands in the templates for the name and, outside of the module, for the kind."""


def run(arguments: argparse.Namespace) -> int:
    """Write the package; print its files and what to type next."""
    folder = write(arguments.name, arguments.kind or "calibrator", Path(arguments.into))
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(path)
    place = shlex.quote(str(folder))
    print(f"\nNext:\n  pip install -e {place}\n  qlearn plugins --third-party\n  pytest {place}")
    return 0


def write(name: str, kind: Kind, into: Path) -> Path:
    """Write the package and return its folder.

    Raises
    ------
    PluginError
        If the name cannot be that of a calibrator or scheme, or is that of a built-in;
        if the folder exists already, or cannot be written.

    Examples
    --------
    >>> write("minmax", "calibrator", Path())
    Traceback (most recent call last):
    ...
    qlearn.errors.PluginError: calibrator 'minmax' is a built-in, which would keep the name: take another
    """
    check_name(name)
    built_in = build_registry({"QLEARN_LOAD_PLUGINS": ""})
    if any((offer.kind, offer.name) == (kind, name) for offer in built_in.offers):
        raise PluginError(f"{kind} {name!r} is a built-in, which would keep the name: take another")
    found = files(name, kind)
    folder = into / distribution(name)
    try:
        folder.mkdir()
        for path, text in found.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise PluginError(f"{folder} exists already: take another name, or another folder with --into") from None
    except OSError as error:
        raise PluginError(f"{folder} cannot be written: {error.strerror}") from error
    return folder


def distribution(name: str) -> str:
    """Return the name of the package: one that pip and hatchling take.

    Examples
    --------
    >>> distribution("my_rule")
    'qlearn-my-rule'
    """
    return canonical(f"qlearn-{name}").rstrip("-")


def files(name: str, kind: Kind) -> dict[str, str]:
    """Return the files of the package: path -> text.

    Examples
    --------
    >>> list(files("peak", "calibrator"))
    ['pyproject.toml', 'README.md', 'qlearn_peak.py', 'tests/test_peak.py']
    """
    package = distribution(name)
    module = package.replace("-", "_")
    title = "".join(part.capitalize() for part in name.split("_"))
    words = {"qlearn-mine": package, "qlearn_mine": module, "mine": name, "Mine": title}
    kinds = {"calibrator": kind, "Calibrator": kind.capitalize()}
    return {
        "pyproject.toml": _filled("pyproject.toml", words),
        "README.md": _filled("README.md", words | kinds),
        f"{module}.py": _filled(f"{kind}.py", words),
        f"tests/test_{name}.py": _filled("test_mine.py", words | kinds),
    }


def _filled(template: str, words: dict[str, str]) -> str:
    text = (importlib.resources.files("qlearn.cli") / "template" / f"{template}.txt").read_text(encoding="utf-8")
    return _WORDS.sub(lambda match: words.get(match[0], match[0]), text)
