"""Write the digit sets that ship with the project: ``python tools/make_digits.py``.

The seeds are fixed. Training (``tools/train_zoo.py``) uses another one, so no network sees these pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from qlearn.zoo.digits import render_digits

ASSETS = Path(__file__).parents[1] / "qlearn" / "zoo" / "assets"
SETS = {"evaluation": (2000, 2000), "calibration": (256, 256)}
"""For each set: number of pictures, seed."""


def write_set(name: str, folder: Path) -> Path:
    """Draw one set and write ``digits_<name>.npz``.

    Parameters
    ----------
    name : str
        A key of `SETS`.
    folder : Path
        Where the file goes; made if missing.

    Returns
    -------
    Path
        The file, with ``images`` (N, 32, 32, 3) uint8 and ``labels`` (N,) int64.

    Raises
    ------
    KeyError
        If there is no set of that name.
    """
    count, seed = SETS[name]
    images, labels = render_digits(count, seed)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"digits_{name}.npz"
    np.savez_compressed(path, images=images, labels=labels)
    return path


def main() -> None:
    """Write every set and print its size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=ASSETS, help="where the files go")
    folder = parser.parse_args().folder
    for name in SETS:
        path = write_set(name, folder)
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
