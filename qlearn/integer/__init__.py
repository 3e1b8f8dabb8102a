"""Integer: requantization, the NumPy reference kernels and the integer model (paper §7, Fig. 10)."""
