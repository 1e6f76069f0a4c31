"""Pictures of a moving creature: textured limbs with light, shadows on a textured background, and what
passes in front."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from .creatures import Bone, Motion

PAD = 2


@dataclass(frozen=True, eq=False)
class Painting:
    """frames: uint8 [F, H, W, 3]. labels: uint8 [F, H, W], limb index + 1 of the limb that is seen, 0
    elsewhere."""

    frames: np.ndarray
    labels: np.ndarray


def noise(random: np.random.Generator, height: int, width: int, cell: float, channels: int = 3) -> np.ndarray:
    """Smooth noise of about unit variance, float32 [height, width, channels], its grain `cell` pixels
    wide."""
    shape = (max(2, int(height / cell) + 2), max(2, int(width / cell) + 2), channels)
    coarse = random.standard_normal(shape).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)


def pattern(random: np.random.Generator, height: int, width: int, palette: np.ndarray) -> np.ndarray:
    """A coloured surface, float32 [height, width, 3] in 0..255: plain, striped, spotted, chequered or
    worn."""
    base, other = palette[random.integers(len(palette), size=2)]
    grain = random.uniform(2, 26)
    image = base + grain * noise(random, height, width, random.uniform(2, 6))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    kind = random.integers(5)
    if kind == 1:
        across = x * random.uniform(-1, 1) + y * random.uniform(-1, 1)
        mask = np.sin(across * random.uniform(0.3, 1.3) + random.uniform(0, 6)) > random.uniform(-0.4, 0.6)
    elif kind == 2:
        mask = noise(random, height, width, random.uniform(3, 9), 1)[..., 0] > random.uniform(0.1, 0.9)
    elif kind == 3:
        period = random.uniform(4, 14)
        mask = ((x // period + y // period) % 2).astype(bool)
    else:
        return image.clip(0, 255)
    return np.where(mask[..., None], other + grain * 0.6 * noise(random, height, width, 3), image).clip(
        0, 255
    )


def paint(random: np.random.Generator, bones: list[Bone], motion: Motion, size: tuple[int, int]) -> Painting:
    """Paint a clip of (width, height)."""
    width, height = size
    num_frames, count = motion.angles.shape
    skins = [_Skin(random, bone, float(motion.scale.max())) for bone in _with_palette(random, bones)]
    world = _Background(random, size)
    light, contrast = random.uniform(0, 2 * math.pi), random.uniform(0.1, 0.5)
    ambient = random.uniform(0.9, 1.1, 3).astype(np.float32)
    shadow = _Shadow(random, size)
    occluder = _Occluder(random, size) if random.random() < 0.12 else None
    order = np.argsort([-bone.depth for bone in bones], kind="stable")

    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    labels = np.zeros((num_frames, height, width), np.uint8)
    for frame in range(num_frames):
        canvas = world.seen(motion.camera[frame])
        layers = []
        for index in order:
            layer = skins[index].seen(
                motion.heads[frame, index],
                *(float(each[frame, index]) for each in (motion.angles, motion.stretch, motion.roll)),
                float(motion.scale[frame]),
                light,
                contrast,
                size,
            )
            if layer is not None:
                layers.append((index, *layer))
        shadow.cast(canvas, layers, motion, frame)
        for index, area, colour, alpha in layers:
            canvas[area] += alpha[..., None] * (colour * ambient - canvas[area])
            labels[frame][area][alpha > 0.5] = index + 1
        if occluder is not None:
            occluder.cover(canvas, labels[frame], motion.camera[frame])
        frames[frame] = np.rint(canvas).clip(0, 255)
    return Painting(frames, labels)


def _with_palette(random: np.random.Generator, bones: list[Bone]) -> list[tuple[Bone, np.ndarray]]:
    base = random.uniform(15, 240, 3)
    spread = random.choice([12, 40, 110])
    palette = (base + random.normal(0, spread, (4, 3))).clip(8, 247).astype(np.float32)
    return [(bone, palette) for bone in bones]


class _Skin:
    """A limb as a tapered capsule whose pattern goes around it, so that a turn about its axis shows its
    other side."""

    def __init__(self, random: np.random.Generator, bone: tuple[Bone, np.ndarray], scale: float):
        bone, palette = bone
        self.radii = max(bone.radius * scale, 1.3), max(bone.end_radius * scale, 1.0)
        self.length = max(bone.length * scale, 1.0)
        self.scale = scale
        widest = max(self.radii)
        self.centre = widest + PAD
        shape = int(np.ceil(2 * self.centre)) + 1, int(np.ceil(self.length + 2 * self.centre)) + 1
        y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
        along = np.clip((x - self.centre) / self.length, 0, 1)
        radius = self.radii[0] + (self.radii[1] - self.radii[0]) * along
        radius = radius * (1 + random.uniform(0, 0.25) * np.sin(np.pi * along))  # flesh
        distance = np.hypot(x - self.centre - along * self.length, y - self.centre)
        self.alpha = np.clip(radius - distance + 0.5, 0, 1)
        self.across = np.clip((y - self.centre) / np.maximum(radius, 1), -1, 1)
        self.facing = np.sqrt(1 - self.across**2)
        around = int(np.ceil(2 * np.pi * widest))
        self.around = pattern(random, around, shape[1], palette)
        self.around = np.concatenate([self.around, self.around[:1]]).astype(np.float32)  # closed
        self.column = x
        self.turn = np.arcsin(self.across) * (around / (2 * np.pi))
        self.circumference = around
        self.gloss = random.uniform(0, 60) * (random.random() < 0.35)
        self.still = self._surface(0.0)

    def _surface(self, roll: float) -> np.ndarray:
        row = (self.turn + (roll / (2 * np.pi) + 0.5) * self.circumference) % self.circumference
        return cv2.remap(
            self.around,
            self.column,
            row.astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def seen(self, head, angle, stretch, roll, scale, light, contrast, size):
        """(area, colour [h, w, 3], alpha [h, w]) where it lies in the picture; None when it is out of it."""
        cos, sin, k = math.cos(angle), math.sin(angle), scale / self.scale
        matrix = np.array([[cos * stretch * k, -sin * k], [sin * stretch * k, cos * k]])
        ends = (
            head
            - 0.5
            + np.array([[0.0, 0.0], [self.length * stretch * k * cos, self.length * stretch * k * sin]])
        )
        reach = self.centre * k + 1
        low = np.maximum(np.floor(ends.min(0) - reach), 0).astype(int)
        high = np.minimum(np.ceil(ends.max(0) + reach) + 1, size).astype(int)
        if (high <= low).any():
            return None
        surface = self.still if abs(roll) < 0.02 else self._surface(roll)
        side = math.cos(light) * -sin + math.sin(light) * cos
        shade = 1 - contrast + contrast * 1.35 * (self.across * side + self.facing * 0.65)
        colour = surface * shade[..., None]
        if self.gloss:
            colour += self.gloss * np.clip(self.across * side + self.facing * 0.8 - 0.75, 0, 1)[..., None] * 3
        offset = ends[0] - matrix @ (self.centre, self.centre) - low
        affine = np.concatenate([matrix, offset[:, None]], 1)
        packed = np.concatenate([colour * self.alpha[..., None], self.alpha[..., None]], 2).astype(np.float32)
        warped = cv2.warpAffine(packed, affine, tuple(int(n) for n in high - low), flags=cv2.INTER_LINEAR)
        alpha = warped[..., 3]
        colour = warped[..., :3] / np.maximum(alpha, 1e-3)[..., None]
        return (slice(low[1], high[1]), slice(low[0], high[0])), colour, alpha


class _Background:
    """A world larger than the picture: noise at several scales, shapes, sometimes a floor or plain studio
    grey."""

    def __init__(self, random: np.random.Generator, size: tuple[int, int]):
        self.size = size
        self.margin = np.array(size) // 2
        width, height = 2 * np.array(size)
        base = random.uniform(40, 215, 3).astype(np.float32)
        kind = random.random()
        if kind < 0.15:
            image = np.broadcast_to(base, (height, width, 3)).astype(np.float32)
        else:
            image = base + sum(
                random.uniform(0, strength) * noise(random, height, width, cell)
                for strength, cell in ((35, 40), (22, 12), (12, 5), (6, 2))
            )
        y = np.arange(height, dtype=np.float32)[:, None, None] / height
        image = image + random.normal(0, 25, 3) * (y - 0.5)
        if random.random() < 0.45:  # a floor
            horizon = int(height * random.uniform(0.45, 0.72))
            palette = random.uniform(30, 225, (3, 3)).astype(np.float32)
            floor = pattern(random, height - horizon, width, palette)
            image[horizon:] = floor + random.normal(0, 18, 3) * y[: height - horizon]
        for _ in range(int(random.integers(0, 9)) if kind > 0.3 else 0):
            self._shape(random, image, width, height)
        if random.random() < 0.4:
            image = cv2.GaussianBlur(image, (0, 0), random.uniform(0.5, 2.0))
        self.image = image.clip(0, 255).astype(np.float32)

    @staticmethod
    def _shape(random: np.random.Generator, image: np.ndarray, width: int, height: int) -> None:
        colour = random.uniform(10, 245, 3).tolist()
        x, y = (int(random.uniform(0, n)) for n in (width, height))
        a, b = (int(random.uniform(3, n / 5)) for n in (width, height))
        kind = random.integers(3)
        if kind == 0:
            cv2.rectangle(image, (x, y), (x + a, y + 2 * b), colour, -1)
        elif kind == 1:
            cv2.ellipse(image, (x, y), (a, b), random.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA)
        else:
            cv2.line(image, (x, y), (x + 3 * a, y - 3 * b), colour, int(random.integers(1, 6)), cv2.LINE_AA)

    def seen(self, camera: np.ndarray) -> np.ndarray:
        """float32 [H, W, 3], a picture of its own."""
        matrix = camera[:2].copy()
        matrix[:, 2] += matrix[:, :2] @ (0.5 - self.margin) - 0.5
        return cv2.warpAffine(
            self.image, matrix, self.size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )


class _Shadow:
    """What the creature casts: nothing, a shadow on the floor below it, or one on a wall behind it."""

    def __init__(self, random: np.random.Generator, size: tuple[int, int]):
        self.kind = random.choice(["none", "floor", "wall"], p=[0.35, 0.45, 0.2])
        self.strength = random.uniform(0.2, 0.7)
        self.blur = random.uniform(0.7, 4)
        self.offset = random.uniform(-0.12, 0.12, 2) * size[1]
        self.shear, self.squash = random.uniform(-0.9, 0.9), random.uniform(0.08, 0.4)
        self.size = size
        self.ground = None

    def cast(self, canvas: np.ndarray, layers: list, motion: Motion, frame: int) -> None:
        if self.kind == "none" or not layers:
            return
        opaque = np.zeros(canvas.shape[:2], np.float32)
        for _, area, _, alpha in layers:
            np.maximum(opaque[area], alpha, out=opaque[area])
        if self.kind == "wall":
            matrix = np.array([[1, 0, self.offset[0]], [0, 1, self.offset[1]]])
        else:
            if self.ground is None:  # the feet of frame 0, as the floor goes with the camera
                feet = np.flatnonzero(opaque.any(1))
                self.ground = np.array(
                    [canvas.shape[1] / 2, feet[-1] - 1 if len(feet) else canvas.shape[0], 1.0]
                )
            ground = (motion.camera[frame] @ self.ground)[1]
            matrix = np.array(
                [[1, self.shear, -self.shear * ground], [0, -self.squash, ground * (1 + self.squash)]]
            )
        cast = cv2.warpAffine(opaque, matrix, self.size, flags=cv2.INTER_LINEAR)
        cast = cv2.GaussianBlur(cast, (0, 0), self.blur)
        canvas *= 1 - self.strength * cast[..., None]


class _Occluder:
    """Something of the background that stands before the creature."""

    def __init__(self, random: np.random.Generator, size: tuple[int, int]):
        self.size = size
        width, height = size
        x, thick = random.uniform(0.1, 0.9) * width, random.uniform(0.03, 0.1) * width
        lean = random.uniform(-0.25, 0.25) * width
        self.points = np.array(
            [[x, -height], [x + thick, -height], [x + lean + thick, 2 * height], [x + lean, 2 * height]]
        )
        self.colour = random.uniform(20, 230, 3).astype(np.float32)

    def cover(self, canvas: np.ndarray, labels: np.ndarray, camera: np.ndarray) -> None:
        points = self.points @ camera[:2, :2].T + camera[:2, 2]
        alpha = np.zeros(canvas.shape[:2], np.uint8)
        cv2.fillPoly(alpha, [np.rint(points * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
        share = alpha[..., None].astype(np.float32) / 255
        canvas += share * (self.colour - canvas)
        labels[alpha > 127] = 0
