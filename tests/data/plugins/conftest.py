"""The modules here are broken on purpose: pytest must not import them to look for doctests."""

collect_ignore_glob = ["*"]
