"""Measures a guard: compares it with gold labels, calibrates it, and converts public data sets to gold."""
