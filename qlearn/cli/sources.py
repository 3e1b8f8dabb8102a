"""Where networks and pictures come from: zoo names, files, package.module:callable, folders."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from qlearn.errors import DataError, GraphError, MissingDataError
from qlearn.graph.preprocess import Preprocess
from qlearn.graph.trace import trace
from qlearn.integer.model import IntegerModel
from qlearn.zoo.data import Splits
from qlearn.zoo.folder import from_folder
from qlearn.zoo.load import available, load_data, load_network

if TYPE_CHECKING:
    import argparse

    from qlearn.graph.model import FloatModel

_OWN_CALIBRATION = 200  # pictures that are taken from a folder of one's own


def open_model(model: str, checkpoint: str | None, preprocess: Preprocess | None) -> FloatModel | IntegerModel:
    """Return the network that a command line names.

    Parameters
    ----------
    model : str
        A zoo name, a file that ends in ``.qlearn``, or ``package.module:callable``.
    checkpoint : str or None
        A safetensors file with the weights for ``package.module:callable``.
    preprocess : Preprocess or None
        Gives the size of the input of ``package.module:callable``, and is stored with it.

    Raises
    ------
    QLearnError
        If there is no such network; the message says what was looked for.
    """
    if preprocess is not None and ":" not in model:
        raise DataError(f"{model} brings its own preprocessing: leave --preprocess out")
    if model.endswith(".qlearn"):
        return IntegerModel.load(model)
    if ":" in model:
        return _imported(model, checkpoint, preprocess)
    if model not in [entry.name for entry in available()] and Path(model).exists():
        raise GraphError(
            f"{model}: a file, but its name does not end in .qlearn; a module is named package.module:callable"
        )
    return load_network(model)


def open_data(arguments: argparse.Namespace, preprocess: Preprocess | None) -> Splits:
    """Return the pictures to calibrate on and to evaluate on: from folders, or those of the zoo's network."""
    if arguments.data is None:
        if arguments.labels or arguments.calibration:
            raise DataError("--labels and --calibration go with --data FOLDER, the pictures to evaluate on")
        if ":" in arguments.model or arguments.model.endswith(".qlearn"):
            raise MissingDataError(
                f"{arguments.model} brings no pictures: name a folder with --data FOLDER --labels CSV"
            )
        return _with_calibration(load_data(arguments.model), arguments.calibration_images)
    if preprocess is None:
        raise DataError("--data needs --preprocess size=…,mean=…,std=…: what turns a picture into the network's input")
    pictures = from_folder(arguments.data, arguments.labels, preprocess)
    if arguments.calibration is not None:
        own = Splits(calibration=from_folder(arguments.calibration, None, preprocess), evaluation=pictures)
        return _with_calibration(own, arguments.calibration_images)
    count = min(arguments.calibration_images or _OWN_CALIBRATION, len(pictures) // 2)
    if count < 1:
        raise DataError(
            f"{arguments.data}: {len(pictures)} picture is too few to calibrate on some and evaluate on others"
        )
    calibration = _draw(len(pictures), count)
    evaluation = [index for index in range(len(pictures)) if index not in set(calibration)]
    return Splits(calibration=pictures.subset(calibration), evaluation=pictures.subset(evaluation))


def _with_calibration(data: Splits, count: int | None) -> Splits:
    return data if count is None else replace(data, calibration=data.calibration.subset(count))


def parse_preprocess(text: str | None) -> Preprocess | None:
    """Read ``size=224,mean=0.485:0.456:0.406,std=0.5,resize=256``; one number stands for all three colours.

    Examples
    --------
    >>> parse_preprocess("size=32,mean=0.5,std=0.25")
    Preprocess(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), resize=None)
    """
    if text is None:
        return None
    try:
        fields = dict(part.split("=", 1) for part in text.split(","))
        unknown = set(fields) - {"size", "mean", "std", "resize"}
        if unknown or "size" not in fields:
            raise ValueError(f"unknown {sorted(unknown)}" if unknown else "size is missing")
        size = [int(side) for side in fields["size"].split(":")]
        mean, std = (_colours(fields.get(key, default)) for key, default in (("mean", "0"), ("std", "1")))
        resize = int(fields["resize"]) if "resize" in fields else None
    except ValueError as error:
        raise DataError(f"--preprocess {text!r}: {error}; write size=224,mean=0.5,std=0.5,resize=256") from error
    return Preprocess((size[0], size[-1]), mean, std, resize)


def _colours(text: str) -> tuple[float, ...]:
    values = [float(value) for value in text.split(":")]
    return tuple(values * 3 if len(values) == 1 else values)


def _draw(total: int, count: int) -> list[int]:
    """Return `count` of `total` indices, drawn with a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    return sorted(torch.randperm(total, generator=generator)[:count].tolist())


def _imported(model: str, checkpoint: str | None, preprocess: Preprocess | None) -> FloatModel:
    if preprocess is None:
        raise DataError(f"{model} needs --preprocess size=…: the size of its input is not known otherwise")
    module_name, _, attribute = model.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does: a module beside the user is found
    try:
        build: Any = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # the user's module may fail in any way while it is imported
        raise MissingDataError(f"{model}: cannot be imported ({type(error).__name__}: {error})") from error
    try:
        network = build() if callable(build) and not isinstance(build, nn.Module) else build
    except Exception as error:  # the user's code: say that it is theirs
        raise GraphError(f"{model}: calling it without arguments failed ({type(error).__name__}: {error})") from error
    if not isinstance(network, nn.Module):
        raise GraphError(
            f"{model}: an nn.Module, or a callable that returns one, expected; got {type(network).__name__}"
        )
    if checkpoint is not None:
        _load_checkpoint(network, checkpoint)
    return trace(network, torch.zeros(1, 3, *preprocess.size), name=attribute, preprocess=preprocess)


def _load_checkpoint(network: nn.Module, checkpoint: str) -> None:
    from qlearn.zoo.weights import load_state

    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise DataError("--checkpoint reads safetensors files: pip install qlearn[zoo]") from error
    if not Path(checkpoint).is_file():
        raise MissingDataError(f"--checkpoint {checkpoint}: no such file")
    try:
        state = load_file(checkpoint)
    except Exception as error:  # safetensors has an exception of its own
        raise DataError(
            f"--checkpoint {checkpoint}: not a readable safetensors file ({error}). "
            "A file of torch.save() becomes one: "
            "safetensors.torch.save_file(torch.load('weights.pt', weights_only=True), 'weights.safetensors')"
        ) from error
    load_state(network, state, checkpoint)


def parse_setting(text: str) -> tuple[str, Any]:
    """Read ``percent=99.9``: a number where it is one, else text.

    Examples
    --------
    >>> parse_setting("percent=99.9"), parse_setting("of=tails")
    (('percent', 99.9), ('of', 'tails'))
    """
    key, separator, value = text.partition("=")
    if not separator:
        raise DataError(f"{text!r}: write KEY=VALUE, such as percent=99.9")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
