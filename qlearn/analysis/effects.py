"""What quantized layers do to the answers of a network: SQNR, agreement, accuracy and divergence of the output (§6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from qlearn.analysis.metrics import NoiseSums, finite
from qlearn.analysis.text import db_text

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Effect:
    """What some quantized layers do to the output of the network.

    Parameters
    ----------
    sqnr_db : float
        SQNR of the logits against the float network's, in dB.
    agreement : float
        Share of pictures on which both choose the same class.
    accuracy : float or None
        Share of pictures whose label is chosen; None without labels.
    kl : float
        Mean Kullback-Leibler divergence of the softmax from the float network's, in nats.
    """

    sqnr_db: float
    agreement: float
    accuracy: float | None
    kl: float

    def to_dict(self) -> dict[str, float | None]:
        """Return the numbers for JSON."""
        return {name: finite(value) for name, value in vars(self).items()}

    def cells(self) -> tuple[str, str, str, str]:
        """Return the numbers as text: SQNR, agreement, accuracy, divergence."""
        accuracy = "-" if self.accuracy is None else f"{self.accuracy:.1%}"
        return db_text(self.sqnr_db), f"{self.agreement:.1%}", accuracy, f"{self.kl:.4f}"


@dataclass(eq=False)
class Scores:
    """The sums of one choice of layers while the batches run."""

    sums: NoiseSums = field(default_factory=NoiseSums)
    images: int = 0
    agreed: int = 0
    right: int = 0
    labelled: int = 0
    kl: float = 0.0

    def see(self, expected: Tensor, logits: Tensor, labels: Tensor | None, *, probabilities: bool) -> None:
        """Add one batch."""
        self.sums += NoiseSums.of(expected, logits)
        self.images += len(logits)
        classes = logits.argmax(1)
        self.agreed += int((classes == expected.argmax(1)).sum())
        if labels is not None:
            self.labelled += len(labels)
            self.right += int((classes == labels).sum())
        p, q = (_log_softmax(values, probabilities=probabilities) for values in (expected, logits))
        self.kl += float(torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum())

    def effect(self) -> Effect:
        """Return the means."""
        accuracy = self.right / self.labelled if self.labelled else None
        return Effect(self.sums.sqnr_db, self.agreed / self.images, accuracy, max(self.kl / self.images, 0.0))


def _log_softmax(values: Tensor, *, probabilities: bool) -> Tensor:
    return values.double().log() if probabilities else values.double().log_softmax(1)
