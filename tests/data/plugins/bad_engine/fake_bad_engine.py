"""A plugin whose engines are no records, and whose scheme is fine."""

from qlearn.hookspecs import hookimpl
from qlearn.schemes.affine import AffineScheme
from qlearn.schemes.base import SchemeSpec


@hookimpl
def qlearn_engines():
    """Return a scheme where an engine is expected."""
    return [SchemeSpec(name="not_an_engine", factory=AffineScheme, summary="a scheme")]


@hookimpl
def qlearn_schemes():
    """Work."""
    return [SchemeSpec(name="beside_the_engine", factory=AffineScheme, summary="from the hook that works")]
