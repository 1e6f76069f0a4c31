"""What the model library takes of torch, diffusers and the hub's client that they don't promise to keep.

Nothing else in the library imports such names, so an upgrade is checked here: each name says what it is
needed for and what to watch. The tests named beside it fail when its meaning changes.
"""
