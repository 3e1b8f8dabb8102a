"""Networks by name: two small ones that ship with qlearn, three known ones whose weights are fetched once."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from qlearn.errors import MissingDataError
from qlearn.graph.preprocess import Preprocess
from qlearn.graph.trace import trace
from qlearn.zoo import pictures, weights
from qlearn.zoo.models import cifar, mobilenet, tiny

if TYPE_CHECKING:
    from collections.abc import Callable

    from qlearn.graph.model import FloatModel
    from qlearn.zoo.data import Splits

_DIGITS = Preprocess((32, 32), (tiny.MEAN,) * 3, (tiny.STD,) * 3)
_CIFAR = Preprocess((32, 32), cifar.MEAN, cifar.STD)
_IMAGENET = Preprocess((224, 224), (mobilenet.MEAN,) * 3, (mobilenet.STD,) * 3, resize=256)


@dataclass(frozen=True)
class ZooEntry:
    """What the zoo knows about a network.

    Parameters
    ----------
    name : str
        What `load` takes.
    summary : str
        One line for people.
    origin : str
        Where weights and pictures come from, one line.
    preprocess : Preprocess
        What turns pictures into its input.
    build : callable
        Returns the network with random weights.
    read : callable
        Returns the state dict.
    splits : callable
        Takes the preprocessing and returns the pictures.
    classes : callable
        Returns the names of the classes.
    """

    name: str
    summary: str
    origin: str
    preprocess: Preprocess
    build: Callable[[], nn.Module]
    read: Callable[[], dict[str, Tensor]]
    splits: Callable[[Preprocess], Splits]
    classes: Callable[[], tuple[str, ...]]


def _tiny(name: str, summary: str, build: Callable[[], nn.Module]) -> ZooEntry:
    return ZooEntry(
        name,
        summary,
        "weights and pictures ship with qlearn",
        _DIGITS,
        build,
        partial(weights.read_bundled, name),
        pictures.digits,
        lambda: tuple("0123456789"),
    )


def _cifar(depth: int) -> ZooEntry:
    name = f"resnet{depth}"
    return ZooEntry(
        name,
        f"ResNet-{depth} for CIFAR-10, 32 x 32",
        f"weights from QLEARN_DATA or by: qlearn fetch {name}; pictures from QLEARN_DATA",
        _CIFAR,
        partial(cifar.CifarResNet, depth),
        lambda: weights.read_checkpoint(weights.find_weights(name)),
        pictures.cifar10,
        lambda: pictures.CIFAR_CLASSES,
    )


def _mobilenet(name: str) -> ZooEntry:
    return ZooEntry(
        name,
        "MobileNetV1 with a quarter of the width for ImageNet, 224 x 224",
        f"weights from QLEARN_DATA or by: qlearn fetch {name}; pictures from QLEARN_DATA",
        _IMAGENET,
        partial(mobilenet.MobileNetV1, alpha=0.25),
        lambda: weights.read_mobilenet(weights.find_weights(name)),
        pictures.imagenet,
        pictures.imagenet_classes,
    )


_ENTRIES = (
    _tiny("tiny_resnet", "a small residual network for digits, 32 x 32", tiny.TinyResNet),
    _tiny("tiny_mobilenet", "a small MobileNetV2 for digits, 32 x 32", tiny.TinyMobileNet),
    _mobilenet("mobilenet_v1_0.25"),
    _cifar(20),
    _cifar(56),
)


def available() -> tuple[ZooEntry, ...]:
    """Return what `load` knows.

    Examples
    --------
    >>> for entry in available():
    ...     print(f"{entry.name:18}{entry.summary}")
    tiny_resnet       a small residual network for digits, 32 x 32
    tiny_mobilenet    a small MobileNetV2 for digits, 32 x 32
    mobilenet_v1_0.25 MobileNetV1 with a quarter of the width for ImageNet, 224 x 224
    resnet20          ResNet-20 for CIFAR-10, 32 x 32
    resnet56          ResNet-56 for CIFAR-10, 32 x 32
    """
    return _ENTRIES


def find_entry(name: str) -> ZooEntry:
    """Return what the zoo knows about a network.

    Raises
    ------
    MissingDataError
        If there is none of that name.

    Examples
    --------
    >>> find_entry("resnet20").preprocess.size
    (32, 32)
    """
    entries = {entry.name: entry for entry in _ENTRIES}
    if name not in entries:
        close = difflib.get_close_matches(str(name), entries, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise MissingDataError(f"no network {name!r} in the zoo; there are {', '.join(entries)}{hint}")
    return entries[name]


def load(name: str) -> tuple[FloatModel, Splits]:
    """Load a network of the zoo with its pictures.

    Parameters
    ----------
    name : str
        One of `available`.

    Returns
    -------
    FloatModel
        The traced network in evaluation mode, batch norm separate.
    Splits
        ``calibration`` and ``evaluation``, with different pictures.

    Raises
    ------
    MissingDataError
        If there is no network of that name, or its weights or pictures are not on this machine.
    ChecksumError
        If a file is damaged.

    Examples
    --------
    >>> net, data = load("tiny_mobilenet")
    >>> len(data.calibration), len(data.evaluation)
    (256, 2000)
    """
    return load_network(name), load_data(name)


def load_network(name: str) -> FloatModel:
    """Load a network alone; its pictures need not be there.

    Raises
    ------
    MissingDataError, ChecksumError
        As for `load`.
    """
    preprocess = find_entry(name).preprocess
    return trace(load_module(name), torch.zeros(1, 3, *preprocess.size), name=name, preprocess=preprocess)


def load_module(name: str) -> nn.Module:
    """Load a network as the plain ``nn.Module`` that it was before tracing, in evaluation mode.

    Raises
    ------
    MissingDataError, ChecksumError
        As for `load`.
    """
    entry = find_entry(name)
    module = entry.build()
    weights.load_state(module, entry.read(), f"the file of {name}")
    return module.eval()


def load_data(name: str) -> Splits:
    """Load the pictures of a network alone.

    Raises
    ------
    MissingDataError
        As for `load`.

    Examples
    --------
    >>> images, labels = next(iter(load_data("tiny_resnet").evaluation))
    >>> images.shape, labels.shape
    (torch.Size([100, 3, 32, 32]), torch.Size([100]))
    """
    entry = find_entry(name)
    return entry.splits(entry.preprocess)


def class_names(name: str) -> tuple[str, ...]:
    """Return the names of a network's classes, in the order of its logits.

    Raises
    ------
    MissingDataError
        If there is no network of that name, or the list is not on this machine (ImageNet's comes from
        ``QLEARN_DATA``).

    Examples
    --------
    >>> class_names("resnet20")[3]
    'cat'
    """
    return find_entry(name).classes()
