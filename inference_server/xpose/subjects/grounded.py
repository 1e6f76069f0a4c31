"""`grounded`: boxes and names by Grounding DINO, masks by SAM 2, as in the paper (stage 2, Grounded SAM 2).
Both from transformers, without compiled operators.

Everything of the kind that is asked for is found in the first frame and again every few frames, and followed
between. The largest mask of the first frame that has one is the subject's (equation 1); in each frame after
it, the mask with the same name that overlaps it most (equation 2). A frame without one is skipped.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..models import load_model, pick_device, weights_of
from ..stages import Clip, Dropped, Subject, SubjectFinder, SubjectPrompt, Verdict
from .selection import iou, largest_mask, next_mask

KINDS = ("animal", "bird", "fish", "insect", "robot", "vehicle", "toy")
"""What is looked for where neither the user nor the filter says what the subject is."""
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
MOST_TOKENS = 32
"""What SAM 3's text encoder takes."""
SAME = 0.8
"""An IoU from which on two masks of one frame are one subject's, found twice."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """What is seen in a frame: masks bool [N, H, W], and the name of each."""

    masks: np.ndarray
    labels: list[str]


class _Finder(SubjectFinder, ABC):
    uses_card: ClassVar[bool] = True

    def find(self, clip: Clip, verdict: Verdict) -> Subject:
        name = (clip.prompt.text or verdict.category).strip().lower().rstrip(".")
        masks = np.zeros(clip.frames.shape[:3], bool)
        label, last = None, np.zeros(masks.shape[1:], bool)
        for index, seen in enumerate(self._see(clip, name)):
            clip.watch("subject", index + 1)
            if label is None:
                found = largest_mask(seen.masks)
            else:
                found = next_mask(seen.masks, seen.labels, label, last)
            if found is not None:
                label, last = seen.labels[found], seen.masks[found]
                masks[index] = last
        if label is None:
            raise Dropped("No {name} was found in it." if name else "No subject was found.", name=name)
        return Subject(masks, label or name)

    @abstractmethod
    def _see(self, clip: Clip, name: str) -> Iterator[Candidates]:
        """The candidates of each frame, in order. `name` is what the subject is, "" where nobody said."""


@dataclass
class GroundedSam2Finder(_Finder):
    """A box, clicks or a mask of the clip's prompt say which is the subject; without them Grounding DINO
    finds all of its kind.

    detector, segmenter: the weights' folders, in transformers' format; by default those in the weights'
    folder. device: where they run; by default a card if there is one. box_score, name_score: how sure the
    detector must be. every: frames after which it looks again. most: how many it finds at once, the surest
    first.
    """

    detector: str = ""
    segmenter: str = ""
    device: str = ""
    box_score: float = 0.3
    name_score: float = 0.25
    every: int = 20
    most: int = 8

    def load(self) -> None:
        from transformers import AutoProcessor, GroundingDinoForObjectDetection, Sam2VideoModel

        self._device = pick_device(self.device)
        path = Path(self.detector) if self.detector else weights_of("grounding-dino-base")
        self._detector = load_model(GroundingDinoForObjectDetection, path).to(self._device)
        self._processor = load_model(AutoProcessor, path)
        path = Path(self.segmenter) if self.segmenter else weights_of("sam2.1-hiera-large")
        half = torch.bfloat16 if self._device.startswith("cuda") else torch.float32
        self._segmenter = load_model(Sam2VideoModel, path, dtype=half).to(self._device)

    def _see(self, clip: Clip, name: str) -> Iterator[Candidates]:
        total, target = len(clip.frames), clip.prompt
        if target.box is not None or target.points or target.mask is not None:
            yield from self._follow(clip.frames, [(target, name)])
            return
        last = None
        for begin in range(0, total, self.every):
            frames = clip.frames[begin : begin + self.every]
            found = [(SubjectPrompt(box=box), label) for box, label in self._detect(frames[0], name)]
            if last is not None:  # what was followed goes on, whether or not it is found again
                found = [
                    (SubjectPrompt(mask=m), n) for m, n in zip(last.masks, last.labels) if m.any()
                ] + found
            if not found:
                yield from (_nothing(frame) for frame in frames)
                continue
            for last in self._follow(frames, found):
                yield last

    def _detect(self, frame: np.ndarray, name: str) -> list[tuple[tuple[float, ...], str]]:
        """Boxes (left, top, right, bottom, as fractions) and names, the surest first."""
        text = "".join(f"{kind}. " for kind in ([name] if name else KINDS)).strip()
        inputs = self._processor(images=frame, text=text, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            outputs = self._detector(**inputs)
        (found,) = self._processor.post_process_grounded_object_detection(
            outputs, inputs.input_ids, threshold=self.box_score, text_threshold=self.name_score
        )
        order = found["scores"].argsort(descending=True)[: self.most].tolist()
        boxes = found["boxes"].clamp(0, 1).tolist()
        return [(tuple(boxes[i]), _plain_name(found["text_labels"][i]) or name) for i in order]

    def _follow(self, frames: np.ndarray, found: list[tuple[SubjectPrompt, str]]) -> Iterator[Candidates]:
        """The masks of all that was found in the first frame, in all frames."""
        from transformers import Sam2VideoInferenceSession

        size, dtype = self._segmenter.config.image_size, self._segmenter.dtype
        session = Sam2VideoInferenceSession(
            video=_pixels(frames, size, *IMAGENET),
            video_height=frames.shape[1],
            video_width=frames.shape[2],
            inference_device=self._device,
            inference_state_device=self._device,
            video_storage_device=self._device,
            dtype=dtype,
        )
        for number, (prompt, _) in enumerate(found):
            _add_prompt(session, session.obj_id_to_idx(number), prompt, size)
        session.obj_with_new_inputs = list(range(len(found)))
        labels = [label for _, label in found]
        with torch.inference_mode():
            for output in self._segmenter.propagate_in_video_iterator(session, start_frame_idx=0):
                masks = _full_size(output.pred_masks, frames.shape[1:3])
                if output.frame_idx == 0:  # what was found twice is followed once
                    masks = _without_twins(masks)
                    for number, mask in enumerate(masks):
                        if not mask.any():
                            labels[number] = ""
                kept = [number for number, label in enumerate(labels) if label or masks[number].any()]
                yield Candidates(masks[kept], [labels[number] for number in kept])


@dataclass
class Sam3Finder(_Finder):
    """SAM 3 finds all of a kind, and follows them. It goes by names: where the user points at the subject,
    that says only which of them is meant.

    weights: the folder, in transformers' format; by default the one in the weights' folder. device: where it
    runs; by default a card if there is one.
    """

    weights: str = ""
    device: str = ""

    def load(self) -> None:
        from transformers import AutoTokenizer, Sam3VideoModel

        self._device = pick_device(self.device)
        path = Path(self.weights) if self.weights else weights_of("sam3")
        half = torch.bfloat16 if self._device.startswith("cuda") else torch.float32
        self._model = load_model(Sam3VideoModel, path, dtype=half).to(self._device)
        self._tokenizer = load_model(AutoTokenizer, path)

    def _see(self, clip: Clip, name: str) -> Iterator[Candidates]:
        from transformers import Sam3VideoInferenceSession

        height, width = clip.frames.shape[1:3]
        session = Sam3VideoInferenceSession(
            video=_pixels(clip.frames, self._model.config.image_size, *HALF),
            video_height=height,
            video_width=width,
            inference_device=self._device,
            inference_state_device=self._device,
            video_storage_device=self._device,
            dtype=self._model.dtype,
        )
        kinds = [name] if name else list(KINDS)
        for kind in kinds:
            number = session.add_prompt(kind)
            words = self._tokenizer(
                kind, return_tensors="pt", padding="max_length", max_length=MOST_TOKENS, truncation=True
            )
            session.prompt_input_ids[number] = words.input_ids.to(self._device)
            session.prompt_attention_masks[number] = words.attention_mask.to(self._device)
        with torch.inference_mode():
            for output in self._model.propagate_in_video_iterator(session, start_frame_idx=0):
                hidden = set(output.suppressed_obj_ids or ()) | set(session.hotstart_removed_obj_ids)
                shown = [number for number in sorted(output.obj_id_to_mask) if number not in hidden]
                if not shown:
                    yield _nothing(clip.frames[0])
                    continue
                masks = torch.cat([output.obj_id_to_mask[number] for number in shown])
                kind_of = session.obj_id_to_prompt_id
                labels = [session.prompts[kind_of[number]] for number in shown]
                seen = Candidates(_full_size(masks, (height, width)), labels)
                yield seen if output.frame_idx else _pointed_at(clip.prompt, seen)


def _pointed_at(prompt: SubjectPrompt, seen: Candidates) -> Candidates:
    """Of what is seen in the first frame, what the user points at; all where he doesn't."""
    height, width = seen.masks.shape[1:]
    if prompt.mask is not None:
        target = cv2.resize(prompt.mask.astype(np.float32), (width, height)) >= 0.5
        scores = [iou(mask, target) for mask in seen.masks]
    elif prompt.box is not None:
        target = np.zeros((height, width), bool)
        left, top, right, bottom = np.round(np.array(prompt.box) * (width, height, width, height)).astype(int)
        target[top:bottom, left:right] = True
        scores = [iou(mask, target) for mask in seen.masks]
    elif prompt.points:
        x, y = (np.array(prompt.points) * (width, height)).astype(int).clip(0, (width - 1, height - 1)).T
        scores = [mask[y, x].mean() for mask in seen.masks]
    else:
        return seen
    best = int(np.argmax(scores))
    kept = [best] if scores[best] > 0 else []
    return Candidates(seen.masks[kept], [seen.labels[index] for index in kept])


def _add_prompt(session: Any, number: int, prompt: SubjectPrompt, size: int) -> None:
    """Say where an object is in the first frame: a mask, or a box's corners and clicks."""
    if prompt.mask is not None:
        mask = cv2.resize(prompt.mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
        session.add_mask_inputs(number, 0, torch.from_numpy((mask >= 0.5).astype(np.float32))[None, None])
        return
    corners = [] if prompt.box is None else [prompt.box[:2], prompt.box[2:]]
    points = [*corners, *prompt.points, *prompt.background]
    kinds = [2, 3] * bool(corners) + [1] * len(prompt.points) + [0] * len(prompt.background)
    session.add_point_inputs(
        number,
        0,
        {
            "point_coords": torch.tensor(points, dtype=torch.float32)[None, None] * size,
            "point_labels": torch.tensor(kinds, dtype=torch.int32)[None, None],
        },
    )


def _pixels(frames: np.ndarray, size: int, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Tensor:
    """float32 [F, 3, size, size]: frames uint8 [F, H, W, 3] as a network sees them, squashed to a square."""
    out = torch.empty(len(frames), 3, size, size)
    for pixels, frame in zip(out, frames):
        picture = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float() / 255
        pixels[:] = functional.interpolate(picture, (size, size), mode="bilinear", antialias=True)[0]
    return (out - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]


def _full_size(logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """bool [N, H, W] of a network's masks, [N, h, w] or [N, 1, h, w], above 0 inside."""
    logits = logits.reshape(len(logits), 1, *logits.shape[-2:]).float()
    return (functional.interpolate(logits, size, mode="bilinear") > 0)[:, 0].cpu().numpy()


def _without_twins(masks: np.ndarray) -> np.ndarray:
    """The same masks, those empty that an earlier one covers as well."""
    masks = masks.copy()
    for later in range(1, len(masks)):
        if any(iou(masks[earlier], masks[later]) >= SAME for earlier in range(later)):
            masks[later] = False
    return masks


def _plain_name(found: str) -> str:
    """The words of what the detector was told that a box stands for, without marks."""
    return " ".join(re.sub(r"\[[A-Z]+\]|[.?]", " ", found).split())


def _nothing(frame: np.ndarray) -> Candidates:
    return Candidates(np.zeros((0, *frame.shape[:2]), bool), [])
