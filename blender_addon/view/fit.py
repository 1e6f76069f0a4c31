"""The one rule by which what the view shows, rendered or drawn or given as a picture, comes to lie on the
clip's pixels: scaled until it covers the clip, cropped around the centre."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fit:
    """How a frame comes to lie on a clip of `width` x `height` pixels: scaled to `scaled_width` x
    `scaled_height`, of which the clip shows the part from (`left`, `top`) on."""

    width: int
    height: int
    scaled_width: int
    scaled_height: int
    left: int
    top: int

    @property
    def shown(self) -> tuple[float, float, float, float]:
        """The part of the frame that the clip shows: left, top, right, bottom, as fractions from its upper
        left corner."""
        return (
            self.left / self.scaled_width,
            self.top / self.scaled_height,
            (self.left + self.width) / self.scaled_width,
            (self.top + self.height) / self.scaled_height,
        )


def fit(frame_width: float, frame_height: float, width: int, height: int) -> Fit:
    """Fit a frame, whose sizes matter only as their ratio, to a clip. What is cropped is rounded to as many
    whole pixels on either side, so that the centre stays the centre and a render of just the scaled size
    needs no resampling."""
    scale = max(width / frame_width, height / frame_height)
    left = round((frame_width * scale - width) / 2)
    top = round((frame_height * scale - height) / 2)
    return Fit(width, height, width + 2 * left, height + 2 * top, left, top)


def clip_size(scene, long_side: int = 832, multiple: int = 32, view=None) -> tuple[int, int]:
    """(width, height) of a clip of the scene, or of another `view` of it: the longer side nearest to
    `long_side` and the shorter nearest to the frame's aspect, both multiples of `multiple`."""
    from .camera import render_size  # here, for the cameras fit their frames too

    frame_width, frame_height = render_size(scene) if view is None else view.frame_size(scene)

    def nearest(side: float) -> int:
        return max(1, int(side / multiple + 0.5)) * multiple

    longer = nearest(long_side)
    shorter = nearest(longer * min(frame_width, frame_height) / max(frame_width, frame_height))
    return (longer, shorter) if frame_width >= frame_height else (shorter, longer)
