"""The facts of the released PoseAnything model, which server and extension both need."""

from __future__ import annotations

from .engines import EngineDescription

RELEASE = EngineDescription(
    name="poseanything",
    label="PoseAnything",
    summary="The video model of the paper: photoreal frames that follow the pose.",
    neural=True,
    size_multiple=32,
    frame_step=4,
    default_steps=50,
    uses_steps=True,
    pose_look="trained",
    max_parts=5,
)
"""What the model takes. The engine adds to it what depends on the machine, its guiders and its options."""
