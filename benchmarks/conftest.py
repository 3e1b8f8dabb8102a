"""Let the benchmarks import the networks beside them, and what the tests have for ONNX Runtime."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]
