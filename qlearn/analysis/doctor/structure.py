"""Is the network built as it should be: batch norms folded, nothing in float, bits alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qlearn.analysis.doctor import faults
from qlearn.analysis.doctor.case import most_common
from qlearn.analysis.doctor.finding import Finding, Remedy
from qlearn.analysis.doctor.remedies import effect_of, made_again, more_bits
from qlearn.analysis.lockstep import walk
from qlearn.analysis.metrics import NoiseSums
from qlearn.graph.fold import fold_batch_norm
from qlearn.integer.layers import SHARING_OPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qlearn.analysis.doctor.case import Case
    from qlearn.pipeline.simulate import QuantizedLayer


def check_structure(case: Case) -> Iterator[Finding]:
    """Batch norms that are left, and layers in float."""
    assert case.quantized is not None
    model = case.quantized.model
    left = {node.name for node in fold_batch_norm(model).nodes if node.op == "batch_norm"}
    norms = [node.name for node in model.nodes if node.op == "batch_norm" and node.name not in left]
    if norms:
        text = (
            f"{len(norms)} batch norm{'s' * (len(norms) > 1)} not folded, the first {norms[0]}: "
            "each runs in float between two quantizations, and the layer before it is rounded to a range of no use"
        )
        fold = made_again(case, "fold_batch_norm() first")
        yield Finding("unfolded_batch_norm", norms[0], text, 1.0, {"batch_norms": float(len(norms))}, remedies=(fold,))
    for node in model.nodes:
        if node.op == "float" or node.name in left:
            reason = node.attrs.get("reason", "a batch norm with no layer to fold into")
            text = f"{node.name} stays in float, between dequantize and quantize: {reason}"
            remedy = Remedy("replace it by a layer with an integer kernel, or accept that it runs in float")
            yield Finding("float_layer", node.name, text, 1.0, {}, remedies=(remedy,))


def check_bits(case: Case) -> Iterator[Finding]:
    """Layers with fewer bits than most that do harm; or too few everywhere."""
    assert case.quantized is not None
    layers = case.quantized.layers
    usual = (
        most_common([one.output.bits for one in layers if one.output is not None and one.node.op not in SHARING_OPS]),
        most_common([one.weight_qparams.bits for one in layers if one.weight_qparams is not None]),
    )
    few = {one.node.name: one for one in layers if _fewer(one, usual)}
    own = _own_errors(case, few) if few else {}
    for name, layer in few.items():
        db = own[name].sqnr_db
        if db < faults.FEW_BITS_DB:
            bits = {"weights": layer.weight_qparams, "output": layer.output}
            told = " and ".join(f"{qp.bits} bits for its {what}" for what, qp in bits.items() if qp is not None)
            text = f"{name} has {told}, most layers {max(usual)}: it leaves an SQNR of {db:.1f} dB by itself"
            yield Finding(
                "few_bits", name, text, 0.97, {"own_sqnr_db": db}, remedies=(more_bits(case, name, max(usual)),)
            )
    effect, _ = effect_of(case)
    if min(usual) < 8 and not few and effect is not None and effect.agreement < faults.COLLAPSE_AGREEMENT:
        text = f"All layers have {usual[1]} bits for weights and {usual[0]} for outputs; "
        text += f"agreement with float is {effect.agreement:.0%}"
        yield Finding(
            "few_bits", "all layers", text, 0.9, {"agreement": effect.agreement}, remedies=(more_bits(case, None, 8),)
        )


def _fewer(layer: QuantizedLayer, usual: tuple[int, int]) -> bool:
    if layer.node.op in SHARING_OPS:
        return False
    return any(
        qp is not None and qp.bits < bits for qp, bits in zip((layer.output, layer.weight_qparams), usual, strict=True)
    )


def _own_errors(case: Case, few: dict[str, QuantizedLayer]) -> dict[str, NoiseSums]:
    """The error that each of these layers adds itself."""
    assert case.quantized is not None
    own = dict.fromkeys(few, NoiseSums())
    for x in case.pictures.batches():
        for step in walk(case.quantized, case.quantized.model, x):
            if step.node.name in own:
                own[step.node.name] += NoiseSums.of(step.float_on_quantized(), step.quantized_output)
    return own
