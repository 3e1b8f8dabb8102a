"""Build sdist and wheels, install them into a clean environment, and run the tests from there.

The environment sees the dependencies of the current one through a path file, but nothing that was installed
for development: qlearn and its plugins come from the wheels alone (the source of qlearn is taken away before).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))


def run(*command: str | Path, cwd: Path) -> None:
    """Run a command, show it, and stop at the first failure."""
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def build(source: Path, into: Path) -> None:
    """Build an sdist and, from it, a wheel."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", into, source, cwd=ROOT)


def clean_environment(folder: Path) -> Path:
    """Make a virtual environment that finds our dependencies, and return its python."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([str(python), "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def main() -> None:
    """Build, install, test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes of the tests (1)")
    parallel = ("--numprocesses", str(parser.parse_args().jobs), "--dist", "loadfile")
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        for source in (ROOT, *PLUGINS):
            build(source, room / "dist")
        python = clean_environment(room / "environment")
        wheels = sorted((room / "dist").glob("*.whl"))
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", *wheels, cwd=room)
        with tarfile.open(next((room / "dist").glob("qlearn-*.tar.gz"))) as archive:
            archive.extractall(room / "source", filter="data")
        tree = next((room / "source").iterdir())
        shutil.rmtree(tree / "qlearn")
        run(python, "-P", "-c", "import qlearn; assert 'environment' in qlearn.__file__, qlearn.__file__", cwd=tree)
        quick = ("-m", "not slow and not realdata and not runtimes", "-p", "no:cacheprovider", "--quiet")
        run(python, "-P", "-m", "pytest", "tests", *quick, *parallel, cwd=tree)
        for plugin in PLUGINS:
            run(
                python,
                "-P",
                "-m",
                "pytest",
                f"plugins/{plugin.name}/tests",
                "-p",
                "no:cacheprovider",
                "--quiet",
                cwd=tree,
            )
        run(python.with_name("qlearn"), "plugins", "--strict", cwd=tree)


if __name__ == "__main__":
    main()
