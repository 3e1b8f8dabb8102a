"""A plugin with one hook that raises and one that works."""

from qlearn.hookspecs import hookimpl
from qlearn.schemes.affine import AffineScheme
from qlearn.schemes.base import SchemeSpec


@hookimpl
def qlearn_calibrators():
    """Raise, half way through."""
    yield from ()
    raise ValueError("the coffee\nis cold")


@hookimpl
def qlearn_schemes():
    """Work."""
    return [SchemeSpec(name="survivor", factory=AffineScheme, summary="from the hook that works")]
