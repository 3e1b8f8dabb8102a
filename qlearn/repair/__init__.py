"""Repair: what mends a quantized network with data and without training (paper §5.1, 7)."""
