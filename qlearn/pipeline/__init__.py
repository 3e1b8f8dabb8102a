"""Pipeline: from a float network and a recipe to a quantized one (paper §3.3, 5)."""
