"""What is compared of two sets of logits: their noise, their softmax, their classes (paper §7.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.analysis.metrics import sqnr_db
from qlearn.errors import DataError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from qlearn.analysis.mixed_precision.choices import Choice

    Logits = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ChoiceLogits:
    """The logits of a network with one tensor quantized, for every choice. `measure_choices` makes it.

    Parameters
    ----------
    reference : ndarray, shape (N, classes), float64
        Logits of the float network.
    logits : mapping of Choice to ndarray, shape (N, classes), float64
    labels : ndarray, shape (N,), int64, or None
    """

    reference: Logits
    logits: Mapping[Choice, Logits]
    labels: NDArray[np.int64] | None

    @property
    def images(self) -> int:
        """Number of pictures."""
        return len(self.reference)

    def sqnr_db(self, choice: Choice) -> float:
        """Return the SQNR of the logits under a choice, in dB."""
        return sqnr_db(self.reference, self.logits[choice])

    def costs(self, measure: str) -> dict[Choice, float]:
        """Return one number per choice, larger where it hurts more: what a search adds up.

        Parameters
        ----------
        measure : str
            ``"sqnr"``: noise power of the logits over their power, 10 ** (-SQNR / 10). Independent noises add up in
            power, decibels do not.
            ``"kl"``: mean Kullback-Leibler divergence of the softmax from the float network's, in nats.
            ``"accuracy"``: accuracy that is lost, as a share; needs labels. On a few hundred pictures most choices
            lose none or one of them, so it tells little apart, and a gain is chance: it counts as 0.

        Raises
        ------
        RecipeError
            If there is no such measure.
        DataError
            If it needs labels and there are none.
        """
        if measure not in MEASURES:
            raise RecipeError(f"no measure {measure!r}: there are {', '.join(MEASURES)}, and hessian_costs()")
        if measure == "accuracy" and self.labels is None:
            raise DataError("measure 'accuracy' needs labels: batches of (images, labels); 'kl' and 'sqnr' need none")
        of = MEASURES[measure]
        return {choice: of(self.reference, logits, self.labels) for choice, logits in self.logits.items()}


def noise_share(reference: Logits, logits: Logits, labels: object = None) -> float:
    """Return the power of the difference over the power of the reference; infinite if that is zero and they differ."""
    noise, power = float(np.square(logits - reference).sum()), float(np.square(reference).sum())
    return noise / power if power else (0.0 if noise == 0 else float("inf"))


def softmax_divergence(reference: Logits, logits: Logits, labels: object = None) -> float:
    """Return the mean over pictures of KL(softmax(reference) || softmax(logits)), in nats, at least 0.

    Examples
    --------
    >>> even, sure = np.zeros((1, 2)), np.array([[0.0, np.log(3.0)]])
    >>> round(softmax_divergence(even, sure), 4)         # half log(2) + half log(2/3)
    0.1438
    """
    p, q = _log_softmax(reference), _log_softmax(logits)
    return max(0.0, float((np.exp(p) * (p - q)).sum(axis=1).mean()))


def accuracy_lost(reference: Logits, logits: Logits, labels: NDArray[np.int64] | None) -> float:
    """Return the accuracy of the reference minus that of the logits, as a share, at least 0."""
    before, after = (float((values.argmax(axis=1) == labels).mean()) for values in (reference, logits))
    return max(0.0, before - after)


MEASURES: dict[str, Callable[[Logits, Logits, Any], float]] = {
    "sqnr": noise_share,
    "kl": softmax_divergence,
    "accuracy": accuracy_lost,
}
"""What `ChoiceLogits.costs` can compute."""


def _log_softmax(logits: Logits) -> Logits:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
