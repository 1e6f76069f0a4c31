"""What the clip is seen through: projection, fitting, camera motion."""

from .camera import SceneCamera
from .fit import Fit, clip_size, fit
from .viewport import Viewport

__all__ = ("Fit", "SceneCamera", "Viewport", "clip_size", "fit")
