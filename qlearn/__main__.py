"""``python -m qlearn``: the same as the command ``qlearn``."""

import sys

from qlearn.cli import main

if __name__ == "__main__":
    sys.exit(main())
