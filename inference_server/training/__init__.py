"""Training: the three stages of the paper, and the small model."""
