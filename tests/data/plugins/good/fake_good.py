"""A plugin without a fault: one calibrator, two schemes, an engine."""

from qlearn.calibrators.spec import CalibratorSpec, Trait
from qlearn.engines.spec import EngineSpec
from qlearn.hookspecs import hookimpl
from qlearn.schemes.affine import AffineScheme
from qlearn.schemes.base import SchemeSpec


class Peak:
    """Does next to nothing, with every method of the protocol."""

    def __init__(self, *, channel_axis=None, keep=1.0):
        if keep > 1.0:
            raise ValueError("keep is a share")
        self.channel_axis, self.keep = channel_axis, keep

    def observe(self, x):
        """Look away."""

    def compute_range(self, scheme):
        """Return nothing."""

    def merge(self, other):
        """Take nothing over."""

    def reset(self):
        """Forget nothing."""


class Echo:
    """Gives back what it is given."""

    def prepare(self, model):
        """Have nothing to prepare."""
        return lambda codes, watch=None: codes


@hookimpl
def qlearn_calibrators():
    """Yield, where others return a list."""
    yield CalibratorSpec(
        name="peak",
        factory=Peak,
        summary="the largest value <seen>",
        traits=frozenset({Trait.MERGEABLE}),
        reference="a reference",
    )


@hookimpl
def qlearn_schemes():
    """Return two, out of alphabetical order."""
    return (
        SchemeSpec(name="wide", factory=AffineScheme, summary="affine under another name"),
        SchemeSpec(name="narrow", factory=AffineScheme, summary="affine again"),
    )


@hookimpl
def qlearn_engines():
    """Return one."""
    return [EngineSpec(name="echo", factory=Echo, summary="its input")]
