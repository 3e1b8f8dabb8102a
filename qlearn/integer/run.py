"""Run the layers of a model in order, and the engine that computes each with the reference kernels."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from qlearn.integer.layers import run_layer
from qlearn.integer.profiles import profile_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from qlearn.engines.spec import Runner, Watch
    from qlearn.integer.layers import IntegerLayer
    from qlearn.integer.model import IntegerModel

Value = TypeVar("Value")


class ReferenceEngine:
    """The NumPy kernels of `qlearn.integer.kernels`, layer by layer: what every other engine is compared with.

    Examples
    --------
    >>> ReferenceEngine()
    ReferenceEngine()
    """

    def prepare(self, model: IntegerModel) -> Runner:
        """Return a function from input codes to output codes. There is nothing to prepare."""
        profile = profile_named(model.policy)
        qparams = {layer.name: layer.output for layer in model.layers}

        def compute(layer: IntegerLayer, values: list[NDArray[Any]]) -> NDArray[Any]:
            return run_layer(layer, [(v, qparams[name]) for v, name in zip(values, layer.inputs, strict=True)], profile)

        def run(codes: NDArray[Any], watch: Watch | None = None) -> NDArray[Any]:
            return in_order(model, codes, compute, watch)

        return run

    def __repr__(self) -> str:
        return "ReferenceEngine()"


def in_order(
    model: IntegerModel,
    first: Value,
    compute: Callable[[IntegerLayer, list[Value]], Value],
    watch: Callable[[IntegerLayer, Value], Any] | None = None,
) -> Value:
    """Compute every layer from the values of its inputs, and return the value of the output.

    Parameters
    ----------
    model : IntegerModel
    first : value
        Of the input layer, in whatever form the engine keeps its values.
    compute : (layer, values of its inputs) -> value
    watch : (layer, value) -> None, optional
        Called with every layer and its value, as soon as it is computed.
    """
    last_read = {name: layer.name for layer in model.layers for name in layer.inputs}
    values: dict[str, Value] = {}
    for layer in model.layers:
        with naming(layer, model):
            values[layer.name] = compute(layer, [values[name] for name in layer.inputs]) if layer.inputs else first
        if watch is not None:
            watch(layer, values[layer.name])
        for name in layer.inputs:  # a value that nobody reads again is let go
            if last_read[name] == layer.name and name != model.output:
                values.pop(name, None)
    return values[model.output]


@contextlib.contextmanager
def naming(layer: IntegerLayer, model: IntegerModel) -> Iterator[None]:
    """Let an error that is raised inside say in which layer of which model it was."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in layer {layer.name!r} ({layer.op}) of {model.name}")
        raise
