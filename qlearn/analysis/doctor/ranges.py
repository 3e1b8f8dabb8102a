"""Are the ranges of the activations right: too wide, too narrow, observed before the ReLU, logits that saturate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qlearn.analysis.doctor import faults
from qlearn.analysis.doctor.finding import Finding, Remedy
from qlearn.analysis.doctor.remedies import made_again
from qlearn.graph.fuse import fuse_activations
from qlearn.integer.layers import SHARING_OPS
from qlearn.pipeline.known import known_output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qlearn.analysis.doctor.case import Case
    from qlearn.pipeline.simulate import QuantizedLayer


def check_ranges(case: Case) -> Iterator[Finding]:
    """Compare the range of every site with the values that the pictures bring there."""
    assert case.quantized is not None
    for layer in case.quantized.layers:
        if layer.output is None or layer.node.op in SHARING_OPS:
            continue  # those take over the range of their input
        if known_output(layer.node, layer.output.bits, signed=layer.output.qmin < 0) is None:
            yield from _width(case, layer)
            yield from _before_relu(case, layer)
    model = case.quantized.model
    names, fused = ({node.name for node in one.nodes} for one in (model, fuse_activations(model)))
    for name in sorted(names - fused):
        text = f"The activation {name} is not fused into the layer before it, whose range is observed before the cut"
        yield Finding("observed_before_relu", name, text, 1.0, {}, remedies=(made_again(case, "fuse_activations()"),))


def _width(case: Case, layer: QuantizedLayer) -> Iterator[Finding]:
    assert layer.output is not None
    name, facts, limits = layer.node.name, case.facts.sites[layer.node.name], layer.output.range
    low, high = float(limits.lo), float(limits.hi)
    evidence = {"range_low": low, "range_high": high, "seen_low": facts.low, "seen_high": facts.high}
    seen = f"the pictures fill {facts.low:.3g} to {facts.high:.3g}"
    if facts.span > 0 and high - low > faults.TOO_WIDE * facts.span:
        times = (high - low) / facts.span
        text = (
            f"{name}: its range, {low:.3g} to {high:.3g}, is {times:.0f} times too wide ({seen}): "
            f"{np.log2(times):.1f} of {layer.output.bits} bits are lost"
        )
        again = made_again(case, "calibrate again; the range of this site is not that of the pictures")
        yield Finding("range_too_wide", name, text, 0.99, evidence | {"times": times}, remedies=(again,))
    elif facts.clip_db < faults.TOO_NARROW_DB:
        text = (
            f"{name}: its range, {low:.3g} to {high:.3g}, cuts what the pictures bring ({seen}): clipping alone leaves "
        )
        text += f"{facts.clip_db:.1f} dB"
        again = made_again(case, "calibrate again, on pictures like these")
        yield Finding("range_too_narrow", name, text, 0.99, evidence | {"clip_db": facts.clip_db}, remedies=(again,))


def _before_relu(case: Case, layer: QuantizedLayer) -> Iterator[Finding]:
    qp = layer.output
    assert qp is not None
    symmetric = int(qp.zero_point) in (0, (qp.qmin + qp.qmax + 1) // 2)
    if layer.clamp is None or layer.node.op == "clamp" or symmetric:
        return
    low = int(np.min(layer.clamp[0]))
    share = (low - qp.qmin) / (qp.qmax - qp.qmin + 1)
    if share < faults.UNREACHABLE:
        return
    text = (
        f"{layer.node.name}: its range starts at {float(qp.range.lo):.3g}, but its ReLU gives nothing below "
        f"{float(qp.scale) * (low - int(qp.zero_point)):.3g}: {share:.0%} of the codes are never used. "
        "The range was observed before the ReLU"
    )
    again = made_again(case, "fuse_activations() before calibrating")
    yield Finding("observed_before_relu", layer.node.name, text, 0.98, {"unreachable": share}, remedies=(again,))


def check_saturation(case: Case) -> Iterator[Finding]:
    """Count pictures on which several logits share the largest code of all."""
    facts = case.facts
    if facts.codes is None or facts.limits is None or facts.codes.shape[1] < 2:
        return
    at_top = (facts.codes >= facts.limits[1]).sum(dim=1)
    share = float((at_top > 1).double().mean())
    if share <= faults.SATURATED:
        return
    ties = float(at_top[at_top > 1].double().mean())
    evidence = {"share": share, "logits_at_the_top": ties}
    text = (
        f"On {share:.0%} of the pictures {ties:.1f} logits on average share the largest code, "
        f"{facts.limits[1]}: the answer is decided by their order. The range of the logits is too narrow"
    )
    name = case.quantized.model.output if case.quantized is not None else "outputs"
    wider = made_again(case, "calibrate again; for the logits, minmax or mse keeps the largest")
    remedy = (
        wider if case.quantized is not None else Remedy("calibrate again; for the logits, minmax keeps the largest")
    )
    yield Finding("saturated_logits", name, text, 0.99, evidence, remedies=(remedy,))
