"""What a small model is measured by on the clips of its pool that were held out: PSNR of what the paper's
tables compare, paired clip by clip."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import torch

from ..evaluation.pixels import psnr
from ..evaluation.statistics import compare, mean_of
from ..poseanything.models.streaming_vae import decode_frames
from .objective import sample
from .settings import TrainingSettings

SHOWN = 8
"""Held out clips whose frames are kept, to be measured and looked at."""
SCALES = (1.2, 2.0, 3.0, 5.0)
"""Of guidance, those of the paper's Table 6."""


def variants_of(config, settings: TrainingSettings, num_frames: int) -> dict[str, dict]:
    """What is measured of a model, the most wanted first: arguments of `sample` (`steps`, `scale`,
    `renoise`) and of `PoolBatches.held_out_batch`."""
    if config.init == "draft":
        return {
            "1 step": {"steps": 1},
            "2 steps": {"steps": 2},
            "4 steps": {"steps": 4},
            "wrong pose": {"steps": 1, "pose_shift": 7},
        }
    seen = {"parts": {"none": "none", "whole": "whole"}.get(settings.part_masks, "drawn")}
    if settings.distilled_steps:
        return {
            "4 steps": seen | {"steps": 4, "renoise": True},
            "1 step": seen | {"steps": 1},
            "2 steps": seen | {"steps": 2, "renoise": True},
            "50 steps of the teacher": seen | {"steps": 50, "teacher": True},
            "4 steps of the teacher": seen | {"steps": 4, "teacher": True},
            "wrong pose": seen | {"steps": 4, "renoise": True, "pose_shift": 7},
        }
    tenth = spread_poses(num_frames, max(2, round(0.1 * num_frames)))
    asked = {
        "8 steps": seen | {"steps": 8},
        "wrong pose": seen | {"steps": 8, "pose_shift": 7},
        "poses of a tenth": seen | {"steps": 8, "kept": tenth},
    }
    for every in (4, 8):
        asked[f"a pose every {every} frames"] = seen | {"steps": 8, "kept": poses_every(num_frames, every)}
    if seen["parts"] == "drawn":
        asked |= {
            f"{'sparse' if kept is not None else 'dense'}, scale {scale:g}": seen
            | {"steps": 8, "kept": kept, "scale": scale}
            for kept in (None, tenth)
            for scale in SCALES
        }
        asked |= {
            "50 steps": seen | {"steps": 50},
            "4 steps": seen | {"steps": 4},
            "1 step": seen | {"steps": 1},
        }
    if settings.part_masks == "mixed":
        asked |= {
            name: {"steps": 8, "parts": parts}
            for name, parts in (("no parts", "none"), ("whole subject", "whole"), ("known parts", "known"))
        }
    return asked


def spread_poses(num_frames: int, count: int) -> np.ndarray:
    """bool [F], `count` frames from the first to the last."""
    kept = np.zeros(num_frames, bool)
    kept[np.linspace(0, num_frames - 1, count).round().astype(int)] = True
    return kept


def poses_every(num_frames: int, every: int) -> np.ndarray:
    """bool [F], the frames that keep their pose where one in `every` does."""
    return spread_poses(num_frames, 1 + (num_frames - 1) // every)


def measure(trainer, batches, clips: int, until: float, pictures: Path | None) -> dict:
    """Figures on held out clips, as far as there is time; of the first variant alone where no pictures are
    wanted."""
    model, device, vae = trainer.model, batches.device, batches.vae
    variants = variants_of(model.config, trainer.settings, batches.pool.settings.num_frames)
    first = next(iter(variants))
    teacher = getattr(trainer.objective, "teacher", None)
    measured: dict[str, list] = {}

    def score(name: str, images, truth, subject) -> None:
        values = torch.stack([psnr(images, truth, subject), psnr(images, truth)], 1).cpu()
        measured.setdefault(name, []).append(values)

    model.eval()
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=trainer.settings.mixed_precision == "bf16")
    with torch.no_grad(), trainer.averaged(), autocast:
        for start in range(0, clips, 16):
            truth, subject, draft = batches.held_out_frames(start, min(16, clips - start))
            score("first frame repeated", truth[:, :1].expand_as(truth), truth, subject)
            if draft is not None:
                score("draft", draft, truth, subject)
            if pictures and not start:
                keep(pictures, "truth", truth)
                if draft is not None:
                    keep(pictures, "draft", draft)
        for name, asked in variants.items():
            if pictures is None and name != first:
                continue
            for start in range(0, clips, 16):
                if time.time() > until:
                    break
                conditions = dict(asked)
                how = {key: conditions.pop(key) for key in ("steps", "renoise") if key in conditions}
                scale = conditions.pop("scale", 1.0)
                used = teacher if conditions.pop("teacher", False) else model
                size = min(16, clips - start)
                truth, subject, _ = batches.held_out_frames(start, size)
                batch, negative = batches.held_out_batch(start, size, **conditions), None
                if scale != 1:
                    negative = batches.held_out_batch(start, size, still=True, **conditions)
                generator = torch.Generator(device).manual_seed(start)
                latents = sample(used, batch, generator=generator, negative=negative, scale=scale, **how)
                with torch.autocast(device.type, enabled=False):
                    video = torch.cat(list(decode_frames(vae, latents.float())), 2)
                images = ((video.movedim(1, -1) + 1) * 127.5).round().clamp(0, 255)
                score(name, images, truth, subject)
                if pictures and not start:
                    keep(pictures, name, images)
    model.train()
    values = {name: torch.cat(parts).numpy() for name, parts in measured.items()}
    if first not in values:
        return {}
    paired = {}
    for name, others in values.items():
        shared = min(len(others), len(values[first]))
        if name != first:
            paired[f"{first} over {name}"] = {
                region: compare(values[first][:shared, column], others[:shared, column])
                for column, region in enumerate(("subject", "all"))
            }
    figures = {name: {"subject": mean_of(of[:, 0]), "all": mean_of(of[:, 1])} for name, of in values.items()}
    each = {name: of.round(3).tolist() for name, of in values.items()}
    return {"psnr": figures, "paired": paired} | ({"clips": each} if pictures else {})


def keep(folder: Path, name: str, images) -> None:
    """Write the frames of clips `[B, F, H, W, 3]` as one picture a clip, frames below one another."""
    place = folder / name.replace(",", "").replace(" ", "-")
    place.mkdir(parents=True, exist_ok=True)
    for number, clip in enumerate(images[:SHOWN]):
        picture = clip.flatten(0, 1).byte().cpu().numpy()[..., ::-1]
        cv2.imwrite(str(place / f"{number:02d}.webp"), picture, [cv2.IMWRITE_WEBP_QUALITY, 80])
