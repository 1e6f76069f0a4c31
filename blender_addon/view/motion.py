"""How the static background moves in the picture when the camera does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import bpy
import numpy as np

from ..steps import at_once
from .camera import Lens
from .fit import Fit
from .projection import Projector
from .rays import cast_rays, rays_through

GRID = (24, 14)
"""Rays through the first frame, across and down."""
REACH = 3.0
"""Half widths from the picture's centre within which a moved point still counts for the fit."""
ENOUGH = 8
GRAZING = 0.05
"""Depth, as a fraction of that along its ray from the other camera, below which a corner counts as behind."""


def inverse(matrices: np.ndarray) -> np.ndarray:
    """Of [..., 3, 3] matrices, by their minors: LAPACK's threads wait for each other also over the smallest,
    which takes milliseconds where Blender keeps all cores busy."""
    first, second, third = (matrices[..., column] for column in range(3))
    minors = np.stack([np.cross(second, third), np.cross(third, first), np.cross(first, second)], axis=-2)
    return minors / (first * minors[..., 0, :]).sum(axis=-1)[..., None, None]


def moves(projector: Projector) -> bool:
    """Whether the picture of a still scene changes over the clip."""
    first = projector.pixels[0]
    return bool((np.abs(projector.pixels - first) > 1e-5 * np.abs(first).max()).any())


def faces_start(projector: Projector) -> np.ndarray:
    """[F] bool: whether a frame looks the way the first one does. Where anything that either shows lies
    behind the other's camera, a homography would show it mirrored."""
    if not all(lens.perspective for lens in projector.lenses):
        return np.ones(len(projector.lenses), bool)
    width, height = projector.fit.width, projector.fit.height
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]).T
    turned = projector.pixels[:, :, :3]
    there = turned @ inverse(turned[0])
    depths = np.concatenate([(there @ corners)[:, 2], (inverse(there) @ corners)[:, 2]], axis=1)
    return (depths > GRAZING).all(axis=1)


def camera_motion(
    scene: bpy.types.Scene,
    evaluated: Callable[[], bpy.types.Depsgraph],
    projector: Projector,
    is_subject: Callable[[bpy.types.Object], bool],
) -> Iterator[None]:
    """Homographies from pixels of the first frame to pixels of every frame that the background follows,
    pausing on the way; the generator's return value is [F, 3, 3] float32. `evaluated` gives the scene,
    evaluated at the first frame.

    Exact when the camera only turns and zooms. When it travels too, no homography fits all depths: then it
    is the least squares fit over what a grid of rays through the first frame hits of the scene without its
    subjects; what rays miss is infinitely far away.
    """
    turned = projector.pixels[:, :, :3]  # from directions in world space to homogeneous pixels
    if not _travels(projector):
        return _normalised(turned @ inverse(turned[0]))
    pixels, world = yield from _background(scene, evaluated, projector, is_subject)
    target = np.einsum("frc,nc->fnr", projector.pixels, world)
    depth = np.einsum("fc,nc->fn", projector.depths, world)
    yield
    fitted = []
    for frame, lens in enumerate(projector.lenses):
        ahead = depth[frame] > 1e-6 if lens.perspective else np.ones(len(pixels), bool)
        fitted.append(_least_squares(pixels[ahead], target[frame, ahead], projector.fit))
        if fitted[-1] is None:
            fitted[-1] = turned[frame] @ inverse(turned[0])
        yield
    return _normalised(np.stack(fitted))


class Backdrop:
    """How the static background of a first frame moves with the camera, one moment at a time; as
    `camera_motion`, which knows all moments beforehand. What is behind the subjects is looked for once, when
    the camera first travels."""

    def __init__(self, first: Lens, fit: Fit):
        self.first, self.fit = first, fit
        self._seen: tuple[np.ndarray, np.ndarray] | None = None

    def motion(
        self,
        lens: Lens,
        scene: bpy.types.Scene,
        depsgraph: bpy.types.Depsgraph,
        is_subject: Callable[[bpy.types.Object], bool],
    ) -> np.ndarray | None:
        """[3, 3] float32 from pixels of the first frame to pixels of this moment; None where it stands
        still, or the camera has turned away."""
        projector = Projector([self.first, lens], self.fit)
        if not moves(projector) or not faces_start(projector).all():
            return None
        turned = projector.pixels[:, :, :3]
        fitted = turned[1] @ inverse(turned[0])
        if _travels(projector):
            if self._seen is None:
                self._seen = at_once(_background(scene, lambda: depsgraph, projector, is_subject))
            pixels, world = self._seen
            ahead = world @ projector.depths[1] > 1e-6 if lens.perspective else np.ones(len(pixels), bool)
            found = _least_squares(pixels[ahead], (world @ projector.pixels[1].T)[ahead], self.fit)
            fitted = fitted if found is None else found
        return _normalised(fitted[None])[0]


def _least_squares(pixels: np.ndarray, target: np.ndarray, fit: Fit) -> np.ndarray | None:
    """The homography from `pixels` [N, 2] to homogeneous `target` [N, 3]: normalised direct linear
    transform (Hartley and Zisserman, algorithm 4.2) over those that stay near the picture; None when too
    few points are left."""
    half = max(fit.width, fit.height) / 2
    normal = np.array(
        [[1 / half, 0, -fit.width / 2 / half], [0, 1 / half, -fit.height / 2 / half], [0, 0, 1]]
    )
    x, y = (pixels @ normal[:2, :2].T + normal[:2, 2]).T
    u, v, w = (target @ normal.T).T
    u, v = u / w, v / w
    near = (np.abs(u) < REACH) & (np.abs(v) < REACH)
    if near.sum() < ENOUGH:
        near = np.abs(u) + np.abs(v) < np.inf
    if near.sum() < ENOUGH:
        return None
    x, y, u, v = x[near], y[near], u[near], v[near]
    one, none = np.ones_like(x), np.zeros_like(x)
    rows = np.concatenate(
        [
            np.column_stack([x, y, one, none, none, none, -u * x, -u * y, -u]),
            np.column_stack([none, none, none, x, y, one, -v * x, -v * y, -v]),
        ]
    )
    # Of the 9 x 9 moments, not of all rows: for those the library's threads wait for each other.
    homography = np.linalg.eigh(rows.T @ rows)[1][:, 0].reshape(3, 3)
    return inverse(normal) @ homography @ normal


def _normalised(homographies: np.ndarray) -> np.ndarray:
    """Scaled to a last element of 1, or to the size 1 where that element is next to nothing."""
    size = np.abs(homographies).max(axis=(1, 2))
    last = homographies[:, 2, 2]
    scale = np.where(np.abs(last) > 1e-6 * size, last, size)
    return (homographies / scale[:, None, None]).astype(np.float32)


def _travels(projector: Projector) -> bool:
    if not all(lens.perspective for lens in projector.lenses):
        return True
    views = np.stack([lens.view for lens in projector.lenses])
    places = -np.einsum("fcr,fc->fr", views[:, :3, :3], views[:, :3, 3])
    return bool((np.abs(places - places[0]) > 1e-6 * (1 + np.abs(places[0]).max())).any())


def _background(scene, evaluated, projector: Projector, is_subject) -> Iterator[None]:
    """Pixels [N, 2] of the first frame and the homogeneous world points [N, 4] seen there."""
    fit = projector.fit
    x = (np.arange(GRID[0]) + 0.5) * fit.width / GRID[0]
    y = (np.arange(GRID[1]) + 0.5) * fit.height / GRID[1]
    pixels = np.stack(np.meshgrid(x, y), axis=2).reshape(-1, 2)
    starts, rays = rays_through(projector, pixels)
    found = cast_rays(scene, evaluated(), starts, rays, is_subject)
    yield
    if projector.lenses[0].perspective:
        missed = np.column_stack([rays, np.zeros(len(rays))])
    else:
        missed = np.column_stack([starts, np.ones(len(starts))])
    world = np.array([(*hit.place, 1.0) if hit is not None else miss for hit, miss in zip(found, missed)])
    return pixels, world
