"""Skeletons of masks and pictures, and which segment is which over time (stage 3)."""
