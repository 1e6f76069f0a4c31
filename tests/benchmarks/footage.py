"""What XPose's stages without weights find in real footage, beside what was checked by hand.

    python build.py bench footage [--horse VIDEO] [--deer FOLDER] [--sheets FOLDER]

BlumNet's clip of two horses: the front one is followed from its box in the first frame. In every fifth frame
its four feet, its muzzle and its tail's tip were marked by hand; an end is found where the skeleton comes
within 5 % of the subject's size of it. The release's deer: our skeleton of the official result video beside
the official skeleton, from the subject's own mask in the first frame. Sheets show both. Last the seconds of
one core that each step of a run takes for a frame of the horses.

Left out: frames between; stages with downloaded weights.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial import KDTree
from skimage.morphology import skeletonize

from inference_server.datasets.dataset import read_video
from inference_server.evaluation.skeletons import distances
from inference_server.poseanything.conditioning.limbs.graph import trace_lines
from inference_server.poseanything.conditioning.masks import size_of
from inference_server.xpose.checks import ClipSettings, plan_video
from inference_server.xpose.pipeline import Item, RunSettings, steps_of
from inference_server.xpose.segments import segment_counts
from inference_server.xpose.sheets import draw_segments
from inference_server.xpose.skeletons.medial import MedialSkeletoniser
from inference_server.xpose.stages import Clip, Subject, SubjectPrompt, Verdict
from inference_server.xpose.subjects.flow import FlowSubjectFinder
from shared.pose import PoseSequence
from shared.raster import draw_pose

HORSE_BOX = (0.185, 0.37, 0.545, 0.735)
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 82]
NEAR = 0.05
"""Of the subject's size, the diagonal of its box."""
ENDS = {
    #    feet, of the hind and the fore legs                         muzzle       tail
    0: ((80, 189), (81, 182), (109, 186), (149, 183), (183, 124), (67, 132)),
    5: ((65, 191), (103, 187), (124, 180), (138, 184), (181, 137), (110, 131)),
    10: ((20, 194), (46, 193), (94, 190), (138, 189), (165, 158), (48, 152)),
    15: ((34, 193), (73, 191), (90, 190), (126, 189), (166, 160), (55, 153)),
    20: ((23, 192), (75, 191), (114, 188), (128, 180), (168, 163), (27, 167)),
    25: ((51, 185), (61, 192), (104, 189), (155, 185), (173, 157), (10, 152)),
    30: ((48, 192), (92, 190), (103, 185), (141, 187), (174, 157), (25, 123)),
    35: ((41, 193), (81, 191), (131, 187), (142, 181), (184, 144), (60, 144)),
    40: ((68, 192), (73, 187), (121, 187), (160, 183), (183, 126), (54, 168)),
    45: ((52, 194), (108, 189), (124, 181), (145, 186), (180, 139), (27, 145)),
    50: ((44, 192), (93, 189), (130, 186), (155, 178), (183, 137), (98, 133)),
    55: ((77, 191), (86, 185), (116, 188), (159, 182), (182, 123), (100, 144)),
    60: ((60, 192), (94, 190), (118, 182), (146, 183), (177, 123), (62, 162)),
    65: ((55, 192), (75, 191), (130, 184), (146, 181), (172, 128), (20, 155)),
    70: ((54, 194), (85, 185), (112, 187), (138, 183), (167, 131), (15, 157)),
    75: ((38, 195), (97, 189), (108, 182), (122, 184), (169, 132), (37, 173)),
    80: ((31, 194), (79, 189), (108, 186), (133, 183), (171, 133), (63, 159)),
    85: ((63, 190), (68, 186), (96, 186), (135, 184), (168, 131), (86, 137)),
    90: ((51, 191), (87, 187), (106, 182), (124, 186), (168, 138), (48, 158)),
    95: ((46, 192), (75, 189), (113, 187), (140, 184), (172, 131), (36, 130)),
    100: ((60, 189), (87, 186), (104, 188), (134, 184), (173, 129), (54, 143)),
    105: ((48, 190), (98, 190), (124, 185), (131, 180), (170, 142), (46, 168)),
    110: ((56, 188), (85, 189), (113, 185), (156, 182), (180, 131), (50, 125)),
    115: ((74, 191), (98, 187), (108, 184), (144, 183), (183, 129), (110, 120)),
    120: ((12, 196), (48, 195), (96, 192), (133, 190), (163, 162), (13, 127)),
    125: ((40, 194), (40, 194), (91, 191), (134, 189), (166, 158), (65, 159)),
}
"""By frame, (x, y) in pixels of the video's 344 x 262."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--horse", type=Path, help="BlumNet's demo video, horse.mp4")
    parser.add_argument("--deer", type=Path, help="folder with official_result.mp4, official_skeleton.mp4 and"
                        " subject.png")  # fmt: skip
    parser.add_argument("--sheets", type=Path, help="folder that the sheets are written into")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if not arguments.horse and not arguments.deer:
        raise SystemExit("Give --horse or --deer.")
    for name in ("horse", "deer"):
        if place := getattr(arguments, name):
            sheet = {"horse": horse, "deer": deer}[name](place)
            if arguments.sheets:
                arguments.sheets.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(arguments.sheets / f"xpose-{name}.jpg"), sheet[..., ::-1], QUALITY)
    if arguments.horse:
        for step, seconds in seconds_a_frame(arguments.horse).items():
            print(f"{step:28} {seconds:.4f} s a frame")


def seconds_a_frame(video: Path) -> dict[str, float]:
    """What each step of a run takes for the first clip of a video; looking through it, for all of that."""
    began, seconds = time.process_time(), {}
    spans, _ = plan_video(video, video.name, ClipSettings())
    seconds["look"] = (time.process_time() - began) / sum(span.count for span in spans)
    items = [Item(spans[0], video, SubjectPrompt(box=HORSE_BOX), spans[0].record())]
    for maker, _ in steps_of(RunSettings()):
        step, began = maker(), time.process_time()
        items = step(items)
        seconds[maker.kind] = (time.process_time() - began) / spans[0].count
    return seconds


def find(frames: np.ndarray, prompt: SubjectPrompt) -> tuple[np.ndarray, PoseSequence]:
    clip = Clip("footage", frames, 24.0, prompt)
    masks = FlowSubjectFinder().find(clip, Verdict(True)).masks
    return masks, MedialSkeletoniser().extract(clip, Subject(masks)).pose


def horse(video: Path) -> np.ndarray:
    frames = read_video(video)
    masks, pose = find(frames, SubjectPrompt(box=HORSE_BOX))
    counts = segment_counts(pose)
    print(f"{len(frames)} frames, {(counts > 0).mean():.0%} with a skeleton, {np.median(counts):g} segments")
    found = []
    for frame, ends in ENDS.items():
        away = KDTree(_points(pose, frame)).query(np.array(ends, float))[0] / size_of(masks[frame])
        found.append(away <= NEAR)
        print(f"frame {frame:3}: feet, muzzle, tail", " ".join(f"{100 * share:.1f}" for share in away), "%")
    found = np.array(found)
    feet, muzzle, tail = found[:, :4].sum(1), found[:, 4], found[:, 5]
    for name, share in {
        "four feet": feet == 4,
        "three feet": feet >= 3,
        "muzzle": muzzle,
        "tail": tail,
        "all six": found.all(1),
        "muzzle, tail and three feet": muzzle & tail & (feet >= 3),
    }.items():
        tenth = np.array([frame % 10 == 0 for frame in ENDS])
        print(f"{name:28} {share[tenth].sum()} of {tenth.sum()} frames; between, {share[~tenth].sum()}")
    shown = [
        _shown(frames[frame], masks[frame], pose, frame, ENDS[frame]) for frame in ENDS if frame % 10 == 0
    ]
    shown = np.stack(shown)
    enlarged = shown.shape[1] / frames.shape[1]
    left, top, wide, high = (int(enlarged * side) for side in cv2.boundingRect(masks.any(0).astype(np.uint8)))
    return _tiles(list(shown[:, max(top - 20, 0) : top + high + 20, left : left + wide]), 4)


def deer(folder: Path) -> np.ndarray:
    frames = read_video(folder / "official_result.mp4")
    official = read_video(folder / "official_skeleton.mp4")[..., 0] > 100
    height, width = frames.shape[1:3]
    painted = cv2.imread(str(folder / "subject.png")).min(2) < 245
    mask = cv2.resize(painted.astype(np.uint8), (width, height)) > 0
    masks, pose = find(frames, SubjectPrompt(mask=mask))
    there, back, segments = [], [], []
    for frame, lines in enumerate(official):
        own = _pixels(draw_pose(pose, frame, width, height) > 0)
        other, size = _pixels(lines), size_of(masks[frame])
        if len(own) and len(other):
            to, of = distances(own, other)
            there.append(to.mean() / size)
            back.append(of.mean() / size)
        segments.append(len(trace_lines(lines, 26).curves))
    print(
        f"{len(frames)} frames; first: ours to the official {there[0]:.1%}, back {back[0]:.1%}; all:"
        f" {np.mean(there):.1%}, {np.mean(back):.1%}; segments {np.median(segment_counts(pose)):g} beside"
        f" {np.median(segments):g}"
    )
    shown = []
    for frame in np.linspace(0, len(frames) - 1, 6).astype(int):
        shown.append(_shown(frames[frame], masks[frame], pose, int(frame)))
        shown.append(np.repeat(255 * official[frame, ..., None].astype(np.uint8), 3, 2))
    return _tiles([cv2.resize(each, (416, 234), interpolation=cv2.INTER_AREA) for each in shown], 4)


def _pixels(lines: np.ndarray) -> np.ndarray:
    return np.argwhere(skeletonize(lines))[:, ::-1] + 0.5


def _points(pose: PoseSequence, frame: int) -> np.ndarray:
    """[N, 2] the middles of the pixels that a frame's lines run through."""
    return _pixels(draw_pose(pose, frame) > 0)


def _shown(
    frame: np.ndarray, mask: np.ndarray, pose: PoseSequence, number: int, ends: tuple = ()
) -> np.ndarray:
    """A frame with the outline of the mask, the segments, and rings around what was marked by hand."""
    enlarge = max(round(688 / frame.shape[1]), 1)
    image = cv2.resize(frame, None, fx=enlarge, fy=enlarge, interpolation=cv2.INTER_CUBIC)
    outline = cv2.resize(mask.astype(np.uint8), image.shape[1::-1])
    contours, _ = cv2.findContours(outline, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, contours, -1, (255, 255, 0), 1)
    draw_segments(image, pose, number, 2)
    for x, y in ends:
        reach = NEAR * size_of(mask) * enlarge
        cv2.circle(
            image, (round(x * enlarge), round(y * enlarge)), round(reach), (255, 255, 255), 1, cv2.LINE_AA
        )
    return image


def _tiles(images: list[np.ndarray], across: int) -> np.ndarray:
    images = images + [np.zeros_like(images[0])] * (-len(images) % across)
    rows = [np.concatenate(images[low : low + across], 1) for low in range(0, len(images), across)]
    return np.concatenate(rows)


if __name__ == "__main__":
    main()
