"""OpenPose's figure of a person: 18 points of the body and 21 of each hand, as COCO's annotations have them
and as DWPose draws them.

The poses that the released weights saw of people are this figure in white; other models take it in colours.
"""

from __future__ import annotations

import colorsys

BODY = (
    "nose",
    "neck",
    "right shoulder",
    "right elbow",
    "right wrist",
    "left shoulder",
    "left elbow",
    "left wrist",
    "right hip",
    "right knee",
    "right ankle",
    "left hip",
    "left knee",
    "left ankle",
    "right eye",
    "left eye",
    "right ear",
    "left ear",
)
NOSE, NECK, RIGHT_SHOULDER, LEFT_SHOULDER = 0, 1, 2, 5
RIGHT_WRIST, LEFT_WRIST = 4, 7
RIGHT_HIP, LEFT_HIP = 8, 11
RIGHT_EYE, LEFT_EYE, RIGHT_EAR, LEFT_EAR = 14, 15, 16, 17

BODY_LIMBS = (
    (1, 2),
    (1, 5),
    (2, 3),
    (3, 4),
    (5, 6),
    (6, 7),
    (1, 8),
    (8, 9),
    (9, 10),
    (1, 11),
    (11, 12),
    (12, 13),
    (1, 0),
    (0, 14),
    (14, 16),
    (0, 15),
    (15, 17),
)
"""The points that each stroke of the body joins, in the order in which they are drawn. There is no spine."""

PARTS = ("head", "torso", "right arm", "left arm", "right leg", "left leg")
PART_OF_LIMB = (1, 1, 2, 2, 3, 3, 1, 4, 4, 1, 5, 5, 0, 0, 0, 0, 0)

FINGERS = ("thumb", "index finger", "middle finger", "ring finger", "little finger")
HAND_POINTS = 1 + 4 * len(FINGERS)
"""The wrist, then each finger from its base to its tip."""
HAND_LIMBS = tuple((0 if k % 4 == 1 else k - 1, k) for k in range(1, HAND_POINTS))

COLOURS = (
    (255, 0, 0),
    (255, 85, 0),
    (255, 170, 0),
    (255, 255, 0),
    (170, 255, 0),
    (85, 255, 0),
    (0, 255, 0),
    (0, 255, 85),
    (0, 255, 170),
    (0, 255, 255),
    (0, 170, 255),
    (0, 85, 255),
    (0, 0, 255),
    (85, 0, 255),
    (170, 0, 255),
    (255, 0, 255),
    (255, 0, 170),
    (255, 0, 85),
)
"""Of the body's points, and, in their order, of its limbs; RGB."""
LIMB_SHADE = 0.6
"""Limbs are drawn this much darker than points."""
HAND_POINT_COLOUR = (0, 0, 255)


def hand_colours() -> list[tuple[int, int, int]]:
    """The colours of a hand's limbs: once around the hues."""
    count = len(HAND_LIMBS)
    hues = (colorsys.hsv_to_rgb(i / count, 1.0, 1.0) for i in range(count))
    return [(int(255 * r), int(255 * g), int(255 * b)) for r, g, b in hues]


CYLINDER_COLOURS = (
    (255, 0, 0),
    (0, 255, 255),
    (255, 85, 0),
    (255, 170, 0),
    (0, 170, 255),
    (0, 85, 255),
    (180, 255, 0),
    (0, 255, 0),
    (0, 255, 85),
    (0, 0, 255),
    (85, 0, 255),
    (170, 0, 255),
    (150, 150, 150),
    (255, 0, 170),
    (50, 0, 255),
    (255, 0, 170),
    (50, 0, 255),
)
"""Of the body's limbs as SCAIL renders them: warm on the right, cold on the left."""
