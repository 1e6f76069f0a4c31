"""From a clip's conditions to its frames: encode, denoise window by window, decode, and tell of every step of
it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np
import torch
from diffusers import AutoencoderKLWan, DiffusionPipeline, SchedulerMixin
from diffusers.loaders import WanLoraLoaderMixin
from diffusers.utils.torch_utils import randn_tensor
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from ..conditioning.conditions import FRAMES_PER_LATENT, WINDOW_FRAMES, Conditions, InputError
from ..conditioning.prompts import encode_prompts
from ..models.streaming_vae import encode_frames, to_video
from ..models.transformer import PoseAnythingTransformer3DModel
from .cancellation import interruptible
from .decoding import Check, Frames, WindowDecoder
from .denoising import Denoiser
from .guiders import Guider, NoGuidance, repeat_first_pose
from .latent_preview import LatentPreview
from .options import Settings
from .part_tracking import PartTracker

PROMPTS_KEPT = 32


@dataclass(frozen=True)
class Step:
    """Step `step` of `total` in `stage` ("encoding", "denoising" or "decoding") is done."""

    stage: str
    step: int
    total: int


@dataclass(frozen=True)
class DenoisingStep(Step):
    """A step of the first sample, whose frames begin with `first_frame`."""

    first_frame: int
    clean: torch.Tensor
    fitted_preview: Callable[[], LatentPreview]

    def preview(self) -> tuple[int, np.ndarray]:
        """A frame's index and a rough picture of what will come of it, uint8 [H / 16, W / 16, 3]: halfway
        through."""
        middle = self.clean.shape[2] // 2
        return self.first_frame + FRAMES_PER_LATENT * middle, self.fitted_preview()(self.clean[0, :, middle])


Event = Step | Frames


class PoseAnythingPipeline(DiffusionPipeline, WanLoraLoaderMixin):
    """Pose-guided image to video (paper, section 4).

    Args:
        tokenizer, text_encoder: UMT5 and its tokenizer; not needed for prompts in `prompt_embeds`.
        vae: Wan 2.2's.
        transformer: see `PoseAnythingTransformer3DModel`.
        scheduler: see `schedule.make_scheduler`.

    Attributes:
        prompt_embeds: `[1, 512, text_dim]` of the last prompts that were encoded, by the prompt.
        mag_ratios: of the transformer, for MagCache; measured when first needed.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components = ["tokenizer", "text_encoder"]

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        text_encoder: UMT5EncoderModel | None,
        vae: AutoencoderKLWan,
        transformer: PoseAnythingTransformer3DModel,
        scheduler: SchedulerMixin,
    ):
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            vae=vae,
            transformer=transformer,
            scheduler=scheduler,
        )
        self.prompt_embeds: dict[str, torch.Tensor] = {}
        self.mag_ratios: list[float] | None = None
        self._previews: WeakKeyDictionary[AutoencoderKLWan, LatentPreview] = WeakKeyDictionary()

    def __call__(
        self,
        clip: Conditions,
        seeds: Sequence[int] = (0,),
        guider: Guider | None = None,
        settings: Settings = Settings(),
        window_frames: int = WINDOW_FRAMES,
    ) -> np.ndarray:
        """All frames at once, uint8 [len(seeds), F, H, W, 3]; see `stream`."""
        events = self.stream(clip, seeds, guider, settings, window_frames)
        return np.concatenate([event.images for event in events if isinstance(event, Frames)], axis=1)

    @torch.no_grad()
    def stream(
        self,
        clip: Conditions,
        seeds: Sequence[int] = (0,),
        guider: Guider | None = None,
        settings: Settings = Settings(),
        window_frames: int = WINDOW_FRAMES,
        check: Check = None,
    ) -> Iterator[Event]:
        """Make a clip, once for each seed, and yield what happens, frames as soon as they are final and in
        order.

        What comes of a seed doesn't depend on the others, to rounding.

        Args:
            window_frames: frames made at once. Longer clips are chained, each window from the last frame of
                the one before.
            check: called many times a second; what it raises ends everything, and nothing more is decoded.

        Raises:
            InputError: clip, guider or settings don't fit the model or each other.
        """
        guider = guider or NoGuidance()
        if "camera" in guider.pose_conditions and clip.camera_images is None:
            raise InputError(
                "This guidance is by the camera's motion, and there is none; set one, or choose another."
            )
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        windows = list(clip.windows(window_frames))
        num_steps = len(windows) * settings.num_inference_steps
        first_images = np.stack([clip.first_frame] * len(seeds))
        preview = partial(self._fitted_preview, clip.first_frame)

        prompts = {name: getattr(clip, name) for name in guider.text_conditions}
        yield from self.encode_prompts(prompts.values(), check)
        text = {
            name: self.prompt_embeds[prompt].to(self._execution_device) for name, prompt in prompts.items()
        }

        decoder = WindowDecoder(self.vae, check)
        with ThreadPoolExecutor(1) as executor:
            for number, (start, window) in enumerate(windows):
                tracker = PartTracker(
                    window, self.transformer, len(seeds), settings.matching, executor, check
                )
                first, poses = yield from self._encode_pictures(window, first_images, guider, check)
                denoiser = Denoiser(
                    self.transformer,
                    self.scheduler,
                    guider,
                    first,
                    text,
                    poses,
                    tracker,
                    settings,
                    self.mag_ratios,
                )
                noise_shape = (
                    len(seeds),
                    first.shape[1],
                    1 + (window.num_frames - 1) // FRAMES_PER_LATENT,
                    *first.shape[3:],
                )
                noise = randn_tensor(noise_shape, generators, first.device, torch.float32)
                with interruptible(self.transformer.blocks, check):
                    done = number * settings.num_inference_steps
                    for done, (latents, clean) in enumerate(denoiser.steps(noise), done + 1):
                        yield DenoisingStep("denoising", done, num_steps, start, clean, preview)
                self.mag_ratios = denoiser.mag_ratios
                first_images = yield from decoder.decode(latents, start)

    @torch.no_grad()
    def encode_prompts(self, prompts: Iterable[str], check: Check = None) -> Iterator[Step]:
        """Encode those that `prompt_embeds` lacks; from then on the text encoder is not needed for them.

        The longest unused are forgotten for them.
        """
        prompts = dict.fromkeys(prompts)
        missing = [prompt for prompt in prompts if prompt not in self.prompt_embeds]
        for prompt in prompts.keys() & self.prompt_embeds.keys():
            self.prompt_embeds[prompt] = self.prompt_embeds.pop(prompt)
        for number, prompt in enumerate(missing, 1):
            with interruptible(self.text_encoder.encoder.block, check):
                embeds = encode_prompts(self.text_encoder, self.tokenizer, [prompt], self._execution_device)
            self.prompt_embeds[prompt] = embeds.cpu()
            if len(self.prompt_embeds) > PROMPTS_KEPT:
                del self.prompt_embeds[next(iter(self.prompt_embeds))]
            yield Step("reading the prompt", number, len(missing))

    def _fitted_preview(self, picture: np.ndarray) -> LatentPreview:
        """The preview of this VAE, fitted when first asked for."""
        if self.vae not in self._previews:
            self._previews[self.vae] = LatentPreview(self.vae, picture[None], self._execution_device)
        return self._previews[self.vae]

    def _encode_pictures(
        self, clip: Conditions, first_images: np.ndarray, guider: Guider, check: Check
    ) -> Generator[Step, None, tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        """Latents of the first frame `[B, C, 1, h, w]`, and of the poses by the guider's conditions `[1, C,
        F, h, w]`."""
        device = self._execution_device
        make = {
            "subject": lambda: clip.pose_images,
            "first_pose": lambda: repeat_first_pose(clip.pose_images, clip.pose_frames),
            "camera": lambda: clip.camera_images,
            "empty": lambda: np.zeros_like(clip.pose_images),
        }
        names = list(dict.fromkeys(guider.pose_conditions))
        total = len(names) * (1 + (clip.num_frames - 1) // FRAMES_PER_LATENT)
        poses, done = {}, 0
        with interruptible([*self.vae.encoder.down_blocks, self.vae.encoder.mid_block], check):
            (first,) = encode_frames(self.vae, to_video(first_images[:, None]).to(device))
            for name in names:
                frames = []
                for done, frame in enumerate(
                    encode_frames(self.vae, to_video(make[name]())[None].to(device)), done + 1
                ):
                    frames.append(frame)
                    yield Step("encoding", done, total)
                poses[name] = torch.cat(frames, dim=2)
        return first, poses
