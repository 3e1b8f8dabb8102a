"""The integer model: int8 weights, int32 bias, and nothing else between the input and the logits (paper §7)."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import KernelError
from qlearn.integer import reference
from qlearn.integer.checks import check_model
from qlearn.integer.profiles import profile_named
from qlearn.integer.run import ReferenceEngine

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray

    from qlearn.engines.spec import Engine, Runner, Watch
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
    engine : str or Engine
        What computes it: ``"reference"``, ``"torch"``, or a plugin's; see `with_engine`. Not part of a saved file.

    Raises
    ------
    KernelError
        If a layer does not fit its inputs, or lacks what its kernel needs; the layer is named.
    AccumulatorOverflowError
        If the sum of a layer could leave its accumulator for some input; the layer is named.
    """

    layers: tuple[IntegerLayer, ...]
    output: str
    input_shape: tuple[int, ...]
    policy: str = "fixed"
    name: str = "network"
    preprocess: Preprocess | None = None
    engine: str | Engine = "reference"

    def __post_init__(self) -> None:
        profile_named(self.policy)
        _ = self.site_shapes  # checks every layer

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

    def run(self, x: ArrayLike, watch: Watch | None = None) -> NDArray[Any]:
        """Return the output codes; `watch` is called with every layer and its codes, as soon as they are computed."""
        return self.run_codes(profile_named(self.policy).quantize(self._checked(x), self.layers[0].output), watch)

    def run_codes(self, codes: NDArray[Any], watch: Watch | None = None) -> NDArray[Any]:
        """Return the output codes for input codes.

        Parameters
        ----------
        codes : integer array, shape (N, *input_shape)
        watch : (layer, codes) -> None, optional

        Raises
        ------
        KernelError
            If they have another shape, are none, or are no codes of the input.
        """
        return self._runner(self._checked_codes(np.asarray(codes)), watch)

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

    def with_engine(self, engine: str | Engine) -> IntegerModel:
        """Return the same model, computed by another engine: the same integers, in another time.

        Parameters
        ----------
        engine : str or Engine
            A name that ``qlearn plugins --kind engine`` lists, or what `qlearn.engine` returned.

        Raises
        ------
        UnknownEngineError
            If nobody offers the name.
        """
        _engine(engine)
        return replace(self, engine=engine)

    @functools.cached_property
    def site_shapes(self) -> dict[str, tuple[int, ...] | None]:
        """The shape at every site for a batch of one; None behind a layer in float, where only running it tells."""
        return check_model(self.layers, self.input_shape, self.output)

    @property
    def weight_bytes(self) -> int:
        """Bytes that all weights and biases take here and in a file: a weight of fewer than 8 bits takes one, too."""
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def packed_bytes(self) -> int:
        """Bytes of all weights and biases if codes were packed without gaps: two weights of 4 bits to a byte.

        No engine of qlearn computes on packed codes; `qlearn.integer.packing.pack_codes` makes them.
        """
        return sum(layer.packed_bytes for layer in self.layers)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file that `load` reads back bit for bit. See `qlearn.integer.files.save`."""
        from qlearn.integer import files  # files imports this module

        files.save(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> IntegerModel:
        """Read a model that `save` wrote. See `qlearn.integer.files.load`."""
        from qlearn.integer import files

        return files.load(path)

    @functools.cached_property
    def _runner(self) -> Runner:
        """The model as its engine prepared it, at the first run."""
        try:
            return _engine(self.engine).prepare(self)
        except Exception as error:
            error.add_note(f"while engine {self.engine!r} prepared {self.name}")
            raise

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and copy take along: not what the engine prepared."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _checked(self, x: ArrayLike) -> NDArray[np.float32]:
        values = np.asarray(x.detach() if hasattr(x, "detach") else x)  # a tensor that requires grad included
        self._check_batch(values.shape)
        if not np.issubdtype(values.dtype, np.floating):
            raise KernelError(
                f"{self.name} takes real numbers, got {values.dtype}: pictures go through predict(), "
                "integer codes through run_codes()"
            )
        if not np.isfinite(values).all():
            raise KernelError(f"{self.name}: the input holds NaN or Inf")
        return values.astype(np.float32)

    def _checked_codes(self, codes: NDArray[Any]) -> NDArray[Any]:
        self._check_batch(codes.shape)
        q = self.layers[0].output
        if codes.dtype.kind not in "iu" or codes.min() < q.qmin or codes.max() > q.qmax:
            raise KernelError(
                f"{self.name} takes integer codes from {q.qmin} to {q.qmax}, got {codes.dtype}"
                + (
                    f" from {codes.min()} to {codes.max()}"
                    if codes.dtype.kind in "iu"
                    else ": real numbers go to run()"
                )
            )
        return codes.astype(q.dtype, copy=False)

    def _check_batch(self, shape: tuple[int, ...]) -> None:
        if shape[1:] != tuple(self.input_shape) or not shape or shape[0] == 0:
            expected = "(N, " + ", ".join(map(str, self.input_shape)) + ")"
            raise KernelError(f"{self.name} takes a batch of shape {expected} with N > 0, got {shape}")

    def __repr__(self) -> str:
        return (
            f"IntegerModel {self.name}: {len(self.layers)} layers, input {self.input_shape}, "
            f"policy {self.policy}, {self.weight_bytes} bytes of weights"
        )


def _engine(engine: str | Engine) -> Engine:
    """The engine of that name; the reference is there without a look at the plugins."""
    if engine == "reference":
        return ReferenceEngine()
    if isinstance(engine, str):
        from qlearn.registry import engine as engine_named  # loads the plugins

        return engine_named(engine)
    if not callable(getattr(engine, "prepare", None)):
        raise KernelError(f"{engine!r} is no engine: it lacks prepare(). qlearn.engine(name) makes one")
    return engine
