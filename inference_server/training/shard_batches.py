"""Batches from data sets, whose latents are made once and kept on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from shared.messages import GenerationRequest
from shared.raster import condition_images
from shared.request_file import SUFFIX, read_request, write_request

from ..datasets.dataset import read_examples, read_index
from ..datasets.errors import DatasetError
from ..datasets.examples import Example
from ..datasets.release import (
    AS_IT_IS,
    Fit,
    ReleaseRow,
    fingerprint,
    is_release_layout,
    read_rows,
    to_example,
)
from ..poseanything.conditioning.parts import PartPlan
from ..poseanything.conditioning.parts.truth import cover_tokens, parts_from_truth
from ..poseanything.models.part_tokens import PartTokens
from ..poseanything.models.streaming_vae import encode_frames, to_video
from ..synthesis.pool import LINE_WIDTH, camera_poses, draw_draft, strokes
from .objective import Batch, Unmatched
from .settings import TrainingSettings
from .sparse_poses import draw_poses

DRAFT = ".draft"
"""Suffix of a draft's latents, a file of its own: a data set may be trained on with drafts later."""
POSES = ".poses"
"""Suffix of an example's pictures of poses, where it has any: uint8 [F, H, W], compressed."""
DRAWN_WIDTH = 128
"""Pixels of a drawn clip's width, for which a stroke's is said."""
EncodePrompt = Callable[[str], torch.Tensor]
"""From a prompt to float `[1, T, text_dim]`."""


def no_text(text_dim: int) -> EncodePrompt:
    """The text of models that were trained without: one token of zeros."""
    return lambda prompt: torch.zeros(1, 1, text_dim)


@dataclasses.dataclass(frozen=True)
class _Text:
    """A prompt's embedding `[n, text_dim]` without the zeros past its words, and how long it is with them."""

    embedding: torch.Tensor
    length: int

    @classmethod
    def of(cls, embedding: torch.Tensor) -> _Text:
        embedding = embedding[0].float().cpu()
        used = embedding.any(1).nonzero()
        return cls(embedding[: int(used.max()) + 1 if len(used) else 1].clone(), len(embedding))

    def padded(self) -> torch.Tensor:
        return F.pad(self.embedding, (0, 0, 0, self.length - len(self.embedding)))[None]


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set that has not been read. `name` tells it from others, `examples` gives, for each of its
    `count` examples in order, a function that reads it."""

    name: str
    count: int
    examples: Callable[[], Iterator[Callable[[], Example]]]


def open_source(folder: Path, split: str | None, fit: Fit = AS_IT_IS) -> Source:
    """A folder of shards, or one in the official release's layout, whose clips are made to `fit`. Raises
    `DatasetError`."""
    if is_release_layout(folder):
        rows = read_rows(folder, split)
        name = _digest(fingerprint(folder) + repr(fit))
        return Source(name, len(rows), lambda: (partial(_read_row, row, fit) for row in rows))
    index = read_index(folder)
    count = sum(each["examples"] for each in index["subjects"].values() if split in (None, each["split"]))
    name = _digest("".join([*(entry["sha256"] for entry in index["shards"]), *index.get("rejected", ())]))
    return Source(name, count, lambda: (partial(_itself, each) for each in read_examples(folder, split)))


def _read_row(row: ReleaseRow, fit: Fit) -> Example:
    return to_example(row.read(fit.most_frames), fit)


def _itself(example: Example) -> Example:
    return example


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class LatentCache:
    """The training split of data sets as latents in files of their own, made when they are first asked for.

    Args:
        folder: where the cache is kept; one VAE's latents never meet another's. `prompts` are all that the
            examples have, and the empty one.
        datasets: folders of data sets, of shards or in the official release's layout.
        vae: codes the pictures.
        device: where that is done.
        split: which subjects; None for all.
        drafts: whether drafts are needed, by a model whose flow starts there; the draft engine draws those
            that the data sets lack.
        progress: called with (done, total) while the cache is filled.
        fit: what clips in the release's layout are cut down and scaled to; those in shards stay as they are.
    """

    def __init__(
        self,
        folder: Path | str,
        datasets: Sequence[Path],
        vae,
        device: torch.device,
        split: str | None = "train",
        drafts: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
        fit: Fit = AS_IT_IS,
    ):
        config = json.dumps(dict(vae.config), sort_keys=True, default=str)
        sample = next(vae.parameters()).detach().float().flatten()[:4096].cpu().numpy().tobytes()
        digest = hashlib.sha256(config.encode() + sample).hexdigest()[:12]
        self.vae, self.device, self.keys = vae.to(device), device, []
        self.prompts: set[str] = set()
        sources = [open_source(dataset, split, fit) for dataset in datasets]
        total, done = sum(source.count for source in sources), 0
        for source in sources:
            place = Path(folder) / digest / f"{source.name}-{split or 'all'}"
            whole = place / ("whole-with-drafts.json" if drafts else "whole.json")
            if not whole.exists():
                prompts = {""}
                place.mkdir(parents=True, exist_ok=True)
                for number, read in enumerate(source.examples()):
                    stem = place / f"{number:07d}"
                    coded = stem.with_suffix(".safetensors").exists()
                    if not coded or (drafts and not stem.with_suffix(DRAFT).exists()):
                        example = read()
                        if not coded:
                            self._encode(example, stem)
                        if drafts:
                            self._encode_draft(example, stem)
                    prompts.add(read_request(stem.with_suffix(SUFFIX)).prompt)
                    done += 1
                    progress(done, total)
                whole.write_text(json.dumps(sorted(prompts)))
            self.prompts |= set(json.loads(whole.read_text()))
            self.keys += [path.with_suffix("") for path in sorted(place.glob("*.safetensors"))]
        if not self.keys:
            names = ", ".join(map(str, datasets))
            raise DatasetError(f"There is no example of the split {split or 'all'} in {names}; add examples.")

    @torch.no_grad()
    def latents(self, images: np.ndarray) -> torch.Tensor:
        """float32 `[C, F, h, w]` of uint8 images `[F, H, W, 3]` or grey ones."""
        video = to_video(images)[None].to(self.device)
        return torch.cat(list(encode_frames(self.vae, video)), 2)[0].cpu()

    def _encode(self, example, stem: Path) -> None:
        tensors = {"clean": self.latents(example.frames).half()}
        if example.labels is not None:
            subject = torch.from_numpy((example.labels > 0).astype(np.float32))[None, 1:]
            size = tensors["clean"].shape[1] - 1, *tensors["clean"].shape[2:]
            tensors["subject"] = F.adaptive_avg_pool3d(subject, size).half()
        write_request(stem.with_suffix(SUFFIX), example.request)
        if example.poses is not None:
            with open(stem.with_suffix(POSES), "wb") as file:
                np.savez_compressed(file, example.poses)
        _save(tensors, stem.with_suffix(".safetensors"))

    def _encode_draft(self, example, stem: Path) -> None:
        draft = draw_draft(example) if example.draft is None else example.draft
        _save({"draft": self.latents(draft).half()}, stem.with_suffix(DRAFT))


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    growing = path.with_suffix(".part")
    save_file(tensors, growing)
    growing.rename(path)


class ShardBatches:
    """Batches by number from a cache; each is of one size and length.

    Args:
        cache: see `LatentCache`.
        patch_size: (frames, rows, columns) of latents to a token, the transformer's.
        encode_prompt: see `EncodePrompt`; all prompts are encoded at once, so that the text encoder can go.
        drafts: whether the batches have drafts; the cache must then have them.
    """

    def __init__(
        self,
        cache: LatentCache,
        settings: TrainingSettings,
        patch_size: Sequence[int],
        encode_prompt: EncodePrompt,
        drafts: bool = False,
    ):
        self.cache, self.settings, self.patch_size, self.drafts = cache, settings, patch_size, drafts
        self._texts = {prompt: _Text.of(encode_prompt(prompt)) for prompt in sorted(cache.prompts)}
        self._by_shape: dict[tuple, list[Path]] = defaultdict(list)
        for key in cache.keys:
            with safe_open(key.with_suffix(".safetensors"), "pt") as file:  # its header alone is read
                self._by_shape[tuple(file.get_slice("clean").get_shape())].append(key)
        self._shape_of = {key: shape for shape, keys in self._by_shape.items() for key in keys}

    def batch(self, number: int, size: int) -> Batch:
        random, settings = np.random.default_rng([self.settings.seed, number]), self.settings
        leader = self.cache.keys[random.integers(len(self.cache.keys))]
        alike = self._by_shape[self._shape_of[leader]]
        keys = [leader, *(alike[random.integers(len(alike))] for _ in range(size - 1))]
        tensors = [load_file(key.with_suffix(".safetensors")) for key in keys]
        requests = [read_request(key.with_suffix(SUFFIX)) for key in keys]

        poses, told = [], []
        for key, request in zip(keys, requests):
            kept, by_camera = draw_poses(random, settings, request.num_frames)
            pictures = key.with_suffix(POSES)
            # Of a clip whose poses are pictures nobody knows how the camera moves.
            if by_camera and not pictures.exists():
                poses.append(camera_poses(request))
                told.append(None)
                continue
            kept &= np.isin(np.arange(request.num_frames), request.conditioned_frames())
            if pictures.exists():
                poses.append(np.load(pictures)["arr_0"] * kept[:, None, None])
            else:
                frames = np.flatnonzero(kept)
                poses.append(condition_images(request.pose, request.width, request.height, frames))
            told.append(kept)
        clean, pose = self._stack(tensors, "clean"), torch.stack(list(map(self.cache.latents, poses)))
        draft = None
        if self.drafts:
            draft = self._stack([load_file(key.with_suffix(DRAFT)) for key in keys], "draft")
        weight = None
        if settings.subject_weight and all("subject" in each for each in tensors):
            share = self._stack(tensors, "subject")
            weight = 1 + settings.subject_weight * (2 * share).clamp(max=1)
        prompts = ["" if random.random() < settings.text_dropout else r.prompt for r in requests]
        text = torch.cat([self._texts[prompt].padded() for prompt in prompts])
        parts = unmatched = None
        if settings.part_masks != "none":
            found = self._parts(requests, told, clean.shape, random)
            parts, unmatched = (None, found) if isinstance(found, Unmatched) else (found, None)
        batch = Batch(clean, pose, text, draft, parts, weight)
        moved = {
            field.name: value.to(self.cache.device)
            for field in dataclasses.fields(batch)
            if (value := getattr(batch, field.name)) is not None
        }
        return Batch(**moved, unmatched=unmatched)

    @staticmethod
    def _stack(tensors: list[dict], name: str) -> torch.Tensor:
        return torch.stack([each[name] for each in tensors]).float()

    def _parts(self, requests, told, shape, random: np.random.Generator) -> PartTokens | Unmatched | None:
        """The parts of each example as the settings have them, as many for each: those that it lacks are
        empty. Where no part maps are known, as of videos, the pose's strokes tell them.

        told: by example the frames that keep their pose, bool [F]; None where that is the camera's.
        """
        grid = shape[3] // self.patch_size[1], shape[4] // self.patch_size[2]
        group, masks, known = self.cache.vae.config.scale_factor_temporal, self.settings.part_masks, []
        for request, kept in zip(requests, told):
            drawn = request.part_maps is None or random.random() >= self.settings.known_share
            if request.part_maps is None:
                first = strokes_of_parts(request, [0], grid)[0]
                ids = np.flatnonzero(first.any((1, 2)))
                first, frames = first[ids], np.zeros((shape[2] - 1, len(ids), *grid), bool)
            else:
                lookup = request.pose.part_lookup()
                seen = request.part_maps[0] if request.first_labels is None else request.first_labels
                ids = np.setdiff1d(lookup[seen], [0]) - 1
                first, frames = parts_from_truth(lookup[request.part_maps], *grid, lookup[seen], group)
            candidates = {}
            if kept is None:
                frames = np.zeros_like(frames)
            elif drawn and len(ids):
                later = strokes_of_parts(request, range(1, request.num_frames), grid)
                later &= kept[1:, None, None, None]
                candidates = dict(enumerate(later, 1))
                later = later[:, ids]
                frames = later.reshape(-1, group, *later.shape[1:]).any(1)
            if masks == "whole":
                first, frames = first.any(0, keepdims=True), frames.any(1, keepdims=True)
            known.append((first, frames, candidates))
        count = max(len(first) for first, *_ in known)
        if not count:
            if self.settings.trainable != "part_attention":
                return None
            count = 1  # an empty one, since the step is of nothing else
        firsts = np.zeros((len(known), count, *grid), bool)
        later = np.zeros((len(known), shape[2] - 1, count, *grid), bool)
        for index, (first, frames, _) in enumerate(known):
            firsts[index, : len(first)], later[index, :, : len(first)] = first, frames
        if masks == "attention":
            plans = [PartPlan(first, candidates) for first, (*_, candidates) in zip(firsts, known)]
            return Unmatched(plans, group)
        return PartTokens.from_masks(torch.from_numpy(firsts), torch.from_numpy(later))


def strokes_of_parts(request: GenerationRequest, frames: Iterable[int], grid: tuple[int, int]) -> np.ndarray:
    """bool [n, P, h, w], which tokens of a grid have a stroke of each part in some frames."""
    count = 1 + max((limb.part for limb in request.pose.limbs), default=-1)
    width = max(LINE_WIDTH, round(LINE_WIDTH * request.width / DRAWN_WIDTH))
    return np.stack([cover_tokens(strokes(request, frame, count, width), *grid) for frame in frames])
