"""How well does an activation function survive 8 bits? ReLU, ReLU6, sigmoid, SiLU and others by SQNR (paper §4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qlearn.analysis.metrics import finite, sqnr_db
from qlearn.analysis.text import aligned, db_text
from qlearn.errors import DataError
from qlearn.graph.model import Node
from qlearn.graph.ops import FLOAT_OPS, UNARY
from qlearn.integer.layers import code_limits
from qlearn.integer.tables import unary_table
from qlearn.numbers.affine import dequantize, fake_quantize, quantize
from qlearn.pipeline.known import known_output
from qlearn.pipeline.recipe import Recipe, TensorRecipe
from qlearn.pipeline.simulate import clamped
from qlearn.progress import progress
from qlearn.registry import calibrator, scheme

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike
    from torch import Tensor

    from qlearn.graph.model import FloatModel
    from qlearn.numbers.qparams import QParams

CLAMPS = {"relu": (0.0, float("inf")), "relu6": (0.0, 6.0)}
"""Functions that a layer does by itself: limits of its output."""

ACTIVATION_FUNCTIONS = (*CLAMPS, *sorted(UNARY))
"""The names that `activation_study` and `with_activation` take."""


@dataclass(frozen=True)
class ActivationRow:
    """One function on one distribution.

    Parameters
    ----------
    function, distribution : str
    output_db : float
        SQNR in dB if only the output is quantized: what a layer gets that does the function by itself (ReLU, ReLU6).
    table_db : float
        SQNR in dB of the whole way: quantize the input, look the code up (or clamp it), and have the output code.
        What a function gets that is a table behind its layer.
    deployed_db : float
        What an integer network gets: `output_db` for ReLU and ReLU6, which fuse, `table_db` for the others.
    against_relu_db : float
        SQNR of the deployed values against ReLU of the same input: here what the function changes counts as noise.
    """

    function: str
    distribution: str
    output_db: float
    table_db: float
    deployed_db: float
    against_relu_db: float

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON."""
        return {name: value if isinstance(value, str) else finite(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class ActivationStudy:
    """What `activation_study` measured: one row for every function and distribution.

    Parameters
    ----------
    bits : int
    calibrator : str
    rows : tuple of ActivationRow
    """

    bits: int
    calibrator: str
    rows: tuple[ActivationRow, ...]

    def row(self, function: str, distribution: str) -> ActivationRow:
        """Return one row.

        Raises
        ------
        DataError
            If it was not measured.
        """
        for row in self.rows:
            if (row.function, row.distribution) == (function, distribution):
                return row
        raise DataError(f"no row for {function!r} on {distribution!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {"bits": self.bits, "calibrator": self.calibrator, "rows": [row.to_dict() for row in self.rows]}

    def __str__(self) -> str:
        heads = ["function", "input", "output only", "as a table", "deployed", "against ReLU"]
        body = [
            [row.function, row.distribution, *map(db_text, (row.output_db, row.table_db, row.deployed_db,
                                                            row.against_relu_db))]
            for row in self.rows
        ]  # fmt: skip
        return f"{self.bits} bits, {self.calibrator}; SQNR in dB\n{aligned([heads, *body])}"


def normal_inputs(
    scales: Sequence[float] = (0.5, 1.0, 2.0, 4.0, 8.0), *, samples: int = 200_000, seed: int = 0
) -> dict[str, Tensor]:
    """Return normal distributions of several widths, by label: what batch norm leaves before an activation.

    Examples
    --------
    >>> {label: tuple(values.shape) for label, values in normal_inputs([1, 4], samples=10).items()}
    {'N(0, 1)': (10,), 'N(0, 4)': (10,)}
    """
    values = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return {f"N(0, {scale:g})": values * scale for scale in scales}


def activation_study(
    distributions: Mapping[str, ArrayLike] | None = None,
    functions: Sequence[str] = ("relu", "relu6", "sigmoid", "silu", "hard_swish"),
    *,
    recipe: TensorRecipe | None = None,
) -> ActivationStudy:
    """Quantize the input and the output of activation functions, exactly as an integer network does, and measure.

    Parameters
    ----------
    distributions : mapping of label to array_like, floating point, optional
        Inputs of the function; `normal_inputs` if not given.
    functions : sequence of str
        Of `ACTIVATION_FUNCTIONS`.
    recipe : TensorRecipe, optional
        For input and output; the activations of ``Recipe()`` if not given. At most 8 bits, for there are tables.

    Returns
    -------
    ActivationStudy

    Raises
    ------
    DataError
        If a function is unknown, or bits are more than 8.

    References
    ----------
    Paper §4.

    Examples
    --------
    >>> study = activation_study(normal_inputs([1.0], samples=10_000), ["relu", "sigmoid"])
    >>> study.row("relu", "N(0, 1)").deployed_db > 45, study.row("sigmoid", "N(0, 1)").deployed_db > 45
    (True, True)
    """
    recipe = recipe or Recipe().activations
    assert recipe is not None
    inputs = normal_inputs() if distributions is None else distributions
    if unknown := sorted(set(functions) - set(ACTIVATION_FUNCTIONS)):
        raise DataError(f"no function {unknown[0]!r}; there are {', '.join(ACTIVATION_FUNCTIONS)}")
    if recipe.bits > 8:
        raise DataError(f"a table of a function takes codes of at most 8 bits, got {recipe.bits}")
    pairs = [(function, label) for label in inputs for function in functions]
    rows = [
        _row(function, label, torch.as_tensor(np.asarray(inputs[label])).float(), recipe)
        for function, label in progress(pairs, "activations")
    ]
    return ActivationStudy(recipe.bits, recipe.calibrator, tuple(rows))


def _row(function: str, label: str, x: Tensor, recipe: TensorRecipe) -> ActivationRow:
    node = _node(function, "f", ("x",))
    exact = FLOAT_OPS[node.op](node, [x])
    q_in, q_out = _qparams(x, recipe), _output(node, exact, recipe)
    output_only = fake_quantize(exact, q_out)
    codes = quantize(x, q_in)
    if function in CLAMPS:  # on its input's grid, as a ReLU that does not fuse
        through = dequantize(clamped(codes, code_limits(CLAMPS[function], q_in)), q_in)
        deployed = output_only
    else:
        table = torch.from_numpy(unary_table(function, q_in, q_out))
        deployed = through = dequantize(table[codes.long() - q_in.qmin], q_out)
    return ActivationRow(
        function,
        label,
        sqnr_db(exact, output_only),
        sqnr_db(exact, through),
        sqnr_db(exact, deployed),
        sqnr_db(x.relu(), deployed),
    )


def _node(function: str, name: str, inputs: tuple[str, ...]) -> Node:
    if function in CLAMPS:
        return Node(name, "clamp", inputs, {"clamp": CLAMPS[function]})
    return Node(name, "unary", inputs, {"function": function})


def _qparams(values: Tensor, recipe: TensorRecipe) -> QParams:
    observer = calibrator(recipe.calibrator, **recipe.calibrator_params)
    observer.observe(values)
    target = scheme(recipe.scheme, bits=recipe.bits, signed=recipe.signed)
    return target.qparams(observer.compute_range(target))


def _output(node: Node, values: Tensor, recipe: TensorRecipe) -> QParams:
    known = None if node.op == "clamp" else known_output(node, recipe.bits, signed=recipe.signed)
    return known or _qparams(values, recipe)


def with_activation(model: FloatModel, function: str, *, replaced: Iterable[str] = ("relu", "relu6")) -> FloatModel:
    """Return the network with another activation function everywhere, weights unchanged.

    Trained weights were trained for the old function: with the new one the network answers otherwise,
    but how well it survives quantization can be measured against its own float values.

    Parameters
    ----------
    model : FloatModel
        As traced or folded, its activations not fused.
    function : str
        Of `ACTIVATION_FUNCTIONS`.
    replaced : iterable of str
        Which functions give way. Sigmoid is not among them unless told: in a gate it has another job.

    Returns
    -------
    FloatModel
        Same names.

    Raises
    ------
    DataError
        If a function is unknown, or the network has none of those to replace.

    Examples
    --------
    >>> from qlearn.zoo.load import load_network
    >>> net = with_activation(load_network("tiny_resnet"), "silu")
    >>> sorted({node.attrs["function"] for node in net.nodes if node.op == "unary"})
    ['silu']
    """
    wanted = tuple(replaced)
    if unknown := sorted({function, *wanted} - set(ACTIVATION_FUNCTIONS)):
        raise DataError(f"no function {unknown[0]!r}; there are {', '.join(ACTIVATION_FUNCTIONS)}")
    nodes = [_node(function, node.name, node.inputs) if _function_of(node) in wanted else node for node in model.nodes]
    if all(new is old for new, old in zip(nodes, model.nodes, strict=True)):
        raise DataError(f"{model.name} has no {' or '.join(wanted)} of its own (fused activations stay where they are)")
    return replace(model, nodes=tuple(nodes))


def _function_of(node: Node) -> str | None:
    if node.op == "unary":
        return str(node.attrs["function"])
    if node.op == "clamp":
        if any(isinstance(limit, torch.Tensor) for limit in node.attrs["clamp"]):  # one per channel: no ReLU6 any more
            return None
        return next((name for name, limits in CLAMPS.items() if tuple(node.attrs["clamp"]) == limits), None)
    return None
