"""A plugin that takes the name of a built-in."""

from qlearn.hookspecs import hookimpl
from qlearn.schemes.base import SchemeSpec
from qlearn.schemes.symmetric import SymmetricScheme


@hookimpl
def qlearn_schemes():
    """Offer what qlearn has."""
    return [SchemeSpec(name="affine", factory=SymmetricScheme, summary="not affine at all")]
