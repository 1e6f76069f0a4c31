"""Which clips show one subject that is no human and moves (stage 1)."""
