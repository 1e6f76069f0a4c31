"""`qwen`: Qwen2.5-VL looks at a clip and says whether to keep it, as in the paper (stage 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from ...poseanything.checkpoints.float8 import Float8Linear, quantize_weight
from ...poseanything.runtime.card import Card
from ...poseanything.runtime.out_of_memory import is_out_of_memory
from ..models import load_model, pick_device, weights_of
from ..stages import Clip, Filter, Verdict, XPoseError
from .answer import PROMPT, read_answer

PRECISIONS = ("auto", "bfloat16", "float8")
ROOM = 1.3
"""What a model takes beside its weights, for the clips that it looks at."""
LAYOUT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|>{video}<|vision_end|>{prompt}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
"""How the model was trained to be asked."""
TEXT, VIDEO = 0, 2
"""Kinds of tokens."""


@dataclass
class QwenFilter(Filter):
    """Asks for the axes of the paper's Figure 3 and for a caption.

    weights: the folder, in transformers' format; by default the one in the weights' folder. device: where it
    runs; by default a card if there is one. precision: "bfloat16", "float8" for half of its memory, or "auto"
    for the first that fits. frames: how many of a clip it is shown, an even number. frame_pixels: how large,
    at most. longest: tokens of an answer.
    """

    uses_card: ClassVar[bool] = True
    batch_size: ClassVar[int] = 8

    weights: str = ""
    device: str = ""
    precision: str = "auto"
    frames: int = 12
    frame_pixels: int = 200_000
    longest: int = 384

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise XPoseError(f"precision is {self.precision!r}; choose one of {', '.join(PRECISIONS)}.")
        if self.frames < 2 or self.frames % 2:
            raise XPoseError(f"frames is {self.frames}; choose an even number.")

    def load(self) -> None:
        from transformers import AutoImageProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

        path = Path(self.weights) if self.weights else weights_of("Qwen2.5-VL-7B-Instruct")
        self._device = pick_device(self.device)
        cuda = self._device.startswith("cuda")
        dtype = torch.bfloat16 if cuda else torch.float32
        model = load_model(Qwen2_5_VLForConditionalGeneration, path, dtype=dtype)
        if self._needs_float8(model, cuda):
            round_to_float8(model)
        self._model = model.to(self._device)
        self._tokenizer = load_model(AutoTokenizer, path, padding_side="left")
        self._pictures = load_model(AutoImageProcessor, path)

    def _needs_float8(self, model: nn.Module, cuda: bool) -> bool:
        if self.precision != "auto" or not cuda:
            return self.precision == "float8"
        free = Card.of(self._device).free_bytes
        needed = sum(weight.numel() * weight.element_size() for weight in model.parameters()) * ROOM
        if needed / 2 > free:
            raise XPoseError(
                f"Qwen2.5-VL needs {needed / 2e9:.0f} GB of the card, and {free / 1e9:.0f} GB are free;"
                " close what else uses it, or leave the filter out."
            )
        return needed > free

    def judge(self, clips: Sequence[Clip]) -> list[Verdict]:
        try:
            return [read_answer(answer) for answer in self._ask(clips)]
        except Exception as error:
            if not is_out_of_memory(error) or len(clips) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(clips) // 2
        return self.judge(clips[:half]) + self.judge(clips[half:])

    def _ask(self, clips: Sequence[Clip]) -> list[str]:
        """The answers about some clips, at once."""
        shown = [self._show(clip) for clip in clips]
        marks, vision = self._model.config, self._model.config.vision_config
        texts = []
        for patches, _, _ in shown:
            count = len(patches) // vision.spatial_merge_size**2
            video = self._tokenizer.decode([marks.video_token_id]) * count
            texts.append(LAYOUT.format(video=video, prompt=PROMPT))
        words = self._tokenizer(texts, return_tensors="pt", padding=True)
        inputs = {
            **words,
            "mm_token_type_ids": torch.where(words["input_ids"] == marks.video_token_id, VIDEO, TEXT),
            "pixel_values_videos": torch.from_numpy(np.concatenate([patches for patches, _, _ in shown])).to(
                self._model.dtype
            ),
            "video_grid_thw": torch.tensor([grid for _, grid, _ in shown]),
            "second_per_grid_ts": torch.tensor([seconds for _, _, seconds in shown]),
        }
        inputs = {name: tensor.to(self._device) for name, tensor in inputs.items()}
        with torch.inference_mode():
            tokens = self._model.generate(**inputs, max_new_tokens=self.longest, do_sample=False)
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        return self._tokenizer.batch_decode(answers, skip_special_tokens=True)

    def _show(self, clip: Clip) -> tuple[np.ndarray, list[int], float]:
        """A clip as the model sees it: patches [T h w, C 2 p p], its grid (T, h, w), and the seconds between
        two of the T pairs of frames."""
        chosen = np.linspace(0, len(clip.frames) - 1, self.frames).round().astype(int)
        pictures = [clip.frames[index] for index in chosen]
        size = {"shortest_edge": 56 * 56, "longest_edge": self.frame_pixels}
        inputs: Any = self._pictures(images=pictures, size=size, return_tensors="np")
        _, rows, columns = (int(value) for value in inputs["image_grid_thw"][0])
        vision = self._model.config.vision_config
        patch, pair = vision.patch_size, vision.temporal_patch_size
        # A picture comes as a pair of the same; a video's pairs are of frames that follow each other.
        alone = inputs["pixel_values"].reshape(self.frames, rows * columns, -1, pair, patch, patch)[
            ..., 0, :, :
        ]
        pairs = alone.reshape(self.frames // pair, pair, *alone.shape[1:]).transpose(0, 2, 3, 1, 4, 5)
        patches = pairs.reshape(self.frames // pair * rows * columns, -1).astype(np.float32)
        seconds = pair * (len(clip.frames) - 1) / (self.frames - 1) / clip.fps
        return patches, [self.frames // pair, rows, columns], seconds


def round_to_float8(model: nn.Module) -> None:
    """Keep the language model's weights in float8; what sees stays as it is, as does the last layer."""
    for module in list(model.model.language_model.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, nn.Linear):
                small = Float8Linear(*quantize_weight(layer.weight.data))
                small.bias = layer.bias
                setattr(module, name, small)
