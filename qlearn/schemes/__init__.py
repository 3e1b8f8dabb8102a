"""Schemes: the rules that turn a clip range into scale and zero point (paper §2.1, 2.2)."""
