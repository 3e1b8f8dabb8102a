"""The doctor: what is wrong with a quantized network, where, how sure that is, and what mends it (paper §7)."""
