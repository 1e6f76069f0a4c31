"""Examples that Blender rendered: `blender_addon/examples/synthesise.py` leaves them as requests and
pictures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator
from pathlib import Path

import cv2
import numpy as np

from shared.request_file import read_request

from ..datasets.errors import DatasetError
from ..datasets.examples import Example
from ..poseanything.conditioning.pictures import decode_picture
from .clips import PART_MAP_SCALE


def read_rendered(
    folder: Path | str, seeds: tuple[int, int] | None = None, subjects: Collection[str] = ()
) -> Iterator[Example]:
    """The examples of the seeds that are whole, in their order: of those from the first to the last, and of
    the subjects, where some are named. Raises `DatasetError` for a picture that is missing, or no example."""
    found = []
    for index in sorted(Path(folder).glob("seed-*/clips.json")):
        _, seed, subject = index.parent.name.split("-", 2)
        if (seeds is None or seeds[0] <= int(seed) <= seeds[1]) and (not subjects or subject in subjects):
            found.append(index)
    if not found:
        raise DatasetError(f"{folder} holds no rendered clips of these seeds; render them first.")
    for index in found:
        for clip in json.loads(index.read_text()):
            request = read_request(index.parent / clip["request"])
            pictures = [cv2.imread(str(index.parent / name), cv2.IMREAD_COLOR) for name in clip["frames"]]
            if any(picture is None for picture in pictures):
                raise DatasetError(
                    f"{index.parent} lacks pictures that its clips.json names;"
                    " delete the folder and synthesise it again."
                )
            frames = np.stack([picture[..., ::-1] for picture in pictures])
            # The first picture was rendered twice at most; the request's is what a model gets to see.
            frames[0] = decode_picture(request.first_frame)
            labels = request.part_maps
            coarse = labels[:, PART_MAP_SCALE // 2 :: PART_MAP_SCALE, PART_MAP_SCALE // 2 :: PART_MAP_SCALE]
            request = dataclasses.replace(request, part_maps=np.ascontiguousarray(coarse))
            yield Example(request, frames, clip["subject"], labels)
