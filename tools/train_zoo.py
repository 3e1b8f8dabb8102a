"""Train a network that ships with the project: ``python tools/train_zoo.py tiny_mobilenet [--resume]``.

Draws the training pictures once (a seed that the shipped sets do not use) and keeps them in ``.cache/``,
saves a checkpoint there after every epoch, and continues from it with ``--resume``. Writes the weights to
``qlearn/zoo/assets/<name>.npz`` and a summary to ``tools/logs/<name>.json``; afterwards run
``python tools/checksums.py write``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from provenance import head, typed, whole, write
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format
from tqdm import tqdm

from qlearn.zoo.digits import render_digits
from qlearn.zoo.models.tiny import MEAN, STD, TinyMobileNet, TinyResNet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache"
ASSETS = ROOT / "qlearn" / "zoo" / "assets"
LOGS = ROOT / "tools" / "logs"
SLICE = 1000
"""Pictures that one worker draws at a time."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD with momentum, a cosine from ``rate`` to 0, and weight decay.

    ``decay_batch_norm`` says whether gamma and beta decay too. PyTorch users let them; the MobileNets of the
    literature were trained with decay on the weights alone.
    """

    epochs: int
    rate: float
    weight_decay: float
    decay_batch_norm: bool
    batch: int = 128
    momentum: float = 0.9
    pictures: int = 60_000
    data_seed: int = 1
    seed: int = 0


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Recipe]] = {
    "tiny_resnet": (TinyResNet, Recipe(epochs=12, rate=0.1, weight_decay=5e-4, decay_batch_norm=True)),
    "tiny_mobilenet": (TinyMobileNet, Recipe(epochs=16, rate=0.1, weight_decay=5e-4, decay_batch_norm=False)),
}


def training_set(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw the training pictures, or read them from the cache.

    Parameters
    ----------
    count, seed : int
        As for `render_digits`.

    Returns
    -------
    images : Tensor, shape (count, 32, 32, 3), uint8
    labels : Tensor, shape (count,), int64
    """
    path = CACHE / f"digits_train_{seed}_{count}.npz"
    if not path.exists():
        CACHE.mkdir(exist_ok=True)
        (CACHE / ".gitignore").write_text("*\n")
        jobs = [(min(SLICE, count - start), seed, start) for start in range(0, count, SLICE)]
        with multiprocessing.Pool() as pool:
            parts = pool.starmap(render_digits, tqdm(jobs, desc="drawing"), chunksize=1)
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        np.savez(path, images=images, labels=labels)
    return read_pictures(path)


def read_pictures(path: Path) -> tuple[Tensor, Tensor]:
    """Read ``images`` (N, 32, 32, 3) uint8 and ``labels`` (N,) int64 from an npz file."""
    with np.load(path) as file:
        return torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])


def normalise(images: Tensor) -> Tensor:
    """Turn (N, 32, 32, 3) uint8 into the networks' input: (N, 3, 32, 32) float32, channels last in memory."""
    return ((images.float() / 255 - MEAN) / STD).permute(0, 3, 1, 2)


def batches(count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Yield shuffled index batches, each of exactly ``size``; the rest of an epoch is dropped."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    yield from torch.split(order[: count // size * size], size)


def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of right answers in evaluation mode, 0 to 1."""
    net.eval()
    with torch.no_grad():
        answers = torch.cat([net(normalise(part)).argmax(1) for part in torch.split(images, 500)])
    return float((answers == labels).float().mean())


def train_epoch(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    data: tuple[Tensor, Tensor],
    recipe: Recipe,
    *,
    epoch: int,
) -> float:
    """Train for one epoch in place; return the mean loss in nats."""
    net.train()
    images, labels = data
    losses = []
    picks = batches(len(labels), recipe.batch, seed=1000 * recipe.seed + epoch)
    for pick in tqdm(picks, total=len(labels) // recipe.batch, desc=f"epoch {epoch + 1}", mininterval=5):
        loss = nn.functional.cross_entropy(net(normalise(images[pick])), labels[pick])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return SGD with two groups of parameters: weights, and vectors (gamma, beta, biases)."""
    weights = [parameter for parameter in net.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in net.parameters() if parameter.dim() == 1]
    vector_decay = recipe.weight_decay if recipe.decay_batch_norm else 0.0
    groups = [
        {"params": weights, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": vector_decay},
    ]
    return torch.optim.SGD(groups, recipe.rate, recipe.momentum, nesterov=True)


def train(name: str, recipe: Recipe, *, resume: bool) -> tuple[nn.Module, dict[str, Any]]:
    """Train one network of `NETWORKS`; return it in evaluation mode, with the summary for the log."""
    torch.manual_seed(recipe.seed)
    net = convert_conv2d_weight_memory_format(NETWORKS[name][0](), torch.channels_last)
    data = training_set(recipe.pictures, recipe.data_seed)
    evaluation = read_pictures(ASSETS / "digits_evaluation.npz")
    optimizer = make_optimizer(net, recipe)
    steps = recipe.epochs * (recipe.pictures // recipe.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    parts = {"net": net, "optimizer": optimizer, "schedule": schedule}
    checkpoint = CACHE / f"{name}.pt"
    history = load_checkpoint(checkpoint, parts) if resume and checkpoint.exists() else []
    for epoch in range(len(history), recipe.epochs):
        begin = time.perf_counter()
        loss = train_epoch(net, optimizer, schedule, data, recipe, epoch=epoch)
        score = accuracy(net, *evaluation)
        seconds = time.perf_counter() - begin
        history.append({"epoch": epoch + 1, "loss": loss, "accuracy": score, "seconds": seconds})
        tqdm.write(f"{name} epoch {epoch + 1}: loss {loss:.4f}, accuracy {score:.4f}, {seconds:.0f} s")
        save_checkpoint(checkpoint, parts, history)
    return net.eval(), summarise(name, recipe, history)


def save_checkpoint(path: Path, parts: dict[str, Any], history: list[dict[str, float]]) -> None:
    """Write the state of every part, and the history, so that a crash never leaves half a file."""
    fresh = path.with_suffix(".new")
    torch.save({"history": history, **{key: part.state_dict() for key, part in parts.items()}}, fresh)
    fresh.replace(path)


def load_checkpoint(path: Path, parts: dict[str, Any]) -> list[dict[str, float]]:
    """Restore every part in place; return the history."""
    saved = torch.load(path, weights_only=True)
    for key, part in parts.items():
        part.load_state_dict(saved[key])
    history: list[dict[str, float]] = saved["history"]
    return history


def summarise(name: str, recipe: Recipe, history: list[dict[str, float]]) -> dict[str, Any]:
    """Return what the log keeps: the recipe, the last epoch, and the accuracy at every tenth epoch."""
    last = history[-1]
    kept = [row for row in history if row["epoch"] % 10 == 0 or row is last]
    return {
        "network": name,
        **asdict(recipe),
        "final_train_loss": round(last["loss"], 5),
        "accuracy": {str(row["epoch"]): round(row["accuracy"], 4) for row in kept},
        "wall_seconds": round(sum(row["seconds"] for row in history)),
        "torch": torch.__version__,
    }


def write_weights(net: nn.Module, path: Path) -> None:
    """Write the float32 arrays of the state dict; batch norm's step counters stay out."""
    state = net.state_dict()
    arrays = {key: value.contiguous().numpy() for key, value in state.items() if value.is_floating_point()}
    with whole(path) as part:
        np.savez_compressed(part, allow_pickle=False, **arrays)


def main() -> None:
    """Parse the command line, train, and write weights and log."""
    parser = argparse.ArgumentParser(description="Train a network that ships with the project.")
    parser.add_argument("name", choices=sorted(NETWORKS))
    parser.add_argument("--epochs", type=int, help="instead of the recipe's number")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = NETWORKS[options.name][1]
    if options.epochs is not None:
        recipe = Recipe(**{**asdict(recipe), "epochs": options.epochs})
    net, summary = train(options.name, recipe, resume=options.resume)
    write_weights(net, ASSETS / f"{options.name}.npz")
    LOGS.mkdir(exist_ok=True)
    write(LOGS / f"{options.name}.json", json.dumps(head(typed("train_zoo.py")) | summary, indent=2) + "\n")


if __name__ == "__main__":
    main()
