"""Train a network that ships with the project to be quantized: ``python tools/train_qat.py resnet20_w4a4 [--resume]``.

Starts from post-training quantization, trains with fake quantization, and prints the float row, the PTQ row and
the QAT row; the last two are those of the integer model, on the evaluation pictures.
``--rows`` prints them for the weights that ship, without training.

A checkpoint in ``.cache/`` is written every few minutes; ``--resume`` goes on from it, with the same numbers as a
training that was not stopped. Writes the weights to ``qlearn/zoo/assets/<name>.npz`` and a summary to
``tools/logs/<name>.json``; afterwards run ``python tools/checksums.py write``.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import convert_conv2d_weight_memory_format
from tqdm import tqdm

import qlearn as ql
from qlearn.pipeline.checkpoint import load_checkpoint, save_checkpoint
from qlearn.pipeline.qat.grids import LearnedGrid
from qlearn.pipeline.qat.model import QATModel, convert
from qlearn.pipeline.qat.prepare import prepare_qat
from qlearn.zoo.load import find_entry, load_module
from qlearn.zoo.pictures import cifar10_training
from qlearn.zoo.qat import available_qat, find_qat, load_qat, packed_state

sys.path.insert(0, str(Path(__file__).parent))
from provenance import whole, write
from train_zoo import ASSETS, CACHE, LOGS, training_set

if TYPE_CHECKING:
    import numpy.typing as npt

Pictures = tuple["npt.NDArray[np.uint8]", Tensor]  # (N, 32, 32, 3) and labels (N,)


@dataclass(frozen=True)
class Training:
    """How a network is trained: SGD with momentum, a short ramp, and a cosine from ``rate`` to 0.

    The loss is the distance from the float network's answers at a temperature (distillation); labels are not used.
    Pictures are shifted by up to ``shift`` pixels, and mirrored if ``mirror`` says so.
    Batch norms use the statistics of each batch for the first ``live_epochs``, then they are frozen.
    They hold a high rate in check: frozen from the start, a rate of 0.01 diverges at 4 bits.
    """

    epochs: int
    rate: float
    step_rate: float
    """Of the step sizes, relative to ``rate``."""
    live_epochs: float
    weight_decay: float = 1e-4
    temperature: float = 4.0
    batch: int = 128
    momentum: float = 0.9
    ramp: int = 40
    shift: int = 4
    mirror: bool = True
    pictures: int = 20_000
    seed: int = 0


TRAININGS = {
    "resnet20_w8a8": Training(epochs=1, rate=0.001, step_rate=0.5, live_epochs=0),
    "resnet20_w4a4": Training(epochs=3, rate=0.01, step_rate=0.5, live_epochs=2),
    "resnet20_all4": Training(epochs=3, rate=0.01, step_rate=0.5, live_epochs=2),
    "tiny_mobilenet_w8a8": Training(epochs=1, rate=0.005, step_rate=0.5, live_epochs=0.5, shift=0, mirror=False),
    "tiny_mobilenet_w4a8": Training(epochs=2, rate=0.01, step_rate=0.5, live_epochs=1.5, shift=0, mirror=False),
}


def training_pictures(network: str, count: int) -> Pictures:
    """Return the pictures to train on: CIFAR-10's, or digits drawn with a seed that the shipped sets do not use."""
    if network.startswith("tiny"):
        images, labels = training_set(count, seed=1)
        return images.numpy(), labels
    data = cifar10_training(find_entry(network).preprocess)
    assert data.labels is not None
    return data.pictures(np.arange(count)), torch.tensor(data.labels[:count])


def epoch_pictures(images: npt.NDArray[np.uint8], training: Training, epoch: int) -> npt.NDArray[np.uint8]:
    """Return one epoch's pictures in its order, shifted and mirrored: a function of seed and epoch alone."""
    rng = np.random.default_rng((training.seed, epoch))
    order = rng.permutation(len(images))[: len(images) // training.batch * training.batch]
    side, pad = images.shape[1], training.shift
    down, right = rng.integers(0, 2 * pad + 1, size=(2, len(order), 1))
    rows, columns = down + np.arange(side), right + np.arange(side)
    if training.mirror:
        columns = np.where(rng.random((len(order), 1)) < 0.5, columns[:, ::-1], columns)
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return padded[order[:, None, None], rows[:, :, None], columns[:, None, :]]


def as_input(images: npt.NDArray[np.uint8], network: str) -> Tensor:
    """Normalise (N, 32, 32, 3) uint8 into (N, 3, 32, 32) float32, channels last in memory."""
    rule = find_entry(network).preprocess
    values = torch.from_numpy(images).float().div_(255)
    return values.sub_(torch.tensor(rule.mean)).div_(torch.tensor(rule.std)).permute(0, 3, 1, 2)


def teacher_logits(network: str, images: npt.NDArray[np.uint8], training: Training, epoch: int) -> Tensor:
    """Return the float network's logits for an epoch's pictures; kept in the cache, for all trainings alike."""
    t = training
    path = CACHE / f"teacher_{network}_{t.seed}_{epoch}_{t.shift}_{int(t.mirror)}_{len(images)}.npy"
    if not path.exists():
        teacher = convert_conv2d_weight_memory_format(load_module(network), torch.channels_last)
        parts = range(0, len(images), 500)
        with torch.no_grad():
            logits = torch.cat(
                [teacher(as_input(images[i : i + 500], network)) for i in tqdm(parts, "teacher", mininterval=10)]
            )
        np.save(path.with_suffix(".new.npy"), logits.numpy())
        path.with_suffix(".new.npy").replace(path)
    return torch.from_numpy(np.load(path))


def distance(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² · KL(teacher ‖ student) at temperature T, in nats."""
    target, answer = (F.log_softmax(values / temperature, dim=1) for values in (teacher, logits))
    return F.kl_div(answer, target, reduction="batchmean", log_target=True) * temperature**2


def make_optimizer(qat: QATModel, training: Training) -> torch.optim.Optimizer:
    """Return SGD with three groups: weights, vectors (γ, β, biases), and step sizes."""
    steps = [grid.scale for grid in qat.modules() if isinstance(grid, LearnedGrid)]
    known = {id(step) for step in steps}
    others = [parameter for parameter in qat.parameters() if id(parameter) not in known]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in others if p.dim() > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in others if p.dim() <= 1]},
        {"params": steps, "lr": training.rate * training.step_rate},
    ]
    return torch.optim.SGD(groups, training.rate, training.momentum, nesterov=True)


def make_schedule(optimizer: torch.optim.Optimizer, training: Training) -> torch.optim.lr_scheduler.LRScheduler:
    """Return a linear ramp and a cosine, in steps."""
    total = training.epochs * (training.pictures // training.batch)
    schedulers = torch.optim.lr_scheduler
    ramp = schedulers.LinearLR(optimizer, 0.1, total_iters=training.ramp)
    cosine = schedulers.CosineAnnealingLR(optimizer, max(1, total - training.ramp))
    return schedulers.SequentialLR(optimizer, [ramp, cosine], [training.ramp])


class Run:
    """One training and how far it has come."""

    def __init__(self, name: str, training: Training) -> None:
        self.name, self.training, self.network = name, training, find_qat(name).network
        torch.manual_seed(training.seed)
        model, self.data = ql.load(self.network)
        recipe = find_qat(name).recipe
        table = ql.calibrate(ql.fold_batch_norm(model), self.data.calibration, recipe)
        self.qat = prepare_qat(model, recipe, table, momentum=0.05)
        convert_conv2d_weight_memory_format(self.qat, torch.channels_last)
        self.pictures, _ = training_pictures(self.network, training.pictures)
        self.optimizer = make_optimizer(self.qat, training)
        self.schedule = make_schedule(self.optimizer, training)
        self.parts: dict[str, Any] = {"net": self.qat, "optimizer": self.optimizer, "schedule": self.schedule}
        self.history: list[dict[str, float]] = []
        self.losses: list[float] = []
        self.step, self.seconds = 0, 0.0

    @property
    def checkpoint(self) -> Path:
        """Where the training goes on from."""
        return CACHE / f"qat_{self.name}.npz"

    def save(self) -> None:
        """Write the checkpoint."""
        save_checkpoint(
            self.checkpoint,
            self.parts,
            step=self.step,
            seconds=self.seconds,
            losses=self.losses,
            history=self.history,
        )

    def restore(self) -> None:
        """Go on from the checkpoint."""
        saved = load_checkpoint(self.checkpoint, self.parts)
        self.step, self.seconds = saved["step"], saved["seconds"]
        self.losses, self.history = saved["losses"], saved["history"]

    def train(self, *, save_every: int = 40) -> None:
        """Train to the end."""
        t = self.training
        per_epoch = t.pictures // t.batch
        for epoch in range(self.step // per_epoch, t.epochs):
            images = epoch_pictures(self.pictures, t, epoch)
            teacher = teacher_logits(self.network, images, t, epoch)
            first = self.step % per_epoch
            for batch in tqdm(range(first, per_epoch), f"epoch {epoch + 1}", mininterval=30):
                begin = time.perf_counter()
                part = slice(batch * t.batch, (batch + 1) * t.batch)
                self._step(as_input(images[part], self.network), teacher[part])
                self.seconds += time.perf_counter() - begin
                if self.step % save_every == 0:
                    self.save()
            self._end_epoch(epoch)

    def _step(self, x: Tensor, teacher: Tensor) -> None:
        if self.step >= self.training.live_epochs * (self.training.pictures // self.training.batch):
            self.qat.freeze_batch_norm()
        self.qat.train()
        loss = distance(self.qat(x), teacher, self.training.temperature)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.schedule.step()
        self.losses.append(float(loss.detach()))
        self.step += 1

    def _end_epoch(self, epoch: int) -> None:
        loss = float(np.mean(self.losses))
        sample = self.data.evaluation.subset(1000)
        score = ql.evaluate(self.qat.eval(), sample).accuracy
        self.qat.train()
        assert score is not None
        self.history.append({"epoch": epoch + 1, "loss": loss, "sample_accuracy": score})
        print(f"{self.name} epoch {epoch + 1}: loss {loss:.4f}, {score:.1%} of 1000, {self.seconds:.0f} s", flush=True)
        self.losses = []
        self.save()


def rows(name: str, qat: QATModel) -> dict[str, Any]:
    """Evaluate the float network, PTQ and QAT, the last two as integer models; print one row each."""
    entry = find_qat(name)
    model, data = ql.load(entry.network)
    folded = ql.fold_batch_norm(model)
    table = ql.calibrate(folded, data.calibration, entry.recipe)
    ptq = ql.quantize_model(folded, entry.recipe, table)
    results: dict[str, Any] = {}
    print(f"{name}: {entry.summary}; {len(data.evaluation)} pictures")
    for label, network in (("float", model), ("PTQ", ptq), ("QAT", convert(qat))):
        fast = network if label == "float" else network.to_integer("float32").with_engine("torch")
        accuracy = ql.evaluate(fast, data.evaluation).accuracy
        results[label] = accuracy
        print(f"  {label:6} {accuracy:.2%}", flush=True)
    x, _ = next(data.evaluation.batches(20))
    counts = results["agreement"] = agreement(qat, x)
    print(
        f"  of {counts['codes']} codes of 20 pictures, at all sites, simulation and integer model differ in "
        f"{counts['integers_differ']}; the float sums of training flip {counts['flipped']}"
    )
    return results


def agreement(qat: QATModel, x: Tensor) -> dict[str, int]:
    """Count codes over all sites: all, those that the integer model has otherwise, those that the float sums flip."""
    exact, training = convert(qat), copy.deepcopy(qat)
    simulated, integers = exact.codes(x), exact.to_integer("float32").codes(x.numpy())
    training.freeze_batch_norm()
    real: dict[str, Tensor] = {}
    with torch.no_grad():
        training.train()(x, lambda node, value: real.update({node.name: value}))
    grids = {layer.node.name: layer.output for layer in exact.layers}
    flipped = sum(int((ql.quantize(real[site], grids[site]).int() != codes).sum()) for site, codes in simulated.items())
    other = sum(int((integers[site] != codes.numpy()).sum()) for site, codes in simulated.items())
    return {"codes": sum(codes.numel() for codes in simulated.values()), "integers_differ": other, "flipped": flipped}


def summary(run: Run, results: dict[str, Any]) -> dict[str, Any]:
    """Return what the log keeps."""
    return {
        "name": run.name,
        "network": run.network,
        "command": f"python tools/train_qat.py {run.name}",
        "date": datetime.now(UTC).date().isoformat(),
        **asdict(run.training),
        "rows": results,
        "history": run.history,
        "train_seconds": round(run.seconds),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    """Parse the command line, train, and write weights and log."""
    parser = argparse.ArgumentParser(description="Train a network to be quantized.")
    parser.add_argument("name", choices=sorted(entry.name for entry in available_qat()))
    parser.add_argument("--epochs", type=int, help="instead of the usual number")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--rows", action="store_true", help="no training: the rows of the weights that ship")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.rows:
        rows(options.name, load_qat(options.name))
        return
    CACHE.mkdir(exist_ok=True)
    training = TRAININGS[options.name]
    if options.epochs is not None:
        training = Training(**{**asdict(training), "epochs": options.epochs})
    run = Run(options.name, training)
    if options.resume and run.checkpoint.exists():
        run.restore()
    run.train()
    with whole(ASSETS / f"{options.name}.npz") as part:
        np.savez_compressed(part, allow_pickle=False, **packed_state(run.qat))
    results = rows(options.name, run.qat)
    LOGS.mkdir(exist_ok=True)
    write(LOGS / f"{options.name}.json", json.dumps(summary(run, results), indent=2) + "\n")


if __name__ == "__main__":
    main()
