"""Where a video's subject is, on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..xpose.stages import SubjectPrompt, XPoseError


def add_subject(group) -> None:
    """The flags that say where a subject is; `read_subject` takes them up."""
    group.add_argument(
        "--box",
        type=float,
        nargs=4,
        metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="around it, as fractions of the width and height",
    )
    group.add_argument(
        "--click",
        type=float,
        nargs=2,
        action="append",
        metavar=("X", "Y"),
        help="a place on it, as fractions; several are a scribble",
    )
    group.add_argument("--mask", type=Path, metavar="PICTURE", help="white on it, black elsewhere")
    group.add_argument("--subject-text", default="", metavar="WORDS", help="what it is, such as horse")


def read_subject(said: dict) -> SubjectPrompt:
    """A prompt from JSON: box, points, background, mask (a picture's path) and text. Raises `XPoseError`."""
    import cv2

    unknown = said.keys() - {"box", "points", "background", "mask", "text"}
    if unknown:
        raise XPoseError(
            f"A subject has no {', '.join(sorted(unknown))}; it has box, points, background, mask, text."
        )
    try:
        box = tuple(float(value) for value in said["box"]) if said.get("box") else None
        points, background = (
            tuple((float(x), float(y)) for x, y in said.get(name) or ()) for name in ("points", "background")
        )
        values = [*(box or ()), *(value for point in points + background for value in point)]
    except (TypeError, ValueError) as error:
        raise XPoseError(f"A subject's box or points can't be read ({error}); give numbers.") from error
    if any(not 0 <= value <= 1 for value in values) or (
        box and (len(box) != 4 or box[0] >= box[2] or box[1] >= box[3])
    ):
        raise XPoseError(
            "A subject's box and points are fractions from 0 to 1; a box is left, top, right, bottom."
        )
    mask = None
    if said.get("mask"):
        picture = cv2.imread(str(said["mask"]), cv2.IMREAD_GRAYSCALE)
        if picture is None:
            raise XPoseError(f"The mask {said['mask']} can't be read as a picture; choose another.")
        mask = picture > 127
    return SubjectPrompt(box, points, background, mask, str(said.get("text") or ""))


def subject_of(args: argparse.Namespace) -> dict:
    """What the flags of `add_subject` say, as JSON."""
    said = {
        "box": args.box,
        "points": args.click,
        "mask": args.mask and str(args.mask),
        "text": args.subject_text,
    }
    return {name: value for name, value in said.items() if value}
