"""Graph: a traced network as a value, and the passes from network to network (paper §5.1, 7.2)."""
