"""Which control videos there are, and which of them other models take."""

from __future__ import annotations

POSES, OPENPOSE, CYLINDERS, PARTS, MASK, DEPTH, FIRST_FRAME = (
    "poses",
    "openpose",
    "cylinders",
    "parts",
    "mask",
    "depth",
    "first_frame",
)

KINDS = {
    POSES: ("Poses", "White strokes on black, as PoseAnything takes them"),
    OPENPOSE: ("OpenPose", "OpenPose's body and hands in DWPose's colors, of rigs that are people"),
    CYLINDERS: ("Cylinders", "Shaded 3D cylinders around the limbs, as SCAIL takes them, of any rig"),
    PARTS: ("Part Colors", "The subject's parts, each in a color of its own"),
    MASK: ("Subject Mask", "The subject in white on black"),
    DEPTH: ("Depth", "How near everything is: near white, far black, alike in all frames"),
    FIRST_FRAME: ("First Frame", "The picture that the clip begins with, as a PNG"),
}
"""Label and explanation of each; what it is called is the name of its folder or file."""

PRESETS = {
    "POSEANYTHING": ("PoseAnything", (POSES, FIRST_FRAME)),
    "VACE": ("VACE, ControlNet", (OPENPOSE, DEPTH, MASK, FIRST_FRAME)),
    "ANIMATE": ("Wan Animate", (OPENPOSE, MASK, FIRST_FRAME)),
    "SCAIL": ("SCAIL", (CYLINDERS, MASK, FIRST_FRAME)),
    "ALL": ("Everything", tuple(KINDS)),
}
