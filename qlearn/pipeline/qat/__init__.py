"""Quantization-aware training (paper §8): grids that learn, layers on them, the network made of those, its training."""
