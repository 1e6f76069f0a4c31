"""The bridge's request as the model takes it: its conditions drawn at its size, its options checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from shared.camera import rectangle_condition
from shared.messages import GenerationRequest
from shared.raster import NATIVE_SIDE, condition_images

from ...poseanything.conditioning.conditions import Conditions, InputError
from ...poseanything.conditioning.limbs.interpolation import interpolate_poses
from ...poseanything.conditioning.pictures import decode_picture
from ...poseanything.sampling.guiders import make_guider
from ...poseanything.sampling.options import Options
from ...poseanything.sampling.request import SamplingRequest


def sampling_request(
    request: GenerationRequest, config: Mapping[str, Any] = {}, draft: np.ndarray | None = None
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
        camera = "camera" in make_guider(request.guidance, config).pose_conditions
    except ValueError as error:
        raise InputError(str(error)) from error
    conditions = conditions_from_request(request, options, config, camera)
    return SamplingRequest.of(
        dataclasses.replace(conditions, draft=draft),
        request.guidance,
        request.seed,
        request.num_inference_steps,
        request.engine_options,
        config,
    )


def parse_options(request: GenerationRequest) -> Options:
    """The options of a request. Raises `InputError`."""
    try:
        return Options.parse(request.engine_options, request.num_inference_steps)
    except ValueError as error:
        raise InputError(str(error)) from error


def conditions_from_request(
    request: GenerationRequest, options: Options, config: Mapping[str, Any] = {}, camera: bool = False
) -> Conditions:
    """Draw the request's conditions at its size, the camera's only where it is wanted. `config` is the one of
    `sampling_request`. Raises `InputError`."""
    between = config.get("between_poses") if options.between_poses == "auto" else options.between_poses
    if between == "interpolated":
        request = with_poses_between(request)
    width, height = request.width, request.height
    lookup, posed = request.pose.part_lookup(), request.conditioned_frames()
    subject = request.first_labels if request.subject_mask is None else request.subject_mask
    known = request.part_maps is not None and options.parts == "scene"
    camera_images = None
    if camera and request.camera_motion is not None:
        camera_images = draw_camera(request.camera_motion, width, height, config)
    return Conditions(
        first_frame=decode_picture(request.first_frame, turn=False),
        pose_images=condition_images(
            request.pose, width, height, posed, config.get("pose_canvas", NATIVE_SIDE)
        ),
        pose_frames=posed,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        subject_mask=None if subject is None else subject > 0,
        part_maps=lookup[request.part_maps] if known else None,
        first_part_map=lookup[request.first_labels] if known and request.first_labels is not None else None,
        camera_images=camera_images,
    )


def with_poses_between(request: GenerationRequest) -> GenerationRequest:
    """The request with poses in the frames between those that have one, by these alone."""
    given = request.conditioned_frames()
    if len(given) == request.num_frames:
        return request
    pose = interpolate_poses(request.pose, given)
    drawn = np.flatnonzero(np.diff(pose.offsets)).tolist()
    return dataclasses.replace(request, pose=pose, pose_frames=tuple(sorted({*given, *drawn})))


def draw_camera(path: np.ndarray, width: int, height: int, config: Mapping[str, Any] = {}) -> np.ndarray:
    """`Conditions.camera_images` for a camera path, homographies [F, 3, 3] (see `shared.camera`); `config` as
    above."""
    with_background = config.get("camera_condition") == "with_background"
    rectangle = rectangle_condition(path, width, height, with_background)
    return condition_images(rectangle, width, height, canvas=config.get("pose_canvas", NATIVE_SIDE))
