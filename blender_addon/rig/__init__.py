"""Which bones are limbs of the drawing, and where they are in each frame."""

from .properties import register, unregister

__all__ = ("register", "unregister")
