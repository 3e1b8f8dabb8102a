"""A plugin that offers nothing, which is fine."""

from qlearn.hookspecs import hookimpl


@hookimpl
def qlearn_schemes():
    """Return nothing."""
    return []
