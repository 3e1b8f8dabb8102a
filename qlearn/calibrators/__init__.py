"""Calibrators: the algorithms that look at data and pick a clip range (paper §7.5)."""
