"""A training that was killed goes on with the same numbers as one that was not."""

import json
import os
import subprocess
import sys
import textwrap

import networks
import numpy as np
import pytest
import torch

import qlearn as ql
from qlearn.errors import MissingDataError, ModelFileError
from qlearn.pipeline.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from qlearn.pipeline.qat.prepare import prepare_qat

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.AdamW(p, lr=1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.5),
}
SCHEDULERS = torch.optim.lr_scheduler
SCHEDULES = {
    "cosine": lambda o: SCHEDULERS.CosineAnnealingLR(o, 6),
    "steps": lambda o: SCHEDULERS.MultiStepLR(o, [2, 4]),
    "one cycle": lambda o: SCHEDULERS.OneCycleLR(o, 0.1, total_steps=6, cycle_momentum=False),
    "two in a row": lambda o: SCHEDULERS.SequentialLR(
        o, [SCHEDULERS.LinearLR(o, 0.1, total_iters=2), SCHEDULERS.CosineAnnealingLR(o, 4)], [2]
    ),
}


def fresh(optimizer="sgd", schedule="cosine"):
    torch.manual_seed(5)
    model = ql.trace(networks.make("residual"), networks.pictures(1))
    recipe = ql.Recipe()
    qat = prepare_qat(model, recipe, ql.calibrate(ql.fold_batch_norm(model), [networks.pictures(8)], recipe))
    with torch.no_grad():
        first = OPTIMIZERS[optimizer](qat.parameters())
    return {"net": qat, "optimizer": first, "schedule": SCHEDULES[schedule](first)}


def run(parts, steps):
    """Noise from torch's global generator, so that its state matters too."""
    losses = []
    for _ in range(steps):
        x = torch.randn(4, 3, 15, 15)
        loss = parts["net"](x).square().mean()
        parts["optimizer"].zero_grad()
        loss.backward()
        parts["optimizer"].step()
        parts["schedule"].step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(
    ("optimizer", "schedule"), [("sgd", name) for name in SCHEDULES] + [("adam", "cosine"), ("rmsprop", "cosine")]
)
def test_stopped_and_resumed_is_uninterrupted(tmp_path, optimizer, schedule):
    whole = fresh(optimizer, schedule)
    expected = run(whole, 6)
    first = fresh(optimizer, schedule)
    begin = run(first, 3)
    save_checkpoint(tmp_path / "run.npz", first, step=3, losses=begin)
    torch.manual_seed(99)
    second = fresh(optimizer, schedule)
    torch.randn(7)
    progress = load_checkpoint(tmp_path / "run.npz", second)
    assert progress == {"step": 3, "losses": begin}
    assert begin + run(second, 3) == expected
    theirs = whole["net"].state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in second["net"].state_dict().items())
    assert second["schedule"].get_last_lr() == whole["schedule"].get_last_lr()


SCRIPT = """
import os, sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from test_checkpoint import fresh, run
from qlearn.pipeline.checkpoint import load_checkpoint, save_checkpoint
path, die = sys.argv[1], sys.argv[2] == "die"
parts = fresh()
done = load_checkpoint(path, parts)["losses"] if os.path.exists(path) else []
while len(done) < 6:
    done += run(parts, 1)
    save_checkpoint(path, parts, losses=done)
    if die and len(done) == 3:
        os.kill(os.getpid(), 9)
print([value.hex() for value in done])
"""


def test_a_process_that_was_killed(tmp_path):
    here = os.path.dirname(__file__)  # noqa: PTH120  (a string for the script)
    path = os.pathsep.join([here, os.path.dirname(here), *sys.path])  # noqa: PTH120
    code = textwrap.dedent(SCRIPT.format(tests=here))

    def python(name, mode):
        command = [sys.executable, "-c", code, str(tmp_path / name), mode]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
        )

    assert python("a.npz", "die").returncode == -9
    resumed, whole = python("a.npz", "live"), python("b.npz", "live")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout == whole.stdout


def test_every_plain_value_comes_back(tmp_path):
    values = {
        "text": "a·b",
        "none": None,
        "numbers": [1, -2.5, float("inf"), True, 10**20],
        "tuple": (1, (2,)),
        "table": {1: "one", "two": {3: 4}},
        "tensor": torch.tensor([[1, 2]]),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "numpy": np.float64(0.1),
    }
    save_checkpoint(tmp_path / "x.npz", {}, **values)
    found = load_checkpoint(tmp_path / "x.npz", {})
    for key in ("tensor", "empty", "scalar"):
        a, b = values.pop(key), found.pop(key)
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    assert found == values


def test_what_is_no_checkpoint_is_refused(tmp_path):
    good = tmp_path / "good.npz"
    parts = fresh()
    save_checkpoint(good, parts)
    assert [path.name for path in tmp_path.iterdir()] == ["good.npz"]  # nothing half-written is left
    with pytest.raises(MissingDataError, match="no checkpoint"):
        load_checkpoint(tmp_path / "none.npz", parts)
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(good.read_bytes()[:2000])
    with pytest.raises(ModelFileError, match="damaged"):
        load_checkpoint(damaged, parts)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(ModelFileError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "text.npz", parts)
    np.savez(tmp_path / "foreign.npz", weight=np.zeros(3))
    with pytest.raises(ModelFileError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "foreign.npz", parts)
    np.savez(tmp_path / "pickled.npz", tree=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ModelFileError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "pickled.npz", parts)


@pytest.mark.parametrize(
    "content",
    [
        ["plain", 3],
        ["dict", []],
        ["dict", [[["plain", name], ["plain", None]] for name in ("parts", "progress", "random")]],
        [
            "dict",
            [[["plain", "parts"], ["dict", []]], *([["plain", key], ["plain", 0]] for key in ("progress", "random"))],
        ],
        ["dict", [[["plain", "parts"], ["dict", [[["plain", "net"], ["plain", 3]]]]]]],
    ],
)
def test_a_forged_tree_is_refused(tmp_path, content):
    tree = json.dumps({"format": FORMAT, "content": content}).encode()
    np.savez(tmp_path / "x.npz", tree=np.frombuffer(tree, np.uint8))
    with pytest.raises(ModelFileError, match=r"not a checkpoint|random numbers|holds"):
        load_checkpoint(tmp_path / "x.npz", {})


def test_where_nothing_can_be_written(tmp_path):
    with pytest.raises(ModelFileError, match="cannot be written"):
        save_checkpoint(tmp_path / "none" / "x.npz", {})
    with pytest.raises(ModelFileError, match="it is a folder"):
        save_checkpoint(tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_parts_must_be_the_same(tmp_path):
    save_checkpoint(tmp_path / "x.npz", {"net": torch.nn.Linear(2, 1)})
    with pytest.raises(ModelFileError, match="holds net, not net, other"):
        load_checkpoint(tmp_path / "x.npz", {"net": torch.nn.Linear(2, 1), "other": torch.nn.Linear(2, 1)})
    with pytest.raises(ModelFileError, match="does not fit 'net'"):
        load_checkpoint(tmp_path / "x.npz", {"net": torch.nn.Linear(3, 1)})


def test_what_would_need_a_pickle_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"progress\.rule is a function"):
        save_checkpoint(tmp_path / "x.npz", {}, rule=lambda: 1)
    with pytest.raises(ModelFileError, match="bfloat16"):
        save_checkpoint(tmp_path / "x.npz", {}, value=torch.zeros(2, dtype=torch.bfloat16))
    assert list(tmp_path.iterdir()) == []
