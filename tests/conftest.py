"""What all tests share."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # `import networks` from any test


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Small tensors run faster on one thread, and float results then do not move with the machine."""
    torch.set_num_threads(1)
