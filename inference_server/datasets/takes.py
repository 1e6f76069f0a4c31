"""A user's own takes as examples: what the extension exported of a shot, and the shot as it was rendered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from shared.request_file import SUFFIX, read_request
from shared.schema import MessageError

from .dataset import decode_picture
from .errors import DatasetError
from .examples import Example

REQUEST = f"request{SUFFIX}"
FRAME = re.compile(r".*?(\d+)\.(?:png|jpe?g|webp)", re.IGNORECASE)


def read_takes(folder: Path | str, subject: str) -> Iterator[Example]:
    """The takes in a folder, at any depth: folders with a `request.poserequest`, beside which lie as many
    numbered pictures as it has frames, of any size.

    `subject` is who is seen in all of them. Raises `DatasetError` for a folder without takes, or one that
    lacks pictures.
    """
    requests = sorted(Path(folder).rglob(REQUEST))
    if not requests:
        raise DatasetError(
            f"{folder} holds no {REQUEST}; export the shots from Blender by Export Skeleton, and render each"
            " into its folder."
        )
    for path in requests:
        try:
            request = read_request(path)
        except (OSError, MessageError) as error:
            raise DatasetError(f"{path} can't be read ({error}); export the shot again.") from error
        numbered = [(FRAME.fullmatch(file.name), file) for file in path.parent.iterdir()]
        files = [file for _, file in sorted((int(match[1]), file) for match, file in numbered if match)]
        if len(files) != request.num_frames:
            raise DatasetError(
                f"{path.parent} has {len(files)} numbered pictures and the shot {request.num_frames} frames;"
                " render it with the range and step that it was exported with."
            )
        frames = [decode_picture(request.first_frame)]
        for file in files[1:]:
            picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if picture is None:
                raise DatasetError(f"The picture {file} can't be read; render it again.")
            frames.append(
                cv2.resize(picture, (request.width, request.height), interpolation=cv2.INTER_AREA)[..., ::-1]
            )
        yield Example(request, np.stack(frames), subject)
