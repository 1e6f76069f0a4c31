"""The bridge's request as the model takes it: its conditions drawn at its size, its options checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from shared.camera import rectangle_condition
from shared.messages import GenerationRequest
from shared.raster import NATIVE_SIDE, condition_images

from ...poseanything.conditioning.conditions import Conditions, InputError
from ...poseanything.conditioning.pictures import decode_picture
from ...poseanything.sampling.guiders import make_guider
from ...poseanything.sampling.options import Options
from ...poseanything.sampling.request import SamplingRequest


def sampling_request(
    request: GenerationRequest, config: Mapping = {}, draft: np.ndarray | None = None
) -> SamplingRequest:
    """The whole request.

    Args:
        config: of the checkpoint, as far as it says how it was trained; the released one's says nothing.
        draft: uint8 [F, H, W, 3], for a checkpoint that starts from one.

    Raises:
        InputError: the request can't be made.
    """
    options = parse_options(request)
    try:
        camera = "camera" in make_guider(request.guidance).pose_conditions
    except ValueError as error:
        raise InputError(str(error)) from error
    conditions = conditions_from_request(
        request, options.parts, camera, config.get("pose_canvas", NATIVE_SIDE)
    )
    return SamplingRequest.of(
        replace(conditions, draft=draft),
        request.guidance,
        request.seed,
        request.num_inference_steps,
        request.engine_options,
    )


def parse_options(request: GenerationRequest) -> Options:
    """The options of a request. Raises `InputError`."""
    try:
        return Options.parse(request.engine_options, request.num_inference_steps)
    except ValueError as error:
        raise InputError(str(error)) from error


def conditions_from_request(
    request: GenerationRequest, parts: str = "scene", camera: bool = False, canvas: int | None = NATIVE_SIDE
) -> Conditions:
    """Draw the request's conditions at its size, the camera's only where it is wanted. `canvas` is the one of
    `shared.raster.condition_images`. Raises `InputError`."""
    width, height = request.width, request.height
    lookup = request.pose.part_lookup()
    subject = request.first_labels if request.subject_mask is None else request.subject_mask
    known = request.part_maps is not None and parts == "scene"
    camera_images = None
    if camera and request.camera_motion is not None:
        camera_images = draw_camera(request.camera_motion, width, height, canvas)
    return Conditions(
        first_frame=decode_picture(request.first_frame, turn=False),
        pose_images=condition_images(request.pose, width, height, request.conditioned_frames(), canvas),
        pose_frames=request.conditioned_frames(),
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        subject_mask=None if subject is None else subject > 0,
        part_maps=lookup[request.part_maps] if known else None,
        first_part_map=lookup[request.first_labels] if known and request.first_labels is not None else None,
        camera_images=camera_images,
    )


def draw_camera(path: np.ndarray, width: int, height: int, canvas: int | None = NATIVE_SIDE) -> np.ndarray:
    """`Conditions.camera_images` for a camera path, homographies [F, 3, 3] (see `shared.camera`)."""
    return condition_images(rectangle_condition(path, width, height), width, height, canvas=canvas)
