"""Times XPose's networks at their real sizes on a card, each in turn, with random weights made on the card.

Rates are of the networks alone, in clips of 81 frames a second: `docs/xpose.md` makes hours of them. `--toy`
takes small networks on whatever there is, to see whether the script itself works. A network that fails is
named, and the next goes on.

Left out: decoding, checks and packing, which are the processor's; real weights, so that nothing is said of
how good the answers are, and SAM 2 follows one subject where a real video may have several.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

FRAMES = 81
ANSWER = 150
"""Tokens of an answer."""


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="stages", description=__doc__)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--output", type=Path, help="folder for stages.json")
    asked = parser.parse_args(words)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name(0) if device == "cuda" else "the processor"
    print(f"On {name}, torch {torch.__version__}", flush=True)
    found, failed = {"device": name}, 0
    for part in asked.only:
        try:
            began = time.monotonic()
            found[part] = PARTS[part](device, asked.toy)
            print(f"{part}: {found[part]} ({time.monotonic() - began:.0f} s in all)", flush=True)
        except Exception as error:  # the next network goes on
            found[part], failed = f"{type(error).__name__}: {error}", 1
            print(f"{part} FAILED: {found[part]}", flush=True)
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
        if asked.output:
            asked.output.mkdir(parents=True, exist_ok=True)
            (asked.output / "stages.json").write_text(json.dumps(found, indent=1))
    return failed


@contextmanager
def made_on(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Modules made here have their weights there, in a precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def seconds(device: str, work: Callable[[], object], rounds: int = 3) -> float:
    """The median of some rounds, after one that warms up."""
    times = []
    with torch.inference_mode():
        for _ in range(rounds + 1):
            if device == "cuda":
                torch.cuda.synchronize()
            began = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
    return float(np.median(times[1:]))


def result(device: str, each: float, clips: float) -> dict[str, float]:
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    return {"seconds": round(each, 4), "clips_per_second": round(clips / each, 3), "peak_GiB": round(peak, 1)}


def qwen(device: str, toy: bool, float8: bool = False) -> dict[str, float]:
    """The filter: eight clips of twelve frames, an answer of 150 tokens."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from inference_server.xpose.filters.qwen import round_to_float8

    text = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28}
    text |= {"num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064}
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
    vision |= {"out_hidden_size": 3584, "fullatt_block_indexes": [7, 15, 23, 31]}
    section, clips, grid, answer = [16, 24, 24], 8, (6, 24, 42), ANSWER
    if toy:
        text |= {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
        text |= {"num_attention_heads": 2, "num_key_value_heads": 1}
        vision |= {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2}
        vision |= {"out_hidden_size": 64, "fullatt_block_indexes": [0]}
        section, clips, grid, answer = [4, 6, 6], 2, (2, 4, 4), 4
    rope = {"rope_type": "default", "mrope_section": section, "rope_theta": 1e6}
    config = Qwen2_5_VLConfig(text_config=text | {"rope_parameters": rope}, vision_config=vision)
    with made_on(device, torch.bfloat16):
        model = Qwen2_5_VLForConditionalGeneration(config).eval()
    if float8:
        round_to_float8(model)
    tokens = int(np.prod(grid)) // 4
    ids = torch.full((clips, tokens + 352), 100, device=device)
    ids[:, 20] = config.vision_start_token_id
    ids[:, 21 : 21 + tokens] = config.video_token_id
    patches = torch.randn(clips * int(np.prod(grid)), 1176, device=device, dtype=torch.bfloat16)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": torch.where(ids == config.video_token_id, 2, 0),
        "pixel_values_videos": patches,
        "video_grid_thw": torch.tensor([grid] * clips, device=device),
        "second_per_grid_ts": torch.full((clips,), 0.6, device=device),
    }
    asked = {"max_new_tokens": answer, "min_new_tokens": answer, "do_sample": False}
    return result(
        device, seconds(device, lambda: model.generate(**inputs, **asked), 1 if not toy else 1), clips
    )


def detector(device: str, toy: bool) -> dict[str, float]:
    """Grounding DINO's base size, five pictures a clip."""
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

    swin = {"model_type": "swin", "embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]}
    swin |= {"window_size": 12, "out_features": ["stage2", "stage3", "stage4"]}
    size, more = (800, 1333), {}
    if toy:
        swin |= {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}
        size, more = (64, 96), {"encoder_layers": 1, "decoder_layers": 2, "num_queries": 10}
    with made_on(device, torch.float32):
        model = GroundingDinoForObjectDetection(GroundingDinoConfig(backbone_config=swin, **more)).eval()
    ids = torch.tensor([[101, 5000, 1012, 102]], device=device)
    picture = torch.randn(1, 3, *size, device=device)
    asked = {"input_ids": ids, "token_type_ids": 0 * ids, "attention_mask": torch.ones_like(ids)}
    return result(device, seconds(device, lambda: model(pixel_values=picture, **asked)), 1 / 5)


def follower(device: str, toy: bool) -> dict[str, float]:
    """SAM 2's large size: twenty frames, one subject."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    from inference_server.xpose.stages import SubjectPrompt
    from inference_server.xpose.subjects.grounded import GroundedSam2Finder

    hiera = {"model_type": "sam2_hiera_det_model", "hidden_size": 144, "num_attention_heads": 2}
    hiera |= {"blocks_per_stage": [2, 6, 36, 4], "embed_dim_per_stage": [144, 288, 576, 1152]}
    hiera |= {"num_attention_heads_per_stage": [2, 4, 8, 16], "window_size_per_stage": [8, 4, 16, 8]}
    hiera |= {"window_positional_embedding_background_size": [7, 7], "global_attention_blocks": [23, 33, 43]}
    vision = {"model_type": "sam2_vision_model", "backbone_config": hiera}
    vision |= {"backbone_channel_list": [1152, 576, 288, 144]}
    frames = 3 if toy else 20
    if toy:
        from tests.xpose.tiny_models import sam2_config

        config = sam2_config()
    else:
        config = Sam2VideoConfig(vision_config=vision)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    with made_on(device, dtype):
        model = Sam2VideoModel(config).eval()
    stage = GroundedSam2Finder(device=device)
    stage._segmenter, stage._device = model, device
    pictures = np.random.default_rng(0).integers(0, 255, (frames, 480, 832, 3), np.uint8)
    prompt = [(SubjectPrompt(box=(0.2, 0.2, 0.7, 0.8)), "deer")]
    return result(device, seconds(device, lambda: list(stage._follow(pictures, prompt)), 1), frames / FRAMES)


def skeletons(device: str, toy: bool) -> dict[str, float]:
    """BlumNet on Swin base, eight frames at once."""
    from inference_server.xpose.skeletons.blumnet.model import BlumNet, BlumNetConfig, SwinSizes

    swin = SwinSizes(128, (2, 2, 18, 2), (4, 8, 16, 32), 7)
    config = BlumNetConfig(swin)
    if toy:
        config = BlumNetConfig(SwinSizes(8, (1, 1, 1, 1), (1, 1, 2, 2), 7), 32, 8, 32, 1, 1)
    with made_on(device, torch.float32):
        model = BlumNet(config).eval()
    pictures = torch.randn(8, 3, 288, 512, device=device)
    return result(device, seconds(device, lambda: model(pictures)), 8 / FRAMES)


PARTS = {
    "skeletons": skeletons,
    "detector": detector,
    "follower": follower,
    "qwen": qwen,
    "qwen in float8": lambda device, toy: qwen(device, toy, float8=True),
}

if __name__ == "__main__":
    sys.exit(main())
