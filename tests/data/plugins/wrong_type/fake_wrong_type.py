"""A plugin that returns a good record and then something else."""

from qlearn.hookspecs import hookimpl
from qlearn.schemes.affine import AffineScheme
from qlearn.schemes.base import SchemeSpec


@hookimpl
def qlearn_schemes():
    """Return a record and a tuple."""
    return [SchemeSpec(name="half", factory=AffineScheme, summary="must not come in"), ("name", AffineScheme)]
