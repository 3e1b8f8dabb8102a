"""One of two plugins that want the same name."""

from qlearn.hookspecs import hookimpl
from qlearn.schemes.base import SchemeSpec
from qlearn.schemes.symmetric import SymmetricScheme


@hookimpl
def qlearn_schemes():
    """Offer the name that the other one offers."""
    return [SchemeSpec(name="twin", factory=SymmetricScheme, summary="twin a")]
