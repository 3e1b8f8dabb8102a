"""What the doctor says: findings, their remedies, and the diagnosis as a whole."""

from __future__ import annotations

import html
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qlearn.analysis.doctor.faults import FAULTS, SEVERITIES
from qlearn.analysis.metrics import finite
from qlearn.analysis.text import db_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from qlearn.analysis.effects import Effect
    from qlearn.analysis.layers import LayerTable
    from qlearn.pipeline.simulate import QuantizedModel

SURE = {0.995: "certain", 0.95: "almost certain", 0.8: "very likely", 0.6: "likely", 0.0: "possible"}
"""Words for a confidence: the first whose number it reaches."""


@dataclass(frozen=True)
class Gain:
    """What a remedy brings on the pictures at hand.

    Parameters
    ----------
    by : str
        ``"accuracy"`` with labels, else ``"agreement"`` with float.
    before, after : float
        Shares of the pictures.
    """

    by: str
    before: float
    after: float

    @property
    def points(self) -> float:
        """Percentage points gained."""
        return 100 * (self.after - self.before)

    def __str__(self) -> str:
        return f"{self.points:+.1f} points of {self.by} here ({self.before:.1%} to {self.after:.1%})"


@dataclass(frozen=True)
class Remedy:
    """One way to mend a fault.

    Parameters
    ----------
    text : str
    mend : callable or None
        Returns the mended network; None where no program can do it.
    gain : Gain or None
        None where it was not measured.
    """

    text: str
    mend: Callable[[], QuantizedModel] | None = field(default=None, compare=False, repr=False)
    gain: Gain | None = None

    def __str__(self) -> str:
        return self.text if self.gain is None else f"{self.text}: {self.gain}"


@dataclass(frozen=True)
class Finding:
    """One fault, in one place.

    Parameters
    ----------
    fault : str
        A key of `FAULTS`.
    site : str
        The layer, or ``"pictures"``, ``"calibration"``, ``"labels"``, ``"outputs"``.
    sentence : str
        What is wrong, in plain words.
    confidence : float
        0 to 1. 1 is what was computed, not inferred.
    evidence : mapping of str to number
        What was measured.
    channels : tuple of int
        The channels concerned, where there are any.
    remedies : tuple of Remedy
    severity : str
        ``"error"``, ``"warning"`` or ``"note"``; that of the fault if not given.
    """

    fault: str
    site: str
    sentence: str
    confidence: float
    evidence: Mapping[str, float]
    channels: tuple[int, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    severity: str = ""

    def __post_init__(self) -> None:
        if not self.severity:
            object.__setattr__(self, "severity", FAULTS[self.fault].severity)

    @property
    def sure(self) -> str:
        """The confidence in words."""
        return next(word for least, word in SURE.items() if self.confidence >= least)

    @property
    def best_gain(self) -> float:
        """Points that the best measured remedy brings; 0 where none was measured."""
        return max((remedy.gain.points for remedy in self.remedies if remedy.gain is not None), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        remedies = [
            {"text": one.text, "gain": None if one.gain is None else vars(one.gain) | {"points": one.gain.points}}
            for one in self.remedies
        ]
        return {
            "fault": self.fault,
            "severity": self.severity,
            "site": self.site,
            "channels": list(self.channels),
            "confidence": self.confidence,
            "sentence": self.sentence,
            "evidence": {key: finite(float(value)) for key, value in self.evidence.items()},
            "remedies": remedies,
        }

    @property
    def line(self) -> str:
        """Severity, sentence, fault and confidence in one line."""
        return f"{self.severity}: {self.sentence} [{self.fault}, {self.sure}]"

    def __str__(self) -> str:
        return told([self])


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found.

    ``diagnosis.healthy`` is True if nothing was found; iterate over it to get the findings, the worst first.

    Parameters
    ----------
    model : str
    images : int
        Pictures that were run.
    findings : tuple of Finding
        The worst first.
    symptoms : tuple of Finding
        What the findings explain.
    skipped : mapping of fault to str
        Faults that could not be looked for, and what was missing.
    effect : Effect or None
        Quantized against float: SQNR, agreement, accuracy. None without a float network.
    float_accuracy : float or None
    layers : LayerTable or None
    warnings : tuple of str
        What limits the examination as a whole.
    """

    model: str
    images: int
    findings: tuple[Finding, ...]
    symptoms: tuple[Finding, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    effect: Effect | None = None
    float_accuracy: float | None = None
    layers: LayerTable | None = None
    warnings: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def faults(self) -> set[str]:
        """The kinds of faults that were found."""
        return {finding.fault for finding in self.findings}

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            "model": self.model,
            "images": self.images,
            "healthy": self.healthy,
            "float_accuracy": self.float_accuracy,
            "effect": None if self.effect is None else self.effect.to_dict(),
            "findings": [finding.to_dict() for finding in self.findings],
            "symptoms": [finding.to_dict() for finding in self.symptoms],
            "skipped": dict(self.skipped),
            "warnings": list(self.warnings),
            "layers": None if self.layers is None else self.layers.to_dict(),
        }

    @property
    def headline(self) -> str:
        """One line: how the quantized network does beside the float one."""
        line = f"{self.model} on {self.images} pictures"
        if self.effect is not None:
            line += f": agreement with float {self.effect.agreement:.1%}, SQNR {db_text(self.effect.sqnr_db)} dB"
            if self.effect.accuracy is not None and self.float_accuracy is not None:
                line += f", accuracy {self.effect.accuracy:.1%} (float {self.float_accuracy:.1%})"
        return line

    @property
    def verdict(self) -> str:
        """One line: how many findings, or none."""
        if self.healthy:
            return f"no finding ({len(FAULTS) - len(self.skipped)} of {len(FAULTS)} kinds of faults were looked for)"
        counts = {kind: sum(one.severity == kind for one in self.findings) for kind in SEVERITIES}
        many = [f"{count} {kind}{'s' * (count > 1)}" for kind, count in counts.items() if count]
        return f"{len(self.findings)} finding{'s' * (len(self.findings) > 1)}: {', '.join(many)}"

    def __str__(self) -> str:
        lines = [
            self.headline,
            *(textwrap.fill(f"warning: {one}", 110, subsequent_indent="  ") for one in self.warnings),
        ]
        lines.append(self.verdict)
        lines += [told(kind) for kind in _kinds(self.findings)]
        if self.symptoms:
            listed = ", ".join(sorted({f"{one.fault} at {one.site}" for one in self.symptoms}))
            lines.append(textwrap.fill(f"explained by these: {listed}", 110, subsequent_indent="  "))
        if self.skipped:
            listed = "; ".join(f"{code} ({why})" for code, why in self.skipped.items())
            lines.append(textwrap.fill(f"not looked for: {listed}", 110, subsequent_indent="  "))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """HTML for notebooks."""
        return f"<pre>{html.escape(str(self))}</pre>"


MOST_OF_A_KIND = 5
"""So many findings with one remedy are written out; where there are more, their layers are listed."""


def told(kind: Sequence[Finding]) -> str:
    """Return findings with the same remedies as text: what they say, and the remedies once."""
    lines = [textwrap.fill(one.line, 110, subsequent_indent="  ") for one in kind[:MOST_OF_A_KIND]]
    if kind[MOST_OF_A_KIND:]:
        listed = f"... and so at {', '.join(one.site for one in kind[MOST_OF_A_KIND:])}"
        lines.append(textwrap.fill(listed, 110, subsequent_indent="  "))
    lines += [
        textwrap.fill(f"- {remedy}", 110, initial_indent="  ", subsequent_indent="    ") for remedy in kind[0].remedies
    ]
    return "\n".join(lines)


def _kinds(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Put findings of one fault with the same remedies together."""
    kinds: dict[tuple[str, ...], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.fault, *map(str, finding.remedies)), []).append(finding)
    return list(kinds.values())
