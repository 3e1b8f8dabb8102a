"""Zoo: networks and pictures by name: two that ship with qlearn, three that are fetched once (paper §4)."""
