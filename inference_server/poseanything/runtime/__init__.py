"""The model on the machine at hand: what fits, where it is placed, and what happens when memory runs out."""
