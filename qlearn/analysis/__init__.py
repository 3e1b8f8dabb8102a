"""Analysis: how good is the quantized network, and where is it hurt (paper §6, 7)."""
