"""Control videos for other models: the clip's poses, labels and depth as pictures, drawn from what the scene
knows and without any server."""

from . import settings

register, unregister = settings.register, settings.unregister
