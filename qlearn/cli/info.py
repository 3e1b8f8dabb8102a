"""``qlearn info``: what is in a network, or in the zoo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qlearn.cli.document import print_json
from qlearn.cli.sources import open_model, parse_preprocess
from qlearn.integer.model import IntegerModel
from qlearn.zoo.load import available

if TYPE_CHECKING:
    import argparse

    from qlearn.graph.model import FloatModel


def run(arguments: argparse.Namespace) -> int:
    """Describe the network, layer by layer, or list the zoo."""
    if arguments.model is None:
        records = [{"name": entry.name, "summary": entry.summary, "origin": entry.origin} for entry in available()]
        lines = [f"{record['name']:<18} {record['summary']} ({record['origin']})" for record in records]
        if arguments.json:
            print_json(records)
        else:
            print("\n".join(lines))
        return 0
    model = open_model(arguments.model, arguments.checkpoint, parse_preprocess(arguments.preprocess))
    description = describe(model)
    if arguments.json:
        print_json(description)
    else:
        print(_text(description))
    return 0


def describe(model: FloatModel | IntegerModel) -> dict[str, Any]:
    """Return name, kind, input shape, bytes and layers of a network, ready for JSON."""
    common = {
        "name": model.name,
        "input_shape": list(model.input_shape),
        "weight_bytes": model.weight_bytes,
        "preprocess": None if model.preprocess is None else model.preprocess.to_dict(),
    }
    layers: list[dict[str, Any]]
    if not isinstance(model, IntegerModel):
        layers = [
            {
                "name": node.name,
                "op": node.op,
                "inputs": list(node.inputs),
                "shape": _weight_shape(node.params.get("weight")),
            }
            for node in model.nodes
        ]
        return {**common, "kind": "float", "layers": layers}
    layers = [
        {
            "name": layer.name,
            "op": layer.op,
            "inputs": list(layer.inputs),
            "shape": _weight_shape(layer.weight),
            "scale": float(layer.output.scale),
            "zero_point": int(layer.output.zero_point),
            "weight_scales": None if layer.weight_qparams is None else layer.weight_qparams.scale.size,
        }
        for layer in model.layers
    ]
    return {**common, "kind": "integer", "policy": model.policy, "layers": layers}


def _weight_shape(weight: Any) -> list[int] | None:
    return None if weight is None else [int(size) for size in weight.shape]


def _text(d: dict[str, Any]) -> str:
    policy = f", policy {d['policy']}" if d["kind"] == "integer" else ""
    shape = "x".join(map(str, d["input_shape"]))
    lines = [f"{d['name']}: {d['kind']}{policy}, input {shape}, {d['weight_bytes'] / 1024:.1f} KiB of weights"]
    for layer in d["layers"]:
        weights = "" if layer["shape"] is None else "x".join(map(str, layer["shape"]))
        code = f"  scale {layer['scale']:.6g}, zero point {layer['zero_point']}" if "scale" in layer else ""
        lines.append(f"  {layer['name']:<26} {layer['op']:<16} {weights:<14}{code}".rstrip())
    return "\n".join(lines)
