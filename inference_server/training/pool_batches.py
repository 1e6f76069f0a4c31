"""Batches from a pool of clips, kept whole on the training device."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F

from ..poseanything.conditioning.parts import PartPlan
from ..poseanything.models.linear_vae import AutoencoderLinear
from ..poseanything.models.part_tokens import PartTokens
from ..synthesis.pool import FRAMES_PER_LATENT, STRIDE, Pool, row_shapes
from .objective import Batch, Unmatched
from .settings import TrainingSettings
from .sparse_poses import draw_poses

UPLOAD_ROWS = 128
ON_DEVICE = ("frames", "drafts", "poses", "cameras", "subjects")


def to_video(images: torch.Tensor) -> torch.Tensor:
    """float32 `[B, 3, F, H, W]` in [-1, 1] from uint8 `[B, F, H, W, 3]`, or grey ones `[B, F, H, W]`."""
    images = images.unsqueeze(-1).expand(*images.shape, 3) if images.ndim == 4 else images
    return images.movedim(-1, 1).float() / 127.5 - 1


def encode(vae: AutoencoderLinear, video: torch.Tensor) -> torch.Tensor:
    """Normalised latents of whole videos at once, as `encode_frames` gives them one after another."""
    layer = vae.encoder.mid_block
    latents = torch.einsum("kc,bcfhw->bkfhw", layer.weight.flatten(1), vae.patches(video))
    mean, std = torch.tensor([vae.config.latents_mean, vae.config.latents_std], device=video.device)
    return (latents + (layer.bias - mean).view(-1, 1, 1, 1)) / std.view(-1, 1, 1, 1)


def fit_vae(
    pool: Pool, rows: np.ndarray, z_dim: int, device: torch.device | str = "cpu"
) -> AutoencoderLinear:
    """A linear VAE of the `z_dim` principal components of the pool's frames, or lossless with as many as
    there are pixels.

    One scale for all components, by which they have unit variance on average.
    """
    vae = AutoencoderLinear(z_dim=z_dim, patch_size=STRIDE, scale_factor_temporal=FRAMES_PER_LATENT)
    videos = [to_video(torch.from_numpy(np.array(pool.arrays["frames"][row])[None])) for row in rows]
    samples = torch.cat([vae.patches(video).movedim(1, -1).flatten(0, -2) for video in videos]).to(device)
    mean = samples.mean(0)
    centred = samples - mean
    if z_dim == samples.shape[1]:
        basis = torch.eye(z_dim, device=device)
    else:
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        basis = vectors[:, -z_dim:].flip(1).T
    scale = float((centred @ basis.T).square().mean().sqrt())
    vae.register_to_config(latents_std=[scale] * z_dim)
    vae.set_basis(basis.cpu(), mean.cpu())
    return vae.requires_grad_(False)


class PoolBatches:
    """Batches by number: the same number gives the same batch, as long as no rows were added.

    Args:
        pool: what to draw from; rows that are finished later are taken in on the way.
        vae: codes the pictures.
        text_dim: of the transformer, which sees a single token of zeros.
        drafts: whether drafts are needed.
        held_out: how many of the first rows are kept for `held_out_batch`.
        capacity: rows kept on the device at most.
        preferred, preferred_share: the rows after the held out ones that are drawn with this probability.
    """

    def __init__(
        self,
        pool: Pool,
        vae: AutoencoderLinear,
        settings: TrainingSettings,
        text_dim: int,
        device: torch.device,
        drafts: bool,
        held_out: int = 0,
        capacity: int | None = None,
        preferred: int = 0,
        preferred_share: float = 0.0,
    ):
        self.pool, self.vae, self.settings, self.text_dim = pool, vae.to(device), settings, text_dim
        self.device, self.drafts, self.held_out = device, drafts, held_out
        self.preferred, self.preferred_share = preferred, preferred_share
        self.capacity = min(capacity or pool.size, pool.size)
        shapes = row_shapes(pool.settings)
        self._device_arrays = {
            name: torch.empty((self.capacity, *shapes[name]), dtype=torch.uint8, device=device)
            for name in ON_DEVICE
            if drafts or name != "drafts"
        }
        self._masks = {
            name: np.zeros((self.capacity, *shapes[name]), bool)
            for name in ("first_masks", "known_masks", "drawn_masks")
        }
        self._places = np.zeros(0, int)  # rows of the pool by their place on the device
        self._taken = np.zeros(pool.size, bool)
        self._filmed = np.zeros(self.capacity, bool)  # by their place: those whose camera moves

    @property
    def count(self) -> int:
        return len(self._places)

    def take_in(self, limit: int | None = None) -> int:
        """Bring finished rows to the device, `limit` of them at most; returns how many there are."""
        fresh = np.flatnonzero(np.asarray(self.pool.ready, bool) & ~self._taken)[:limit]
        for rows in np.split(fresh, range(UPLOAD_ROWS, len(fresh), UPLOAD_ROWS)):
            rows = rows[: self.capacity - self.count]
            if not len(rows):
                break
            places = slice(self.count, self.count + len(rows))
            for name, array in self._device_arrays.items():
                array[places] = torch.from_numpy(np.ascontiguousarray(self.pool.arrays[name][rows])).to(
                    self.device
                )
            for name, array in self._masks.items():
                array[places] = self.pool.arrays[name][rows]
            cameras = self.pool.arrays["cameras"][rows]
            self._filmed[places] = (cameras[:, -1] != cameras[:, 0]).any((1, 2))
            self._taken[rows] = True
            self._places = np.concatenate([self._places, rows])
        return self.count

    def batch(self, number: int, size: int) -> Batch:
        """Training batch `number`."""
        settings = self.settings
        if int(self.pool.ready.sum()) - self.count >= UPLOAD_ROWS // 2:
            self.take_in(UPLOAD_ROWS)
        random = np.random.default_rng([settings.seed, number])
        training = np.flatnonzero(self._places >= self.held_out)
        index = training[random.integers(len(training), size=size)]
        preferred = np.flatnonzero(
            (self._places >= self.held_out) & (self._places < self.held_out + self.preferred)
        )
        if len(preferred):
            chosen = random.random(size) < self.preferred_share
            index = np.where(chosen, preferred[random.integers(len(preferred), size=size)], index)
        flipped = random.random(size) < 0.5
        colours = np.stack(
            [random.permutation(3) if random.random() < 0.5 else np.arange(3) for _ in range(size)]
        )
        drawn = [draw_poses(random, settings, self.pool.settings.num_frames) for _ in range(size)]
        kept, by_camera = (np.stack(column) for column in zip(*drawn))
        filmed = training[self._filmed[training]]
        if by_camera.any() and len(filmed):  # of a camera that stands still there is little to learn
            index = np.where(by_camera, filmed[random.integers(len(filmed), size=size)], index)
        masks = settings.part_masks
        known = random.random(size) < settings.known_share
        return self._make(
            index,
            flipped,
            colours,
            kept,
            None if masks == "none" else known,
            weighted=True,
            whole=masks == "whole",
            by_camera=by_camera,
            told_apart=masks != "attention",
        )

    def held_out_batch(
        self,
        start: int,
        size: int,
        parts: str = "none",
        pose_shift: int = 0,
        kept: np.ndarray | None = None,
        still: bool = False,
    ) -> Batch:
        """Held out clips from `start` on, never changed.

        parts: "none", "known", "drawn", or "whole", the subject as one part drawn by the pose.
        pose_shift: take the poses (and drawn parts) of the clips so many places further, another creature's.
        kept: bool [F], the frames that keep their pose; None for all.
        still: the first pose in place of each, as guidance away from it has it.
        """
        places = self._held_out_places()
        index = places[start : start + size]
        poses = places[(np.arange(start, start + len(index)) + pose_shift) % len(places)]
        ones = np.ones((len(index), self.pool.settings.num_frames), bool)
        if kept is not None:
            ones &= kept
        known = None if parts == "none" else np.full(len(index), parts == "known")
        none = np.zeros(len(index), bool)
        colours = np.tile(np.arange(3), (len(index), 1))
        return self._make(index, none, colours, ones, known, poses=poses, whole=parts == "whole", still=still)

    def held_out_frames(
        self, start: int, size: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """uint8 frames, subjects and drafts of the held out clips from `start` on."""
        index = torch.from_numpy(self._held_out_places()[start : start + size]).to(self.device)
        arrays = self._device_arrays
        return (
            arrays["frames"][index],
            arrays["subjects"][index],
            arrays["drafts"][index] if self.drafts else None,
        )

    def _held_out_places(self) -> np.ndarray:
        order = np.argsort(self._places, kind="stable")
        return order[self._places[order] < self.held_out]

    def _make(
        self,
        index,
        flipped,
        colours,
        kept,
        known,
        weighted=False,
        poses=None,
        whole=False,
        still=False,
        by_camera=None,
        told_apart=True,
    ) -> Batch:
        # The parts first: what follows only waits in the device's queue.
        poses = index if poses is None else poses
        by_camera = np.zeros(len(index), bool) if by_camera is None else by_camera
        told = kept & ~by_camera[:, None]
        parts = unmatched = None
        if known is not None:
            masks = self._parts(index, poses, flipped, told, known & ~by_camera, whole)
            if told_apart:
                parts = self._indexed(*masks)
            else:
                plans = [PartPlan(first, dict(enumerate(later, 1))) for first, later in zip(*masks)]
                unmatched = Unmatched(plans, frames_per_latent=1)  # a row has no masks of single frames
        where, posed, order = self._send(index), self._send(poses), self._send(colours)
        turn, kept = self._send(flipped), self._send(kept)

        def pictures(name: str, rows: torch.Tensor) -> torch.Tensor:
            taken = self._device_arrays[name][rows]
            turned = taken.flip(3)
            return torch.where(turn.view(-1, *[1] * (taken.ndim - 1)), turned, taken)

        def recoloured(images: torch.Tensor) -> torch.Tensor:
            return images.gather(4, order[:, None, None, None].expand_as(images))

        with torch.no_grad():
            clean = encode(self.vae, to_video(recoloured(pictures("frames", where))))
            drawn = pictures("poses", posed)
            drawn = (drawn[:, :1].expand_as(drawn) if still else drawn) * kept[:, :, None, None]
            if by_camera.any():
                cameras = pictures("cameras", where)
                drawn = torch.where(self._send(by_camera)[:, None, None, None], cameras, drawn)
            pose = encode(self.vae, to_video(drawn))
            draft = None
            if self.drafts:
                draft = encode(self.vae, to_video(recoloured(pictures("drafts", where))))
            weight = None
            if weighted and self.settings.subject_weight:
                subject = pictures("subjects", where)[:, 1:].float()
                share = F.avg_pool3d(subject[:, None], (FRAMES_PER_LATENT, STRIDE, STRIDE))
                weight = 1 + self.settings.subject_weight * (2 * share).clamp(max=1)
        text = torch.zeros(len(index), 1, self.text_dim, device=self.device)
        return Batch(clean, pose, text, draft, parts, weight, unmatched)

    def _parts(self, index, poses, flipped, kept, known, whole) -> tuple[np.ndarray, np.ndarray]:
        first = self._masks["first_masks"][index]
        posed = kept[:, 1:].reshape(len(index), -1, FRAMES_PER_LATENT).any(2)[:, :, None, None, None]
        drawn = self._masks["drawn_masks"][poses] & posed
        later = np.where(known[:, None, None, None, None], self._masks["known_masks"][index], drawn)
        if whole:
            first, later = first.any(1, keepdims=True), later.any(2, keepdims=True)
        first = np.where(flipped[:, None, None, None], first[..., ::-1], first)
        later = np.where(flipped[:, None, None, None, None], later[..., ::-1], later)
        return first, later

    def _indexed(self, first: np.ndarray, later: np.ndarray) -> PartTokens:
        parts = PartTokens.from_masks(torch.from_numpy(first), torch.from_numpy(later))
        return _pinned(parts).to(self.device, non_blocking=True) if self.device.type == "cuda" else parts

    def _send(self, array: np.ndarray) -> torch.Tensor:
        """To the device, without waiting for what it is at."""
        tensor = torch.from_numpy(array)
        return (
            tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor
        )


def _pinned(indices):
    """A dataclass of tensors in memory from which a card copies by itself."""
    fields = {field.name: getattr(indices, field.name) for field in dataclasses.fields(indices)}
    pinned = {
        name: value.pin_memory() if isinstance(value, torch.Tensor) else _pinned(value)
        for name, value in fields.items()
        if isinstance(value, torch.Tensor) or dataclasses.is_dataclass(value)
    }
    return dataclasses.replace(indices, **pinned)
