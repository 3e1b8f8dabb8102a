"""Numbers: clip ranges, quantization parameters and eq. 1-4 of the paper (§2, §3.1)."""
