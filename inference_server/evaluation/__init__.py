"""Measures of generated clips against the truth, with confidence intervals."""
