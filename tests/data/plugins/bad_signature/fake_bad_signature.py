"""A plugin written as for a host with callbacks."""

from qlearn.hookspecs import hookimpl


@hookimpl
def qlearn_calibrators(register):
    """Expect an argument that the hook does not have."""
    register("x")
