"""One clip of the draft engine: what is prepared once, and each frame from it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shared.messages import NO_FLOW, GenerationRequest
from shared.pose import PoseSequence
from shared.sentences import say

from ...poseanything.conditioning.latent_grid import InputError
from ...poseanything.conditioning.pictures import decode_picture
from ..base import EngineError
from . import regions, segmentation
from .alignment import find_alignment
from .background import Background, stands
from .fitting import fit_limbs
from .layers import cut_parts, lend_parts
from .motion import find_motion
from .outline import Outline
from .reposing import Reposed, repose
from .shadows import Shadow
from .surface import SurfaceDrawer, shows_light
from .surface_motion import SurfaceMotion
from .symmetry import find_mirrors
from .tracks import Tracks, track_limbs, track_pose
from .warping import Drawer

KNOWN = 0.8
"""So much of the subject in the part maps must have a flow, for the flow alone to draw it."""
EXACT_EDGE, GUESSED_EDGE = 2, 4
"""Pixels around the subject that belong to its soft edge, with the truth about its outline and without."""
EASE = 12
"""Frames in which limbs that a picture shows elsewhere come to their poses."""
SLIGHT = 3.0
"""Degrees by which a limb may be turned and count as being where it should."""
STILL = 2.0
"""Pixels: limbs that move less all through a clip say nothing about what hangs together."""


class Clip:
    """Draws the frames of a request in any order, or other poses. `notes` say in sentences what it had to
    leave out or make up."""

    def __init__(self, request: GenerationRequest):
        self.request, self.notes = request, []
        self.posed = np.array(request.conditioned_frames())
        self.image = decode(request.first_frame)
        self.tracks = self.asked = track_limbs(request)
        self.drawer = self.surface = self.outline = None
        in_pose = owners = np.zeros(self.image.shape[:2], np.int16)
        reposed = None
        self._about: Callable[[np.ndarray], np.ndarray] | None = None
        if self.tracks is None:
            self.notes.append(
                say("No limb can be followed from the first frame on, so only the background is shown.")
            )
        else:
            in_pose = segmentation.find_owners(request, self.image, self.tracks)
            reposed, owners = self._align(in_pose)
            if not in_pose.any():
                self.notes.append(
                    say("The pose does not lie over the first frame, so nothing in it moves with the pose.")
                )
            elif owners.any() and self.surface is None:
                owners = self._cut(owners)
        self._owners = owners
        exact = request.first_labels is not None or request.subject_mask is not None
        subject = owners > 0 if reposed is None else reposed.subject
        maps = request.shadow_maps if owners.any() else None
        self.shadow = Shadow.of(maps, self.image, subject, self._about)
        plain, edge = self.shadow.remove(self.image, reposed is None) if self.shadow else (self.image, None)
        soft = EXACT_EDGE if exact and reposed is None else GUESSED_EDGE
        self.background = Background(plain, subject, request.camera_motion, soft, edge, request.backdrop)
        # The maps tell nothing of limbs that are not yet in their poses.
        self._settled = 0 if reposed is None else EASE
        self.outline = Outline.of(request.part_maps, owners if reposed is None else in_pose)

    def _align(self, owners: np.ndarray) -> tuple[Reposed | None, np.ndarray]:
        """Find the limbs in a picture that does not show them in the first pose: the picture brought into
        it, None where it is so or can't be, and bone + 1 of each pixel of the picture."""
        request = self.request
        known = [each for each in (request.first_labels, request.subject_mask) if each is not None]
        if not owners.any():
            return None, owners
        if request.first_frame_in_pose or self.tracks.rest or not any(each.any() for each in known):
            self.surface = self._flowing(owners, self.image)
            return None, owners
        alignment = find_alignment(self.image, owners > 0)
        fit = fit_limbs(self.image, owners, self.tracks, alignment)
        if alignment is not None and not fit.fits:
            self.notes.append(
                say(
                    "The first frame's picture does not show the subject in the first pose, so the draft "
                    "leaves it as it is; render the first frame or pose the rig as the picture shows it."
                )
            )
            return None, np.zeros_like(owners)
        bent = np.unique(self.tracks.limbs[np.abs(fit.bent) > SLIGHT])
        if alignment is None and (not len(bent) or not fit.fits):
            self.surface = self._flowing(owners, self.image)
            return None, owners
        self.notes.append(
            say(
                "The picture shows the subject elsewhere than the first pose does; all come to their poses "
                "within the first {frames} frames."
                if alignment is not None
                else "The picture shows {count} of the limbs elsewhere than the first pose does; all come to "
                "their poses within the first {frames} frames.",
                count=len(bent),
                frames=EASE,
            )
        )
        reposed = repose(self.image, owners, self.tracks, fit)
        self.tracks = fit.ease(self.tracks, EASE)
        self.surface = self._flowing(owners, reposed.picture)
        self._about = lambda plane: fit.warp(plane, owners)
        return reposed, reposed.owners

    def _flowing(self, owners: np.ndarray, image: np.ndarray) -> SurfaceDrawer | None:
        """Draws the subject by its surface from a picture of it in the first pose; None where the request
        does not know the surface of nearly all that is seen in the frames that have a pose."""
        request = self.request
        flow, maps, light = request.surface_flow, request.part_maps, request.light_maps
        if flow is None or maps is None or not owners.any() or self.tracks.rest:
            return None
        told = np.union1d(0, self.posed)
        flowing = np.count_nonzero(flow[told, 0] != NO_FLOW) * maps[0].size / flow[0, 0].size
        if flowing < KNOWN * np.count_nonzero(maps[told]):
            return None
        if light is not None and (
            light.shape[1:] != flow.shape[2:] or not shows_light(image, light[0], owners)
        ):
            light = None
        size = request.width, request.height
        self.cells = SurfaceMotion(flow, light, maps, told, self.asked, self.tracks, size, owners)
        return SurfaceDrawer(image, owners > 0, None if light is None else light[0])

    def _cut(self, owners):
        request, tracks = self.request, self.tracks
        radius = regions.find_thickness(owners, tracks)
        motion = find_motion(tracks, radius, request.width)
        kin = regions.find_kin(tracks, motion, radius)
        owners = regions.smooth_borders(owners, kin, radius)
        joined = regions.find_joined(owners, request.part_maps, tracks, kin, radius)
        if np.abs(tracks.points - tracks.points[tracks.rest]).max() < STILL:
            kin = joined  # nothing tells how the others move against each other
        parts = cut_parts(self.image, owners, tracks, motion, radius, kin, joined)
        mirrors = find_mirrors(request.pose.limbs)
        parts, self._lent, borrowers = lend_parts(parts, owners, tracks, motion, mirrors)
        self._radius, self._focal = radius, motion.focal
        self.drawer = Drawer(parts, motion.carry(*self._lent), request.width, request.height)
        self._describe(owners, borrowers)

        self._bones = np.array([part.rods[0] for part in parts])
        self._bones[len(parts) - len(borrowers) :] = borrowers
        return owners

    def _known(self, index: int) -> list[tuple[int, float, complex]]:
        """The frames whose maps tell of a frame, what each counts, and how far (complex pixels) the subject
        has gone since: the frame itself, or, where it has no pose, those with one before and after it."""
        before, after = self.posed[self.posed <= index], self.posed[self.posed >= index]
        frames = [*before[-1:].tolist(), *after[:1].tolist()] or [index]
        if self.tracks is None:
            return [(frames[0], 1.0, 0j)]
        share = (index - frames[0]) / (frames[-1] - frames[0]) if len(set(frames)) > 1 else 0.0
        there, asked = (each.points.mean(axis=1) @ (1, 1j) for each in (self.tracks, self.asked))
        return [
            (frame, weight, complex(there[index] - asked[frame]))
            for frame, weight in zip(frames, (1 - share, share))
            if weight
        ]

    def _alike(self, tracks: Tracks) -> list[tuple[int, float, complex]]:
        """As `_known`, of another pose, the second of `tracks`: the two of the clip's poses that are most
        like it wherever they are."""
        told = self.posed[self.posed >= self.asked.rest]
        told = told if len(told) else np.array([self.asked.rest])
        shapes = self.asked.points[told] @ np.array([1, 1j])
        now = tracks.points[1] @ np.array([1, 1j])
        centres, centre = shapes.mean(axis=1), now.mean()
        away = np.abs(shapes - centres[:, None] - (now - centre)).mean(axis=1)
        nearest = np.argsort(away, kind="stable")[:2]
        weight = 1 / (away[nearest] + 0.1) ** 2
        return [
            (int(told[row]), float(share), complex(centre - centres[row]))
            for row, share in zip(nearest, weight / weight.sum())
        ]

    def _describe(self, owners, borrowers):
        tracks = self.tracks
        if tracks.rest:
            self.notes.append(
                say("The subject stands still until frame {frame}, the first with a pose.", frame=tracks.rest)
            )
        shown = set(np.unique(tracks.limbs[np.unique(owners[owners > 0]) - 1]).tolist())
        borrowing = set(tracks.limbs[borrowers].tolist()) - shown
        if borrowing:
            self.notes.append(
                say(
                    "1 limb is hidden in the first frame and drawn with the mirror image's picture."
                    if len(borrowing) == 1
                    else "{count} limbs are hidden in the first frame and drawn with the mirror image's "
                    "picture.",
                    count=len(borrowing),
                )
            )
        moving = set(np.unique(self.request.pose.owners).tolist())
        lost = len(moving - shown - borrowing)
        if lost:
            self.notes.append(
                say(
                    "1 limb is not seen in the first frame and left out."
                    if lost == 1
                    else "{count} limbs are not seen in the first frame and left out.",
                    count=lost,
                )
            )

    def _still(self, index: int) -> bool:
        """Whether the subject stands as it did in the first frame."""
        if self.surface is not None:
            return self.cells.still(index)
        return self.tracks is None or self.tracks.still(index)

    def frame(self, index: int) -> np.ndarray:
        """RGB uint8 [height, width, 3]; the first frame itself wherever the clip stands as it did there."""
        if index == 0 or self.background.still(index) and self._still(index):
            return self.image
        behind = self.background.seen(index)
        if self.shadow is not None:
            behind = self.shadow.cast(self._known(index), behind)
        if self.drawer is None and self.surface is None:
            return behind
        if self.surface is not None:
            canvas = behind.copy()
            self.surface.draw(self.cells.at_frame(index), canvas)
            return canvas
        canvas, coverage = self._draw(index, self.tracks, behind)
        # What is known of the frames without a pose is not asked for: the clip is free there.
        if self.outline is not None and index >= self._settled and (self.posed == index).any():
            self.outline.correct(index, canvas, coverage, behind)
        return canvas

    def cut(self) -> None:
        """Make ready for `pose`, which bends parts also where the clip's own frames are drawn by surfaces."""
        if self.drawer is None and self._owners.any():
            self._cut(self._owners)

    def pose(self, pose: PoseSequence, camera_motion: np.ndarray | None) -> np.ndarray:
        """RGB uint8 [height, width, 3] of a pose that is in no frame of the clip, after `cut`; `frame` must
        not be called any more. The subject's shadow is mixed of those of the clip's poses most like it."""
        behind = self.background.seen_by(camera_motion)
        if self.tracks is None:
            return behind.copy()
        width, height = self.request.width, self.request.height
        tracks = track_pose(self.tracks, self.request.pose, pose, width, height)
        if tracks.still(1) and stands(camera_motion):
            return self.image.copy()
        if self.shadow is not None:
            behind = self.shadow.cast(self._alike(tracks), behind)
        if self.drawer is None:
            return behind.copy()
        self.drawer.follow(find_motion(tracks, self._radius, width, self._focal).carry(*self._lent))
        return self._draw(1, tracks, behind)[0]

    def _draw(self, index: int, tracks: Tracks, behind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The parts over what is behind them, and how opaque they are."""
        canvas, coverage = behind.copy(), np.zeros(behind.shape[:2], np.uint8)
        depth = (tracks.depth[index, tracks.heads] + tracks.depth[index, tracks.tails])[self._bones]
        order = np.argsort(-depth, kind="stable")
        self.drawer.draw(index, canvas, coverage, order[tracks.drawn[index, self._bones[order]]])
        return canvas, coverage


def decode(picture: bytes) -> np.ndarray:
    """RGB uint8 [height, width, 3] from a picture file; raises `EngineError` when it can't be read."""
    try:
        return decode_picture(picture, turn=False)
    except InputError as error:
        raise EngineError(str(error), code="invalid") from error
