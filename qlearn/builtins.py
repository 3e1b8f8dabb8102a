"""The plugin that qlearn brings itself; it comes in through the hooks, as anybody's does."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qlearn.calibrators.spec import CalibratorSpec, Trait
from qlearn.engines.spec import EngineSpec
from qlearn.hookspecs import hookimpl
from qlearn.schemes.base import SchemeSpec

if TYPE_CHECKING:
    from qlearn.schemes.base import Scheme


@dataclass(frozen=True)
class LazyFactory:
    """A class that is imported when it is first called, or first asked for its parameters.

    Listing the plugins therefore imports no torch.

    Parameters
    ----------
    target : str
        ``"package.module:Class"``.

    Examples
    --------
    >>> affine = LazyFactory("qlearn.schemes.affine:AffineScheme")
    >>> affine(bits=4).qmin
    -8
    >>> list(inspect.signature(affine).parameters)
    ['bits', 'signed']
    """

    target: str

    def __call__(self, **params: Any) -> Any:
        """Import the class and make one."""
        return self._load()(**params)

    def __getattr__(self, name: str) -> Any:
        if name == "__signature__":  # inspect.signature(factory) shows the parameters of the class
            return inspect.signature(self._load())
        raise AttributeError(name)

    def _load(self) -> Any:
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)


def _symmetric_restricted(*, bits: int = 8, signed: bool = True) -> Scheme:
    from qlearn.schemes.symmetric import SymmetricScheme  # lazy, like every factory here

    return SymmetricScheme(bits=bits, signed=signed, restricted=True)


_HISTOGRAM = (Trait.MERGEABLE, Trait.APPROXIMATE)  # exact merge, ranges up to the width of a bin

# name, class, summary, traits, reference
_CALIBRATORS = (
    ("minmax", "minmax:MinMax", "full observed range", (Trait.MERGEABLE,), "paper §7.5"),
    (
        "moving_average",
        "moving_average:MovingAverage",
        "moving average of each batch's extremes",
        (Trait.ORDER_DEPENDENT,),
        "paper §7.5",
    ),
    ("mean_std", "mean_std:MeanStd", "mean plus and minus k standard deviations", _HISTOGRAM, "paper §7.5"),
    ("percentile", "percentile:Percentile", "percentile of absolute values, or of each tail", _HISTOGRAM, "paper §7.5"),
    (
        "entropy",
        "entropy:Entropy",
        "least Kullback-Leibler divergence",
        (*_HISTOGRAM, Trait.SCALE_DEPENDENT),
        "paper §7.5; Migacz 2017",
    ),
    ("mse", "mse:Mse", "least mean squared error", _HISTOGRAM, "Max 1960"),
)


@hookimpl
def qlearn_calibrators() -> list[CalibratorSpec]:
    """Return the calibrators of the library."""
    return [
        CalibratorSpec(
            name=name,
            factory=LazyFactory(f"qlearn.calibrators.{target}Calibrator"),
            summary=summary,
            traits=frozenset(traits),
            reference=reference,
        )
        for name, target, summary, traits, reference in _CALIBRATORS
    ]


@hookimpl
def qlearn_schemes() -> list[SchemeSpec]:
    """Return the schemes of the library."""
    return [
        SchemeSpec(
            name="affine",
            factory=LazyFactory("qlearn.schemes.affine:AffineScheme"),
            summary="scale and zero point: the integers span [lo, hi]",
            reference="paper §2.2",
        ),
        SchemeSpec(
            name="symmetric",
            factory=LazyFactory("qlearn.schemes.symmetric:SymmetricScheme"),
            summary="zero point 0, full range such as [-128, 127]",
            reference="paper §2.1",
        ),
        SchemeSpec(
            name="symmetric_restricted",
            factory=_symmetric_restricted,
            summary="zero point 0 without the most negative integer, such as [-127, 127]",
            reference="paper §2.1",
        ),
    ]


@hookimpl
def qlearn_engines() -> list[EngineSpec]:
    """Return the engines of the library."""
    return [
        EngineSpec(
            name="reference",
            factory=LazyFactory("qlearn.integer.run:ReferenceEngine"),
            summary="the NumPy kernels, written to be read",
            reference="paper §7",
        ),
        EngineSpec(
            name="torch",
            factory=LazyFactory("qlearn.integer.torch_engine:TorchEngine"),
            summary="the same integers from torch's int8 convolutions",
            reference="paper §3.5",
        ),
    ]
