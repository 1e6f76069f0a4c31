"""Limbs of drawings that say nothing of them: the curves of a skeleton, and which is which over time."""
