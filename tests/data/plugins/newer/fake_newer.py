"""A plugin for a later qlearn."""

from qlearn.hookspecs import hookimpl
from qlearn.schemes.affine import AffineScheme
from qlearn.schemes.base import SchemeSpec


@hookimpl
def qlearn_schemes():
    """Ask for an interface that does not exist yet."""
    return [SchemeSpec(name="tomorrow", factory=AffineScheme, summary="too early", api_version=99)]
