"""A plugin whose own dependency is missing."""

import acme_core_that_is_not_there  # noqa: F401
