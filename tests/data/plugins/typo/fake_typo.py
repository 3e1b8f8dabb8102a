"""A plugin with a misspelt hook."""

from qlearn.hookspecs import hookimpl


@hookimpl
def qlearn_calibrator():
    """Lack an s."""
    return []
