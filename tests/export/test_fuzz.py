"""Thousands of damaged model files: each is refused with our error, or loads and runs, quickly and in little memory."""

import time
from pathlib import Path

import numpy as np
import pytest
from integer_networks import everything, inputs

import qlearn as ql
from qlearn.errors import ModelFileError, QLearnError
from qlearn.export.litert_import import integer_model
from qlearn.export.litert_read import lite_graph

ASSET = Path(__file__).parent.parent / "data" / "litert" / "everything.tflite"
WORDS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
MEMORY, SECONDS = 256 * 2**20, 5.0
COUNTS = [3000, pytest.param(10_000, marks=pytest.mark.slow)]


def mutated(content, rng):
    """Damage: bytes, words, lengths, pieces that are lost, doubled or moved."""
    data = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 1, 2, 5]))):
        at = int(rng.integers(0, len(data)))
        kind = int(rng.integers(0, 6))
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            data[at] = int(rng.integers(0, 256))
        elif kind == 2:
            at -= at % 4
            data[at : at + 4] = int(rng.choice(WORDS)).to_bytes(4, "little")
        elif kind == 3:
            del data[at : len(data) if rng.random() < 0.3 else at + int(rng.integers(1, 9))]
        elif kind == 4:
            data[at:at] = data[at : at + int(rng.integers(1, 9))]
        else:
            other = int(rng.integers(0, len(data)))
            data[at : at + 4] = data[other : other + 4]
        if not data:
            break
    return bytes(data)


@pytest.mark.parametrize("count", COUNTS)
def test_damaged_tflite_files_are_refused_or_run(count, capsys):
    content, rng = ASSET.read_bytes(), np.random.default_rng(count)
    zeros = inputs(ql.import_litert(ASSET), 1)
    loaded = ran = 0
    slowest = 0.0
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        damaged = mutated(content, rng)
        start = time.perf_counter()
        try:
            model = integer_model(lite_graph(damaged), "xnnpack" if number % 2 else "litert_reference", "damaged")
            loaded += 1
            x = np.resize(zeros, (1, *model.input_shape)).astype(model.layers[0].output.dtype)
            ran += model.run_codes(x).size > 0
        except QLearnError:
            pass
        slowest = max(slowest, time.perf_counter() - start)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    with capsys.disabled():
        print(f"\n  .tflite: {count} mutations, {count - loaded} refused, {loaded} loaded, {ran} ran; "
              f"slowest {slowest:.2f} s, {grown / 2**20:.0f} MiB more", end="")  # fmt: skip
    assert loaded == ran > 0
    assert slowest < SECONDS
    assert grown < MEMORY


@pytest.mark.parametrize("count", COUNTS)
def test_damaged_model_files_are_refused(count, tmp_path, capsys):
    model, rng = everything(), np.random.default_rng(count)
    path = tmp_path / "net.qlearn"
    model.save(path)
    content, x = path.read_bytes(), inputs(model, 1)
    expected = model.run_codes(x)
    assert np.array_equal(ql.IntegerModel.load(path).run_codes(x), expected)
    refused = 0
    for _ in range(count):
        damaged = mutated(content, rng)
        path.write_bytes(damaged)
        try:
            assert np.array_equal(ql.IntegerModel.load(path).run_codes(x), expected)
            assert damaged == content
        except ModelFileError:
            refused += 1
    with capsys.disabled():
        print(f"\n  .qlearn: {count} mutations, {refused} refused", end="")
    assert refused > 0.9 * count
