"""How a long clip is divided into windows that the model makes at once."""

from __future__ import annotations

from dataclasses import dataclass

OVERLAP_LATENTS = 4
"""Latent frames that a window shares with the one before: 16 pixel frames of Wan's VAE, 17 with the first."""


@dataclass(frozen=True)
class Window:
    """Latent frames `start` to `stop` of a clip, made at once with latent frame 0 before them.

    Frame 0, the user's own picture, is in every window: later frames look back at it, not at a generated one.

    held: how many of its frames, from `start` on, the window before has made and this one continues from.
    blended: how many after these are in both windows, and fade from the one to the other.
    """

    start: int
    stop: int
    held: int = 0
    blended: int = 0

    @property
    def frames(self) -> list[int]:
        """The clip's latent frames in this window's order."""
        return [0, *range(self.start, self.stop)]

    def place(self, frame: int) -> int:
        """Where a latent frame of the clip is among this window's."""
        return frame - self.start + 1 if frame else 0

    @property
    def final(self) -> int:
        """How many latent frames of the clip are final before this window is made."""
        return self.start + self.held if self.start > 1 else 0

    @property
    def weights(self) -> list[float]:
        """By frame, how much of what is there already stays: 1 of frame 0 and the held ones, 0 of the new
        ones."""
        fade = [1 - (i + 1) / (self.blended + 1) for i in range(self.blended)]
        new = self.stop - self.start - self.held - self.blended
        return [1.0] * (1 + self.held) + fade + [0.0] * new


def plan_windows(
    latent_frames: int, at_once: int, overlap: int = OVERLAP_LATENTS, blended: int | None = None
) -> list[Window]:
    """Windows of at most `at_once` latent frames (3 at least), frame 0 included, as equal in length as can
    be.

    Args:
        latent_frames: of the whole clip.
        overlap: latent frames that neighbours share, at most half of a window.
        blended: the last of these, which fade into each other while those before are held; by default half.
    """
    later, room = latent_frames - 1, max(at_once - 1, 2)
    overlap = max(1, min(overlap, room // 2))
    count = 1 if later <= room else 1 - (room - later) // (room - overlap)
    length, longer = divmod(later + (count - 1) * overlap, count)
    blended = overlap // 2 if blended is None else min(blended, overlap - 1)
    windows, start = [], 1
    for number in range(count):
        stop = start + length + (number < longer)
        windows.append(Window(start, stop, overlap - blended, blended) if number else Window(start, stop))
        start = stop - overlap
    return windows
