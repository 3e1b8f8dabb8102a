"""The work of ``qlearn mixed``: measure, search, compare, print and save."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qlearn.analysis.mixed_precision import (
    Choice,
    bit_operations,
    hessian_costs,
    hessian_traces,
    measure_choices,
    pareto_front,
    search_bits,
    weight_bytes,
    with_choices,
)
from qlearn.analysis.mixed_precision.choices import options_of
from qlearn.analysis.mixed_precision.measure import offered_choices
from qlearn.analysis.mixed_precision.search import check_budget
from qlearn.analysis.mixed_precision.study import Candidate, MixedRow, compare_mixed, uniform_choices
from qlearn.cli.document import print_json
from qlearn.cli.sources import open_data, open_model, parse_preprocess
from qlearn.errors import MissingDataError, RecipeError
from qlearn.graph.fold import fold_batch_norm
from qlearn.integer.model import IntegerModel
from qlearn.pipeline.calibrate import calibrate
from qlearn.pipeline.quantize import quantize_model
from qlearn.pipeline.recipe import Recipe

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from qlearn.analysis.mixed_precision.resources import Resource
    from qlearn.graph.model import FloatModel
    from qlearn.zoo.data import Splits

Costs = dict[Choice, float]
_PREFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "KiB": 2**10, "MiB": 2**20}


def run(arguments: argparse.Namespace) -> int:
    """Measure, search, compare, print, save."""
    check(arguments)
    preprocess = parse_preprocess(arguments.preprocess)
    model = open_model(arguments.model, arguments.checkpoint, preprocess)
    if isinstance(model, IntegerModel):
        raise RecipeError(f"{arguments.model} is quantized already: mixed needs the float network")
    model, recipe = fold_batch_norm(model), Recipe()
    resource = (weight_bytes if arguments.resource == "bytes" else bit_operations)(model, recipe)
    check_budgets(model, recipe, resource, arguments)  # before the long work
    data = open_data(arguments, preprocess or model.preprocess)
    if arguments.images is not None:
        data = replace(data, evaluation=data.evaluation.subset(arguments.images))
    costs, details = measured(model, recipe, data, arguments)
    rows = searched(costs, resource, arguments)
    floating, table = compare_mixed(
        model, recipe, rows, calibration=data.calibration, evaluation=data.evaluation, workers=arguments.workers
    )
    document = {
        "network": model.name,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": command_line(arguments),
        "versions": {name: version(name) for name in ("torch", "scipy", "numpy")},
        "images": {"sensitivity": min(arguments.sensitivity_images, len(data.calibration)),
                   "calibration": len(data.calibration), "evaluation": len(data.evaluation)},
        "resource": resource.name,
        "float": {"accuracy": floating, "weight_bytes": model.weight_bytes},
        "rows": [row.to_dict() for row in table],
        "costs": {measure: listed(mine) for measure, mine in costs.items()},
        **details,
        **front_of(costs, resource, arguments),
    }  # fmt: skip
    if arguments.output is not None:
        save(model, recipe, rows, data, arguments)
    if arguments.json:
        print_json(document)
    else:
        print(text(document, table))
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Refuse options that could only fail after the long work."""
    if arguments.output is not None and not Path(arguments.output).absolute().parent.is_dir():
        raise MissingDataError(f"--output {arguments.output}: its folder does not exist")
    if arguments.workers < 1:
        raise RecipeError(f"--workers must be at least 1, got {arguments.workers}")
    if "hessian" in arguments.measure and arguments.activation_bits:
        raise RecipeError("measure 'hessian' is about weights: leave --activation-bits out, or measure by kl or sqnr")
    for budget in arguments.budget:
        parse_budget(budget)


def check_budgets(model: FloatModel, recipe: Recipe, resource: Resource, arguments: argparse.Namespace) -> None:
    """Refuse a budget below what the fewest bits take."""
    offered = offered_choices(
        model, recipe, weight_bits=arguments.weight_bits, activation_bits=arguments.activation_bits
    )
    options = options_of(offered)
    for bits, number in map(parse_budget, arguments.budget):
        check_budget(options, resource, number if bits is None else resource.usage(uniform_choices(offered, bits)))


def front_of(costs: Mapping[str, Costs], resource: Resource, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the Pareto front of the first measure as a part of the document, if it was asked for."""
    if not arguments.pareto:
        return {}
    front = pareto_front(next(iter(costs.values())), resource)
    return {"front": {"points": len(front), "shown": [one.to_dict() for one in front.thinned(25)]}}


def measured(
    model: FloatModel, recipe: Recipe, data: Splits, arguments: argparse.Namespace
) -> tuple[dict[str, Costs], dict[str, Any]]:
    """Return the costs by measure, in the order asked for, and what else was found on the way."""
    pictures = data.calibration.subset(min(arguments.sensitivity_images, len(data.calibration)))
    costs: dict[str, Costs] = {}
    details: dict[str, Any] = {}
    if set(arguments.measure) - {"hessian"}:
        found = measure_choices(
            model, recipe, pictures, weight_bits=arguments.weight_bits, activation_bits=arguments.activation_bits
        )
        costs = {measure: found.costs(measure) for measure in arguments.measure if measure != "hessian"}
        details["sqnr_db"] = listed({choice: round(found.sqnr_db(choice), 2) for choice in found.logits})
    if "hessian" in arguments.measure:
        traces = hessian_traces(model, pictures, vectors=arguments.vectors, seed=arguments.seed)
        costs["hessian"] = hessian_costs(model, recipe, traces, weight_bits=arguments.weight_bits)
        details["traces"] = {
            name: {"trace": one.trace, "standard_error": one.standard_error, "weights": one.weights}
            for name, one in traces.items()
        }
    return {measure: costs[measure] for measure in dict.fromkeys(arguments.measure)}, details


def searched(costs: Mapping[str, Costs], resource: Resource, arguments: argparse.Namespace) -> list[Candidate]:
    """Return for each budget the uniform bits (where the budget is that of some), and what the searches find."""
    rows = []
    for wanted in arguments.budget:
        bits, number = parse_budget(wanted)
        budget = number
        if bits is not None:
            uniform = uniform_choices(next(iter(costs.values())), bits)
            budget = resource.usage(uniform)
            rows.append(Candidate(f"uniform {bits} bits", uniform, budget))
        for measure, mine in costs.items():
            for method in dict.fromkeys(arguments.search):
                found = search_bits(mine, resource, budget, method=method)
                rows.append(Candidate(f"{method}, {measure}", found.choices, budget, found.cost))
    return rows


def parse_budget(text: str) -> tuple[int | None, int]:
    """Read ``4bit``, ``40000``, ``40KiB`` or ``2.5G``: bits, or a number.

    Examples
    --------
    >>> parse_budget("4bit"), parse_budget("40KiB"), parse_budget("2.5G")
    ((4, 0), (None, 40960), (None, 2500000000))
    """
    if found := re.fullmatch(r"(\d+)bits?", text):
        return int(found[1]), 0
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(k|M|G|KiB|MiB|)", text)
    if found is None:
        raise RecipeError(f"--budget {text!r}: write 4bit, or a number such as 40000, 40KiB or 2.5G")
    return None, int(float(found[1]) * _PREFIXES[found[2]])


def save(
    model: FloatModel, recipe: Recipe, rows: Sequence[Candidate], data: Splits, arguments: argparse.Namespace
) -> None:
    """Save the integer model of the first search for the last budget."""
    last = next(row for row in rows if row.cost is not None and row.budget == rows[-1].budget)
    mixed = with_choices(recipe, last.choices)
    table = calibrate(model, data.calibration, mixed)
    quantize_model(model, mixed, table).to_integer(arguments.policy).save(arguments.output)


def command_line(arguments: argparse.Namespace) -> str:
    """Return the command that gives this result, for the files that keep it."""
    parts = ["qlearn mixed", arguments.model, "--budget", *arguments.budget, "--measure", *arguments.measure]
    parts += ["--search", *arguments.search, "--sensitivity-images", str(arguments.sensitivity_images)]
    parts += ["--resource", arguments.resource] if arguments.resource != "bytes" else []
    parts += ["--vectors", str(arguments.vectors)] if "hessian" in arguments.measure else []
    parts += ["--activation-bits", *map(str, arguments.activation_bits)] if arguments.activation_bits else []
    parts += ["--pareto"] if arguments.pareto else []
    return " ".join([*parts, "--json"])


def listed(numbers: Mapping[Choice, float]) -> dict[str, dict[str, dict[str, float]]]:
    """Return numbers per choice as layer -> tensor -> bits -> number, for JSON."""
    tree: dict[str, dict[str, dict[str, float]]] = {}
    for choice, number in numbers.items():
        tree.setdefault(choice.layer, {}).setdefault(choice.tensor, {})[str(choice.bits)] = number
    return tree


def text(document: Mapping[str, Any], table: Sequence[MixedRow]) -> str:
    """Return the result as tables: costs and bits of every layer, then the networks."""
    return "\n\n".join([*bit_tables(document), row_table(document, table), *front_table(document)])


def bit_tables(document: Mapping[str, Any]) -> list[str]:
    """Return one table per measure: the cost of every choice, and what the program takes for each budget."""
    tables = []
    for measure, tree in document["costs"].items():
        chosen = [row for row in document["rows"] if row["name"].endswith(f", {measure}")]
        slots = [(layer, tensor) for layer, tensors in tree.items() for tensor in tensors]
        bits = sorted({int(one) for tensors in tree.values() for found in tensors.values() for one in found})
        lines = [f"cost by {measure}, and bits chosen ({'; '.join(row_label(row) for row in chosen)})"]
        lines.append(f"{'':<30}" + "".join(f"{f'{one} bits':>10}" for one in bits) + "   chosen")
        for layer, tensor in slots:
            name = layer if tensor == "weights" else f"{layer} (output)"
            costs = "".join(f"{tree[layer][tensor].get(str(one), float('nan')):>10.2g}" for one in bits)
            taken = " ".join(f"{row['bits'].get(tensor, {}).get(layer, '-'):>2}" for row in chosen)
            lines.append(f"{name:<30}{costs}   {taken}")
        tables.append("\n".join(lines))
    return tables


def row_label(row: Mapping[str, Any]) -> str:
    """Return how a row of the document is called where its budget matters."""
    return f"{row['name'].split(',')[0]} at {row['budget']:,}"


def row_table(document: Mapping[str, Any], table: Sequence[MixedRow]) -> str:
    """Return the networks, one a line."""
    floating = document["float"]
    head = f"{document['network']}, {document['images']['evaluation']} pictures; budget in {document['resource']}"
    lines = [
        head,
        f"{'':<22}{'accuracy':>9}{'SQNR':>7}{'bits':>6}{'packed':>9}{'stored':>9}{'MBOPs':>8}{'cost':>10}  to uniform",
        f"{'float':<22}{floating['accuracy']:>9.2%}{'':>7}{'32':>6}{'':>9}{floating['weight_bytes']:>9,}",
    ]
    for row in table:
        cost = "" if row.candidate.cost is None else f"{row.candidate.cost:.3g}"
        difference = "" if row.against_uniform is None else f"  {row.against_uniform}"
        lines.append(
            f"{row.name:<22}{row.accuracy:>9.2%}{row.sqnr_db:>7.1f}{row.average_bits:>6.2f}{row.packed_bytes:>9,}"
            f"{row.stored_bytes:>9,}{row.bit_operations / 1e6:>8,.0f}{cost:>10}{difference}"
        )
    return "\n".join(
        [*lines, "packed: codes without gaps; stored: one byte per weight, as the integer engines have them"]
    )


def front_table(document: Mapping[str, Any]) -> list[str]:
    """Return the Pareto front, if there is one."""
    if "front" not in document:
        return []
    front = document["front"]
    lines = [f"Pareto front: {len(front['shown'])} of {front['points']} allocations that no other beats"]
    lines.append(f"{document['resource']:>16}{'cost':>12}  bits, layer by layer")
    for one in front["shown"]:
        bits = " ".join(str(b) for found in one["bits"].values() for b in found.values())
        lines.append(f"{one['usage']:>16,}{one['cost']:>12.3g}  {bits}")
    return ["\n".join(lines)]
