"""A plugin that asks the registry while it is being loaded."""

from qlearn.hookspecs import hookimpl
from qlearn.registry import scheme


@hookimpl
def qlearn_schemes():
    """Ask for a scheme."""
    return [scheme("affine")]
