"""The integer model: int8 weights, int32 bias, and nothing else between the input and the logits (paper §7)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import KernelError
from qlearn.integer import reference
from qlearn.integer.layers import check_accumulator, run_layer
from qlearn.integer.profiles import profile_named

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from qlearn.graph.preprocess import Preprocess
    from qlearn.integer.layers import IntegerLayer


@dataclass(frozen=True, eq=False)
class IntegerModel:
    """A network that runs on integers alone, with the NumPy reference kernels.

    ``QuantizedModel.to_integer()`` makes it; ``IntegerModel.load`` reads it from a file.

    Parameters
    ----------
    layers : tuple of IntegerLayer
        In the order in which they run; the first is the input.
    output : str
        The layer whose value the network returns.
    input_shape : tuple of int
        Shape of one input, without the batch.
    policy : str
        A name from `qlearn.integer.profiles`: ``"fixed"`` or ``"float32"``, or the runtime whose integers are wanted.
    name : str
    preprocess : Preprocess or None
        What turns uint8 pictures into the input.

    Raises
    ------
    AccumulatorOverflowError
        If the sum of a layer could leave int32 for some input; the layer is named.
    """

    layers: tuple[IntegerLayer, ...]
    output: str
    input_shape: tuple[int, ...]
    policy: str = "fixed"
    name: str = "network"
    preprocess: Preprocess | None = None

    def __post_init__(self) -> None:
        profile_named(self.policy)
        qparams = {layer.name: layer.output for layer in self.layers}
        for layer in self.layers[1:]:
            check_accumulator(layer, qparams[layer.inputs[0]])

    def __call__(self, x: ArrayLike) -> NDArray[np.float32]:
        """Run the network on preprocessed pictures.

        Parameters
        ----------
        x : array_like, shape (N, *input_shape), float32

        Returns
        -------
        float32 array
            The dequantized value of the output: logits (N, classes) for a classifier.

        Raises
        ------
        KernelError
            If x has another shape, is empty, is not floating point, or holds NaN or Inf.
        """
        return reference.dequantize(self.run(x), self.layer(self.output).output)

    def run(self, x: ArrayLike, watch: Callable[[IntegerLayer, NDArray[Any]], None] | None = None) -> NDArray[Any]:
        """Return the output codes; `watch` is called with every layer and its codes, as soon as they are computed."""
        return self.run_codes(profile_named(self.policy).quantize(self._checked(x), self.layers[0].output), watch)

    def run_codes(
        self, codes: NDArray[Any], watch: Callable[[IntegerLayer, NDArray[Any]], None] | None = None
    ) -> NDArray[Any]:
        """Return the output codes for input codes."""
        profile = profile_named(self.policy)
        qparams = {layer.name: layer.output for layer in self.layers}
        last_read = {name: layer.name for layer in self.layers for name in layer.inputs}
        values: dict[str, NDArray[Any]] = {}
        for layer in self.layers:
            inputs = [(values[name], qparams[name]) for name in layer.inputs]
            try:
                values[layer.name] = run_layer(layer, inputs, profile) if inputs else codes
            except Exception as error:
                error.add_note(f"in layer {layer.name!r} ({layer.op}) of {self.name}")
                raise
            if watch is not None:
                watch(layer, values[layer.name])
            for name in layer.inputs:  # a value that nobody reads again is let go
                if last_read[name] == layer.name and name != self.output:
                    values.pop(name, None)
        return values[self.output]

    def codes(self, x: ArrayLike) -> dict[str, NDArray[Any]]:
        """Return the codes at every site, by name."""
        seen: dict[str, NDArray[Any]] = {}
        self.run(x, watch=lambda layer, value: seen.update({layer.name: value}))
        return seen

    def predict(self, pictures: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the class of each uint8 picture (N, H, W, 3), using the preprocessing stored with the model."""
        if self.preprocess is None:
            raise KernelError(f"{self.name} has no preprocessing stored: call it with preprocessed pictures instead")
        logits = self(self.preprocess.normalize(pictures))
        if logits.ndim != 2:
            raise KernelError(f"{self.name} gives an output of shape {logits.shape}, not one row of logits per picture")
        return np.asarray(logits.argmax(axis=1))

    def layer(self, name: str) -> IntegerLayer:
        """Return the layer of that name; KernelError lists the names if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KernelError(f"no layer {name!r} in {self.name}; there are: {', '.join(n.name for n in self.layers)}")

    def with_policy(self, policy: str) -> IntegerModel:
        """Return the same integers under another profile."""
        return replace(self, policy=policy)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights and biases."""
        return sum(layer.weight_bytes for layer in self.layers)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file that `load` reads back bit for bit. See `qlearn.integer.files.save`."""
        from qlearn.integer import files  # files imports this module

        files.save(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> IntegerModel:
        """Read a model that `save` wrote. See `qlearn.integer.files.load`."""
        from qlearn.integer import files

        return files.load(path)

    def _checked(self, x: ArrayLike) -> NDArray[np.float32]:
        values = np.asarray(x.detach() if hasattr(x, "detach") else x)  # a tensor that requires grad included
        expected = "(N, " + ", ".join(map(str, self.input_shape)) + ")"
        if values.shape[1:] != self.input_shape or values.shape[0] == 0:
            raise KernelError(f"{self.name} takes a batch of shape {expected} with N > 0, got {values.shape}")
        if not np.issubdtype(values.dtype, np.floating):
            raise KernelError(
                f"{self.name} takes real numbers, got {values.dtype}: pictures go through predict(), "
                "integer codes through run_codes()"
            )
        if not np.isfinite(values).all():
            raise KernelError(f"{self.name}: the input holds NaN or Inf")
        return values.astype(np.float32)

    def __repr__(self) -> str:
        return (
            f"IntegerModel {self.name}: {len(self.layers)} layers, input {self.input_shape}, "
            f"policy {self.policy}, {self.weight_bytes} bytes of weights"
        )
