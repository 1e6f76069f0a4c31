"""Creatures as trees of limbs: their proportions, how they move, and where each limb is in every frame."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

MAX_LIMBS = 12


@dataclass(frozen=True)
class Bone:
    """One limb. Lengths and radii are fractions of the creature's size, angles radians.

    It begins at `attach` (0 the head, 1 the tail) of its `parent`, -1 for the root. `angle` is relative to
    the parent's; `depth` is the distance from the camera relative to the root's, positive behind it. `swing`
    is how far it may turn about its rest.
    """

    parent: int
    attach: float
    length: float
    radius: float
    end_radius: float
    angle: float
    depth: float
    swing: float


@dataclass(frozen=True, eq=False)
class Motion:
    """Where the bones are, in picture coordinates (pixel centres at .5).

    heads, tails: float64 [F, N, 2]. angles, stretch: [F, N], the direction of a bone and how much it is
        foreshortened.
    roll: [F, N] radians, the turn about its own axis since frame 0. camera: [F, 3, 3], the homographies that
    the background follows (`shared.camera`); the bones have them applied. scale: [F], pixels to the
    creature's size.
    """

    heads: np.ndarray
    tails: np.ndarray
    angles: np.ndarray
    stretch: np.ndarray
    roll: np.ndarray
    camera: np.ndarray
    scale: np.ndarray


def make_creature(random: np.random.Generator) -> list[Bone]:
    """A body plan, with random proportions."""
    plan = random.choice(["quadruped", "biped", "chain", "star", "tree"], p=[0.38, 0.22, 0.14, 0.12, 0.14])
    bones = {"quadruped": _quadruped, "biped": _biped, "chain": _chain, "star": _star, "tree": _tree}[plan](
        random
    )
    return bones[:MAX_LIMBS]


def _quadruped(random: np.random.Generator) -> list[Bone]:
    u = random.uniform
    girth = u(0.13, 0.22)
    bones = [Bone(-1, 0, 1.0, girth, girth * u(0.7, 1.05), u(-0.15, 0.15), 0.0, 0.25)]
    bones.append(Bone(0, 1, u(0.25, 0.55), u(0.08, 0.14), u(0.08, 0.13), -u(0.1, 1.1), u(-0.05, 0.05), 0.5))
    bones.append(Bone(1, 1, u(0.2, 0.4), u(0.09, 0.15), u(0.05, 0.1), u(0.2, 1.0), -0.05, 0.5))
    leg, width = u(0.3, 0.5), u(0.06, 0.11)
    for at, side in ((0.08, 1), (0.08, -1), (0.92, 1), (0.92, -1)):
        angle = np.pi / 2 + u(-0.35, 0.35)
        bones.append(Bone(0, at, leg * u(0.9, 1.1), width, width * 0.8, angle, 0.3 * side, 0.7))
        bones.append(
            Bone(
                len(bones) - 1,
                1,
                leg * u(0.75, 1.05),
                width * 0.8,
                width * 0.6,
                u(-0.5, 0.5),
                0.31 * side,
                0.7,
            )
        )
    if random.random() < 0.7:
        bones.insert(3, Bone(0, 0, u(0.3, 0.8), u(0.04, 0.1), u(0.02, 0.08), np.pi + u(-0.8, 0.8), 0.06, 0.8))
        bones[4:] = [_moved(bone, 3) for bone in bones[4:]]
    return bones


def _moved(bone: Bone, place: int) -> Bone:
    """The bone after another was put in at `place`."""
    fields = dict(vars(bone))
    fields["parent"] += bone.parent >= place
    return Bone(**fields)


def _biped(random: np.random.Generator) -> list[Bone]:
    u = random.uniform
    girth = u(0.1, 0.2)
    bones = [Bone(-1, 0, 0.6, girth * u(0.8, 1), girth, -np.pi / 2 + u(-0.2, 0.2), 0.0, 0.3)]
    bones.append(Bone(0, 1, u(0.2, 0.34), u(0.07, 0.1), u(0.1, 0.16), u(-0.2, 0.2), -0.02, 0.5))
    arm, leg, width = u(0.24, 0.38), u(0.32, 0.5), u(0.05, 0.09)
    for side in (1, -1):
        bones.append(Bone(0, 0.9, arm, width, width * 0.85, side * u(1.2, 2.9), 0.12 * side, 1.1))
        bones.append(
            Bone(len(bones) - 1, 1, arm * u(0.8, 1.1), width * 0.85, width * 0.7, u(-1, 1), 0.13 * side, 1.0)
        )
    for side in (1, -1):
        bones.append(Bone(0, 0.05, leg, width * 1.3, width, np.pi + side * u(0.05, 0.35), 0.08 * side, 0.7))
        bones.append(Bone(len(bones) - 1, 1, leg, width, width * 0.7, u(-0.4, 0.4), 0.09 * side, 0.7))
    return bones


def _chain(random: np.random.Generator) -> list[Bone]:
    u, count = random.uniform, int(random.integers(2, 8))
    width, taper = u(0.06, 0.14), u(0.75, 1.0)
    bones = [Bone(-1, 0, u(1.4, 2.0) / count, width, width * taper, u(-np.pi, np.pi), 0.0, 0.3)]
    for index in range(1, count):
        width *= taper
        bones.append(
            Bone(
                index - 1,
                1,
                u(1.3, 2.0) / count,
                width,
                width * taper,
                u(-0.6, 0.6),
                -0.02 * index,
                1.6 / count + 0.3,
            )
        )
    return bones


def _star(random: np.random.Generator) -> list[Bone]:
    u, arms = random.uniform, int(random.integers(3, 7))
    body = u(0.18, 0.3)
    bones = [Bone(-1, 0, body * u(0.3, 1), body, body * u(0.7, 1), u(-np.pi, np.pi), 0.0, 0.3)]
    width, double = u(0.05, 0.1), random.random() < 0.5 and arms <= 5
    for arm in range(arms):
        angle, depth = 2 * np.pi * (arm + u(-0.2, 0.2)) / arms, u(-0.3, 0.3)
        bones.append(Bone(0, 0.5, u(0.4, 0.7), width, width * u(0.6, 1), angle, depth, 0.6))
        if double:
            bones.append(
                Bone(
                    len(bones) - 1, 1, u(0.2, 0.5), width * 0.8, width * 0.5, u(-0.6, 0.6), depth + 0.01, 0.7
                )
            )
    return bones


def _tree(random: np.random.Generator) -> list[Bone]:
    u, count = random.uniform, int(random.integers(4, 10))
    bones = [Bone(-1, 0, u(0.5, 0.9), u(0.1, 0.2), u(0.08, 0.18), u(-np.pi, np.pi), 0.0, 0.3)]
    for _ in range(count):
        parent = int(random.integers(len(bones)))
        width = bones[parent].end_radius * u(0.5, 0.95)
        bones.append(
            Bone(
                parent,
                random.choice([1, u(0, 1)]),
                u(0.25, 0.6),
                width,
                width * u(0.5, 1.1),
                u(-1.6, 1.6),
                u(-0.3, 0.3),
                0.7,
            )
        )
    return bones


@dataclass(frozen=True)
class MotionSettings:
    """What motions are drawn from.

    slowest, fastest: how fast the creature moves; 1 is what most clips have.
    moving_cameras: share of the clips whose camera moves.
    camera_shift: how far it pans or tilts at most in a unit of time, in picture widths.
    """

    slowest: float = 1.0
    fastest: float = 1.0
    moving_cameras: float = 0.4
    camera_shift: float = 0.22


def move(
    random: np.random.Generator,
    bones: list[Bone],
    size: tuple[int, int],
    num_frames: int,
    settings: MotionSettings = MotionSettings(),
) -> Motion:
    """A motion of `num_frames` frames on a picture of (width, height).

    In half of the motions time passes between frame 0 and the next, as in a later window of a long clip.
    """
    width, height = size
    step = random.uniform(0.6, 1.8) / 32
    gap = step if random.random() < 0.5 else random.uniform(1, 64) / 32
    filmed = np.concatenate([[0.0], gap + step * np.arange(num_frames - 1)])
    time = filmed * _pace(random, settings)
    energy = random.uniform(0.3, 1.1)

    def wave(amplitude: float) -> np.ndarray:
        rates, phases = random.uniform(0.2, 1.3, 2), random.random(2)
        shares = (0.75, 0.25)
        return amplitude * sum(
            s * np.sin(2 * np.pi * (r * time + p)) for s, r, p in zip(shares, rates, phases)
        )

    count = len(bones)
    local = np.stack([bone.angle + energy * wave(bone.swing * random.uniform(0.4, 1.2)) for bone in bones], 1)
    short = np.stack([1 - np.abs(wave(energy * random.uniform(0, 0.35))) for _ in bones], 1)
    rolling = random.random() < 0.5
    roll = np.stack([wave(energy * random.uniform(0, 0.9)) if rolling else 0 * time for _ in bones], 1)
    roll -= roll[:1]
    mirrored = -1 if random.random() < 0.5 else 1
    local[:, 0] += random.uniform(-0.3, 0.3)

    scale = random.uniform(0.32, 0.72) * height * (1 + wave(0.12 * energy * (random.random() < 0.4)))
    angles, heads, tails = np.zeros((num_frames, count)), *np.zeros((2, num_frames, count, 2))
    for index, bone in enumerate(bones):
        angles[:, index] = local[:, index] + (angles[:, bone.parent] if bone.parent >= 0 else 0)
    angles = np.where(mirrored < 0, np.pi - angles, angles)
    for index, bone in enumerate(bones):
        along = np.stack([np.cos(angles[:, index]), np.sin(angles[:, index])], 1)
        along *= (bone.length * scale * short[:, index])[:, None]
        if bone.parent >= 0:
            parent = heads[:, bone.parent]
            heads[:, index] = parent + bone.attach * (tails[:, bone.parent] - parent)
        tails[:, index] = heads[:, index] + along

    # It starts near the middle and wanders.
    low, high = (np.minimum(heads[0], tails[0]).min(0), np.maximum(heads[0], tails[0]).max(0))
    start = np.array([width, height]) * random.uniform(0.36, 0.64, 2) - (low + high) / 2
    wander = time[:, None] * random.uniform(-0.25, 0.25, 2) * width * energy
    wander += np.stack([wave(0.04 * width * energy), wave(0.05 * height * energy)], 1)
    path = start + wander - wander[:1]
    heads, tails = heads + path[:, None], tails + path[:, None]
    motion = Motion(heads, tails, angles, short, roll, np.eye(3)[None], scale)
    return _filmed(random, motion, filmed, size, settings)


def _pace(random: np.random.Generator, settings: MotionSettings) -> float:
    """Evenly spread by its logarithm; a single pace takes no random number."""
    if settings.slowest == settings.fastest:
        return settings.fastest
    return float(np.exp(random.uniform(np.log(settings.slowest), np.log(settings.fastest))))


def _filmed(
    random: np.random.Generator,
    motion: Motion,
    time: np.ndarray,
    size: tuple[int, int],
    settings: MotionSettings,
) -> Motion:
    """The motion as a camera sees it, in some clips a moving one: pan, zoom and a slight roll."""
    camera = np.tile(np.eye(3), (len(time), 1, 1))
    if random.random() < 1 - settings.moving_cameras:
        return dataclasses.replace(motion, camera=camera)
    ease = np.sin(np.pi / 2 * time / max(time[-1], 1)) if random.random() < 0.5 else time
    zoom = np.exp(ease * random.uniform(-0.15, 0.25) * (random.random() < 0.6))
    roll = ease * random.uniform(-0.12, 0.12) * (random.random() < 0.3)
    farthest = settings.camera_shift
    shift = ease[:, None] * random.uniform(-farthest, farthest, 2) * size[0]
    camera[:, 0, 0] = camera[:, 1, 1] = zoom * np.cos(roll)
    camera[:, 1, 0] = zoom * np.sin(roll)
    camera[:, 0, 1] = -camera[:, 1, 0]
    centre = np.array(size) / 2
    camera[:, :2, 2] = centre - camera[:, :2, :2] @ centre + shift
    linear, offset = camera[:, :2, :2].transpose(0, 2, 1), camera[:, None, :2, 2]
    return dataclasses.replace(
        motion,
        heads=motion.heads @ linear + offset,
        tails=motion.tails @ linear + offset,
        angles=motion.angles + roll[:, None],
        camera=camera,
        scale=motion.scale * zoom,
    )
