"""Export to LiteRT: a .tflite file that computes the same integers as the integer model (paper §3.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qlearn.errors import ExportError
from qlearn.export.litert_build import LiteBuilder, refuse
from qlearn.export.litert_layers import emit
from qlearn.export.litert_write import lite_bytes
from qlearn.integer.checks import multiplier
from qlearn.integer.files import write_whole

if TYPE_CHECKING:
    import os

    from qlearn.export.litert_graph import LiteGraph
    from qlearn.integer.model import IntegerModel

PROFILES = ("litert_reference", "xnnpack")
"""The profiles that a .tflite file can promise."""

LARGEST_RATIO, LARGEST_RATIO_OF_A_SUM = 2.0**8, 2.0**14
"""Output steps of one input step (or product of steps), up to which LiteRT was found to compute what a profile says."""


def export_litert(model: IntegerModel, path: str | os.PathLike[str]) -> None:
    """Write an integer model as a .tflite file.

    LiteRT's default interpreter (XNNPACK) computes the integers of ``model.with_policy("xnnpack")``,
    its reference kernels those of ``model.with_policy("litert_reference")``.
    Input and output are int8, (N, H, W, C) with N = 1; uint8 codes of the model are 128 lower in the file.

    Parameters
    ----------
    model : IntegerModel
        Under one of the two profiles, so that nobody compares with other integers than the file computes.
    path : path-like
        By custom ``something.tflite``.

    Raises
    ------
    ExportError
        If the model has another profile, or a layer that LiteRT cannot run; it is named.
    MissingDependencyError
        If ai-edge-litert is not installed.

    References
    ----------
    Paper §3.5.
    """
    if model.policy not in PROFILES:
        raise ExportError(
            f"{model.name} has the policy {model.policy!r}, and LiteRT computes otherwise: export "
            f"model.with_policy({PROFILES[1]!r}) (the default interpreter) or with_policy({PROFILES[0]!r})"
        )
    content = lite_bytes(litert_graph(model))
    write_whole(path, content, ExportError)


def litert_graph(model: IntegerModel) -> LiteGraph:
    """Return what the file says, as plain values."""
    _check_multipliers(model)
    if model.policy == "xnnpack":
        _check_means(model)
    builder, first = LiteBuilder(), model.layers[0]
    sites = {first.name: builder.site(first.name, (1, *model.input_shape), first.output, first.name)}
    for layer in model.layers[1:]:
        shape = model.site_shapes[layer.name]
        if shape is None:
            raise refuse(layer, f"it runs in float ({layer.attrs.get('reason', 'no integer kernel')}). Replace it")
        sites[layer.name] = emit(builder, layer, [sites[name] for name in layer.inputs], shape)
    return builder.graph([sites[first.name]], [sites[model.output]], model.name)


def _check_multipliers(model: IntegerModel) -> None:
    """Beyond these ratios LiteRT's products wrap around, and its sums end the whole program."""
    for layer in model.layers[1:]:
        ratio = multiplier(layer, [model.layer(name).output for name in layer.inputs])
        if ratio >= (LARGEST_RATIO_OF_A_SUM if layer.op in ("add", "subtract") else LARGEST_RATIO):
            raise refuse(layer, f"its output has steps {ratio:.3g} times finer than what it is computed from")


def _check_means(model: IntegerModel) -> None:
    """XNNPACK adds the zero points of a mean in float32: 128 lower, one in a million codes would round otherwise."""
    for layer in model.layers:
        unsigned = [name for name in (*layer.inputs, layer.name) if model.layer(name).output.qmin == 0]
        if layer.op in ("mean", "global_avg_pool") and unsigned:
            raise refuse(
                layer,
                "uint8 codes become int8 in the file, and XNNPACK then rounds the mean otherwise, now and then. "
                "Quantize with signed=True, or export with_policy('litert_reference')",
            )
