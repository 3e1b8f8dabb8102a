"""What all tests share."""

import os
import sys
from pathlib import Path

import hypothesis
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # `import networks` from any test

hypothesis.settings.register_profile("ci", derandomize=True)  # what lands must not depend on luck; others explore
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    """Let what tests print past the capture reach the terminal from the processes of pytest-xdist, too."""
    if hasattr(config, "workerinput"):  # their standard output leads nowhere, their standard error to the terminal
        capture = config.pluginmanager.getplugin("capturemanager")
        capture.stop_global_capturing()
        sys.stdout = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8")
        capture.start_global_capturing()


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Small tensors run faster on one thread, and float results then do not move with the machine."""
    torch.set_num_threads(1)
