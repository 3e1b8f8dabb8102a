"""Train one small network with each activation function and quantize it: ``python tools/activation_study.py``.

The paper's §4 compares activation functions by SQNR. This measures it twice: the function alone on normal inputs,
and as the activation of a network that was trained with it. The summary goes to ``notebooks/results/activations.json``;
the trained weights are not kept. About a quarter of an hour on one thread.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from provenance import head, typed, write
from torch import nn
from tqdm import tqdm

import qlearn as ql
from qlearn.analysis.partly import partly
from qlearn.zoo.digits import render_digits
from qlearn.zoo.load import load_data
from qlearn.zoo.models.tiny import MEAN, STD, TinyResNet

if TYPE_CHECKING:
    from qlearn.zoo.data import Splits

RESULTS = Path(__file__).parents[1] / "notebooks" / "results" / "activations.json"
FUNCTIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "hard_swish": nn.Hardswish,
}
DATA_SEED = 5  # no set that ships with the project was drawn with it


def network(function: str, seed: int) -> nn.Module:
    """Build a TinyResNet of half the width with another activation; equal seeds give equal initial weights."""
    torch.manual_seed(seed)
    net = TinyResNet(widths=(8, 16, 32))
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, FUNCTIONS[function]())
    return net


def train(net: nn.Module, data: tuple[torch.Tensor, torch.Tensor], options: argparse.Namespace, seed: int) -> None:
    """Train in place: SGD with momentum, the rate on a cosine to 0."""
    images, labels = data
    steps = options.epochs * (len(labels) // 128)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    bar = tqdm(total=steps, mininterval=10)
    for _ in range(options.epochs):
        for pick in torch.randperm(len(labels), generator=generator).split(128):
            if len(pick) < 128:
                continue
            x = ((images[pick].float() / 255 - MEAN) / STD).permute(0, 3, 1, 2).contiguous()
            loss = nn.functional.cross_entropy(net(x), labels[pick])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            bar.update()
    bar.close()
    net.eval().requires_grad_(False)


def measure(net: nn.Module, data: Splits) -> dict[str, Any]:
    """Quantize a trained network with several bits and compare it with itself in float."""
    folded = ql.fold_batch_norm(ql.trace(net, torch.zeros(1, 3, 32, 32)))
    floats = ql.evaluate(folded, data.evaluation)
    rows = []
    for bits in (8, 6, 4):
        recipe = ql.Recipe(activations=ql.TensorRecipe(scheme="affine", bits=bits, calibrator="mse"))
        quantized = ql.quantize_model(folded, recipe, ql.calibrate(folded, data.calibration, recipe))
        for what, model in (("W8", quantized), ("W32", partly(quantized, weights=()))):
            result = ql.evaluate(model, data.evaluation, reference=folded)
            rows.append(
                {"bits": f"{what}A{bits}", "accuracy": result.accuracy, "agreement": result.agreement,
                 "sqnr_db": round(result.sqnr_db or 0.0, 2)}
            )  # fmt: skip
    return {"float_accuracy": floats.accuracy, "quantized": rows}


def main() -> None:
    """Measure functions alone, then train and measure the networks."""
    parser = argparse.ArgumentParser(description="Compare activation functions before and after quantization.")
    parser.add_argument("--pictures", type=int, default=16_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS, help="the file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    alone = ql.activation_study()
    print(alone)
    images, labels = (torch.from_numpy(array) for array in render_digits(options.pictures, DATA_SEED, 0))
    data, networks = load_data("tiny_resnet"), []
    for seed in range(options.seeds):
        for function in FUNCTIONS:
            net = network(function, seed)
            train(net, (images, labels), options, seed)
            networks.append({"function": function, "seed": seed, **measure(net, data)})
            print(json.dumps(networks[-1]), flush=True)
    result = {
        **head(typed("activation_study.py")),
        "pictures": options.pictures,
        "epochs": options.epochs,
        "alone": alone.to_dict(),
        "networks": networks,
    }
    write(options.output, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
