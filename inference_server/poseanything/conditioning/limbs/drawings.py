"""A request made of pictures of poses, for engines that need limbs."""

from __future__ import annotations

from typing import Any

from shared.messages import GenerationRequest

from ..conditions import Conditions
from ..parts.segments import is_line
from ..pictures import encode_png
from .following import follow_limbs


def request_of_drawings(conditions: Conditions, engine: str, **fields: Any) -> GenerationRequest:
    """The request of `conditions`' pose images: their curves become limbs that are followed over time.

    `fields` are the request's others, such as its seed. Raises `ValueError` where no image has a line.
    """
    height, width = conditions.size
    drawings = {frame: is_line(conditions.pose_images[frame]) for frame in conditions.pose_frames}
    pose = follow_limbs(drawings, conditions.num_frames) if drawings else None
    if pose is None or not pose.limbs:
        raise ValueError("No picture of a pose has a white line on black; look whether it is that folder.")
    mask = conditions.subject_mask
    return GenerationRequest(
        job="clip",
        engine=engine,
        width=width,
        height=height,
        num_frames=conditions.num_frames,
        first_frame=encode_png(conditions.first_frame),
        pose=pose,
        prompt=conditions.prompt,
        negative_prompt=conditions.negative_prompt,
        pose_frames=tuple(conditions.pose_frames),
        subject_mask=None if mask is None else mask.astype("uint8"),
        preview_interval=0.0,
        **fields,
    )
