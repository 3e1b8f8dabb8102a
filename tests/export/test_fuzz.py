"""Ten thousand damaged files of each kind: refused with our error, or loaded and run, quickly and in little memory.

Time is measured for every file. Memory is what the process occupies at most while all of them are tried, beyond what it
occupied before, so no single file takes more. Linux counts that; elsewhere only the time is measured.
"""

import copy
import hashlib
import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from integer_networks import everything

import qlearn as ql
from qlearn.errors import ModelFileError, QLearnError
from qlearn.export.litert_import import integer_model
from qlearn.export.litert_read import lite_graph
from qlearn.integer.files import FORMAT_VERSION, MAGIC

ASSET = Path(__file__).parent.parent / "data" / "litert" / "everything.tflite"
WORDS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
COUNT, SEALED = 10_000, 2_000
MEMORY, SECONDS = 64 * 2**20, 5.0
ODD = (
    None,
    True,
    -1,
    0,
    1,
    2,
    3,
    2**31,
    -(2**40),
    10**30,
    0.5,
    1e308,
    "",
    "x",
    "float",
    [],
    [1, 1],
    [[0, 0]],
    {},
    [3] * 5,
)


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


def places(value, path=()):
    """The path of every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def contradicted(graph, rng):
    """A graph with one to three values replaced, deleted or taken from elsewhere."""
    graph = copy.deepcopy(graph)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        paths = list(places(graph))
        *outer, key = paths[int(rng.integers(len(paths)))]
        holder = graph
        for step in outer:
            holder = holder[step]
        kind = int(rng.integers(0, 4))
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder[key], int):
            holder[key] += int(rng.choice([-1, 1, 2]))
        elif kind == 2:
            other = graph
            for step in paths[int(rng.integers(len(paths)))]:
                other = other[step]
            holder[key] = copy.deepcopy(other)
        else:
            holder[key] = ODD[int(rng.integers(len(ODD)))]
    return graph


def sealed(graph, arrays):
    """A file whose checksum is right."""
    body = io.BytesIO()
    np.savez(body, graph=np.frombuffer(json.dumps(graph).encode(), np.uint8), **arrays)
    digest = hashlib.sha256(body.getvalue()).digest()
    return MAGIC + FORMAT_VERSION.to_bytes(4, "little") + digest + body.getvalue()


def occupied(*, reset=False):
    """The most bytes of memory that the process has occupied since the last reset; 0 where nobody counts."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


class Meter:
    """Tries one file after the other, and remembers the longest time and the most memory that one took."""

    def __init__(self):
        self.loaded = self.ran = self.count = 0
        self.slowest, self.before = 0.0, occupied(reset=True)

    @property
    def most(self):
        return occupied() - self.before

    def __call__(self, load):
        """Load a file and run it on zeros; whatever is not our error comes out."""
        result, start = None, time.perf_counter()
        self.count += 1
        try:
            model = load()
            self.loaded += 1
            first = model.layers[0].output
            zeros = np.full((1, *model.input_shape), first.zero_point, first.dtype)
            result = model.run_codes(zeros)
            self.ran += 1
        except QLearnError:
            pass
        self.slowest = max(self.slowest, time.perf_counter() - start)
        return result

    def report(self, what, capsys, count=COUNT):
        with capsys.disabled():
            print(f"\n  {what}: {self.count} mutations, {self.count - self.loaded} refused, {self.loaded} loaded, "
                  f"{self.ran} ran; slowest {self.slowest:.2f} s, {self.most / 2**20:.1f} MiB", end="")  # fmt: skip
        assert self.count >= count
        assert self.slowest < SECONDS
        assert self.most < MEMORY


@pytest.fixture
def meter():
    return Meter()


def test_the_meter_sees_memory_and_time():
    for _ in range(2):  # a second meter sees again what the first has seen
        meter = Meter()
        meter(lambda: (np.ones(2**24), time.sleep(0.05), everything())[-1])
        assert meter.most > MEMORY or occupied() == 0
        assert meter.slowest > 0.05
    with pytest.raises(ZeroDivisionError):
        meter(lambda: 1 / 0)


@pytest.mark.slow
def test_damaged_tflite_files_are_refused_or_run(meter, capsys):
    content, rng = ASSET.read_bytes(), np.random.default_rng(0)
    for number in range(COUNT):
        damaged, policy = mutated(content, rng), "xnnpack" if number % 2 else "litert_reference"
        meter(lambda damaged=damaged, policy=policy: integer_model(lite_graph(damaged), policy, "damaged"))
    meter.report(".tflite", capsys)
    assert meter.loaded == meter.ran > 0.05 * COUNT  # what is loaded can run


def test_damaged_model_files_are_refused(meter, tmp_path, capsys):
    model, rng = everything(), np.random.default_rng(1)
    path = tmp_path / "net.qlearn"
    model.save(path)
    content = path.read_bytes()
    expected = meter(lambda: ql.IntegerModel.load(path))
    assert expected is not None
    unchanged = 0
    for _ in range(COUNT):
        damaged = mutated(content, rng)
        path.write_bytes(damaged)
        result = meter(lambda: ql.IntegerModel.load(path))
        assert (result is not None) == (damaged == content)
        assert result is None or np.array_equal(result, expected)
        unchanged += damaged == content
    meter.report(".qlearn", capsys)
    assert meter.ran == unchanged + 1


@pytest.mark.slow
def test_contradictory_models_with_a_right_checksum_are_refused_or_run(meter, tmp_path, capsys):
    """Damage cannot do this; an author with bad intentions can."""
    model, rng = everything(), np.random.default_rng(2)
    path = tmp_path / "net.qlearn"
    model.save(path)
    with np.load(io.BytesIO(path.read_bytes()[len(MAGIC) + 36 :])) as archive:
        arrays = dict(archive)
    graph = json.loads(bytes(arrays.pop("graph")).decode())
    path.write_bytes(sealed(graph, arrays))
    assert np.array_equal(meter(lambda: ql.IntegerModel.load(path)), meter(lambda: model))
    for _ in range(SEALED):
        path.write_bytes(sealed(contradicted(graph, rng), arrays))
        meter(lambda: ql.IntegerModel.load(path))
    meter.report(".qlearn, contradictory", capsys, SEALED)
    assert meter.loaded == meter.ran > 0.02 * SEALED


def test_damaged_arrays_with_a_right_checksum_are_refused_or_run(meter, tmp_path, capsys):
    model, rng = everything(), np.random.default_rng(3)
    path = tmp_path / "net.qlearn"
    model.save(path)
    body = path.read_bytes()[len(MAGIC) + 36 :]
    for _ in range(SEALED):
        damaged = mutated(body, rng)
        head = MAGIC + FORMAT_VERSION.to_bytes(4, "little") + hashlib.sha256(damaged).digest()
        path.write_bytes(head + damaged)
        meter(lambda: ql.IntegerModel.load(path))
    meter.report(".qlearn, damaged and sealed", capsys, SEALED)
    assert meter.loaded == meter.ran


def test_a_refusal_is_an_error_of_ours_that_names_the_file(tmp_path):
    path = tmp_path / "net.qlearn"
    path.write_bytes(sealed({"layers": [], "output": "x"}, {}))
    with pytest.raises(ModelFileError, match=r"net\.qlearn: not a model that this qlearn can read \(KeyError"):
        ql.IntegerModel.load(path)
