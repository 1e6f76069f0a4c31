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
from diffusers import AutoencoderKLWan, DiffusionPipeline, FlowMatchLCMScheduler, SchedulerMixin
from diffusers.loaders import WanLoraLoaderMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL.Image import Image, fromarray
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from ..conditioning.conditions import Conditions, InputError, LatentGrid
from ..conditioning.files import squash_photo
from ..conditioning.parts import squash
from ..conditioning.parts.segments import is_line
from ..conditioning.prompts import encode_prompts
from ..conditioning.windows import Window, plan_windows
from ..models.linear_vae import AutoencoderLinear
from ..models.streaming_vae import encode_images
from ..models.tiny_decoder import TinyDecoder
from ..models.transformer import PoseAnythingTransformer3DModel
from .cancellation import interruptible
from .decoding import Check, ClipDecoder, Frames
from .denoising import Denoiser, Start
from .guiders import ClassifierFreePoseGuidance, Guider, NoGuidance, repeat_first_pose
from .latent_cache import LatentCache
from .latent_preview import LatentPreview
from .options import Settings
from .part_tracking import PartTracker

PROMPTS_KEPT = 32
WINDOW_OVERLAP = 16
"""Pixel frames that neighbouring windows share, as far as half a window allows."""


@dataclass(frozen=True)
class Step:
    """Step `step` of `total` in `stage` ("encoding", "denoising" or "decoding") is done."""

    stage: str
    step: int
    total: int


@dataclass(frozen=True)
class DenoisingStep(Step):
    """A denoising step is done.

    timestep: the model's, of the step.
    latents: `[B, C, F, h, w]` of the window after the step.
    clean: the same, as the model expects them at the end.
    frames: the pixel frame that each latent frame begins or ends with: 0, and the last one of each later
        group.
    """

    timestep: float
    latents: torch.Tensor
    clean: torch.Tensor
    frames: Sequence[int]
    picture: Callable[[torch.Tensor, int], np.ndarray]

    def preview(self) -> tuple[int, np.ndarray]:
        """A frame's index and a rough picture of what will come of it, uint8 [h, w, 3]: halfway through, of
        the first sample. By the tiny decoder half as large as the clip, else a pixel for each latent one."""
        middle = len(self.frames) // 2
        return self.frames[middle], self.picture(self.clean[0], middle)


@dataclass(frozen=True, eq=False)
class Latents:
    """The clip's next latent frames that are final, `[B, C, n, h, w]`, normalised."""

    latents: torch.Tensor


Event = Step | Frames | Latents


@dataclass
class PoseAnythingPipelineOutput(BaseOutput):
    """frames: of each sample its video, in the form that `output_type` says."""

    frames: np.ndarray | torch.Tensor | list[list[Image]]


class PoseAnythingPipeline(DiffusionPipeline, WanLoraLoaderMixin):
    """Pose-guided image to video (paper, section 4).

    Args:
        tokenizer, text_encoder: UMT5 and its tokenizer; not needed for prompts in `prompt_embeds`, nor for
            checkpoints without text conditioning.
        vae: Wan 2.2's, or a linear one.
        transformer: see `PoseAnythingTransformer3DModel`. Its configuration says how it is sampled from.
        scheduler: see `schedulers.make_scheduler`.
        preview_decoder: draws the previews; without it they are drawn by a linear fit of the VAE's latents.

    Attributes:
        prompt_embeds: `[1, 512, text_dim]` of the last prompts that were encoded, by the prompt.
        mag_ratios: of the transformer, for MagCache; measured when first needed.

    Example:
        >>> import torch
        >>> from diffusers.utils import export_to_video, load_image
        >>> pipe = PoseAnythingPipeline.from_pretrained("weights/small", torch_dtype=torch.bfloat16)
        >>> pipe = pipe.to("cuda")
        >>> poses = [load_image(f"skeleton/{frame:03d}.png") for frame in range(81)]  # white lines on black
        >>> video = pipe(
        ...     image=load_image("first.png"),
        ...     prompt="a deer walks through a forest",
        ...     poses=poses,
        ...     generator=torch.Generator().manual_seed(0),
        ... ).frames[0]
        >>> export_to_video(video, "deer.mp4", fps=24)
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components = ["tokenizer", "text_encoder", "preview_decoder"]
    _callback_tensor_inputs = ["latents"]

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        text_encoder: UMT5EncoderModel | None,
        vae: AutoencoderKLWan | AutoencoderLinear,
        transformer: PoseAnythingTransformer3DModel,
        scheduler: SchedulerMixin,
        preview_decoder: TinyDecoder | None = None,
    ):
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            vae=vae,
            transformer=transformer,
            scheduler=scheduler,
            preview_decoder=preview_decoder,
        )
        self.prompt_embeds: dict[str, torch.Tensor] = {}
        self.mag_ratios: list[float] | None = None
        self._latents = LatentCache()
        self._previews: WeakKeyDictionary[torch.nn.Module, LatentPreview] = WeakKeyDictionary()

    @property
    def grid(self) -> LatentGrid:
        """How pixels become latents and tokens."""
        return LatentGrid.of(self.vae.config, self.transformer.config)

    @torch.no_grad()
    def __call__(
        self,
        image: Image | np.ndarray | torch.Tensor,
        prompt: str = "",
        poses: Sequence[Image] | np.ndarray | torch.Tensor | None = None,
        negative_prompt: str = "",
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        timesteps: Sequence[float] | None = None,
        guidance_scale: float = 1.0,
        guider: Guider | None = None,
        num_videos_per_prompt: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        subject_mask: Image | np.ndarray | None = None,
        part_maps: np.ndarray | None = None,
        draft: Sequence[Image] | np.ndarray | torch.Tensor | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[[PoseAnythingPipeline, int, float, dict], dict | None] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        settings: Settings | None = None,
    ) -> PoseAnythingPipelineOutput | tuple:
        """Make a clip, as diffusers' image-to-video pipelines do. `stream` tells of it as it comes.

        Pictures may be PIL images, uint8 arrays `[H, W, 3]` or `[H, W]`, or float tensors `[3, H, W]` in [0,
        1]; those of another size are scaled to the clip's, each axis on its own.

        Args:
            image: the first frame.
            poses: a picture a frame, white lines on black; black where a frame has no pose. None for no pose
                at all.
            height, width: of the clip, multiples of the grid's stride; by default the poses' or the image's
                shape at the size the checkpoint was trained at.
            num_frames: by default as many as there are poses, or as the checkpoint was trained with.
            num_inference_steps, timesteps: how many steps, or at which timesteps; by default the
                checkpoint's.
            guidance_scale: of classifier-free guidance on text and pose; 1 is none.
            guider: other guidance, in place of `guidance_scale`.
            num_videos_per_prompt: samples made at once.
            generator: one for all, or one for each sample.
            subject_mask: the first frame's subject, white; parts end where it does.
            part_maps: uint8 `[F, h, w]`, see `Conditions`.
            draft: a picture a frame, for checkpoints whose flow starts from a draft.
            output_type: "np" for float32 `[B, F, H, W, 3]` in [0, 1], "pt" for a tensor `[B, F, 3, H, W]`,
                "pil" for lists of images, "latent" for normalised latents `[B, C, F, h, w]`.
            return_dict: whether to return a `PoseAnythingPipelineOutput` and not a tuple.
            callback_on_step_end: called after each step with the pipeline, the step's index, its timestep and
                `{"latents": ...}`; the latents that it returns in a dictionary are gone on with.
            settings: what else there is to say of the sampling; the number of steps is then its own.

        Raises:
            InputError: the inputs don't fit the model or each other.
            ValueError: there is no such `output_type` or tensor for the callback.
        """
        if output_type not in ("np", "pt", "pil", "latent"):
            raise ValueError(f"There is no output_type {output_type!r}; choose np, pt, pil or latent.")
        if not set(callback_on_step_end_tensor_inputs) <= set(self._callback_tensor_inputs):
            raise ValueError(
                f"The callback can be given {', '.join(self._callback_tensor_inputs)}, not"
                f" {', '.join(callback_on_step_end_tensor_inputs)}."
            )
        conditions = self._conditions(
            image, prompt, negative_prompt, poses, height, width, num_frames, subject_mask, part_maps, draft
        )
        if guider is None and guidance_scale != 1:
            guider = ClassifierFreePoseGuidance(guidance_scale)
        generators = (
            list(generator)
            if isinstance(generator, Sequence)
            else [generator or torch.Generator()] * num_videos_per_prompt
        )
        if generator is None:
            generators[0].seed()
        events = self.stream(
            conditions,
            guider=guider,
            settings=settings or Settings(num_inference_steps=num_inference_steps, timesteps=timesteps),
            generators=generators,
            decode=output_type != "latent",
        )
        made, number, sent = [], 0, None
        while True:
            try:
                event = events.send(sent)
            except StopIteration:
                break
            sent = None
            if isinstance(event, Frames):
                made.append(event.images)
            elif isinstance(event, Latents):
                made.append(event.latents)
            elif isinstance(event, DenoisingStep) and callback_on_step_end is not None:
                given = {name: getattr(event, name) for name in callback_on_step_end_tensor_inputs}
                returned = callback_on_step_end(self, number, event.timestep, given) or {}
                sent, number = returned.get("latents"), number + 1
        frames = _output(made, output_type)
        return PoseAnythingPipelineOutput(frames) if return_dict else (frames,)

    def sample(
        self,
        conditions: Conditions,
        seeds: Sequence[int] = (0,),
        guider: Guider | None = None,
        settings: Settings = Settings(),
        window_frames: int | None = None,
    ) -> np.ndarray:
        """All frames of `stream` at once, uint8 `[len(seeds), F, H, W, 3]`."""
        events = self.stream(conditions, seeds, guider, settings, window_frames)
        return np.concatenate([event.images for event in events if isinstance(event, Frames)], axis=1)

    @torch.no_grad()
    def stream(
        self,
        conditions: Conditions,
        seeds: Sequence[int] = (0,),
        guider: Guider | None = None,
        settings: Settings = Settings(),
        window_frames: int | None = None,
        check: Check = None,
        generators: Sequence[torch.Generator] | None = None,
        decode: bool = True,
    ) -> Generator[Event, torch.Tensor | None, None]:
        """Make a clip, once for each seed, and yield what happens, frames as soon as they are final and in
        order.

        Results do not depend on the batch, up to rounding. Clips longer than a window are made window by
        window: each has the user's picture for its first frame, goes on from the latents of the one before,
        and fades into them.

        Args:
            conditions: of the clip.
            seeds: one for each sample.
            window_frames: frames made at once, by default as many as the checkpoint was trained with.
            check: called many times a second; what it raises ends everything, and nothing more is decoded.
            generators: in place of `seeds`.
            decode: whether to yield `Frames`, or else `Latents`.

        Yields:
            `Step`, `DenoisingStep`, `Frames` and `Latents`. Latents sent in answer to a `DenoisingStep` are
            gone on with in place of its own.

        Raises:
            InputError: conditions, guider or settings don't fit the model or each other.
        """
        config, grid = self.transformer.config, self.grid
        guider = (guider or NoGuidance()).for_checkpoint(config)
        self._check_inputs(conditions, guider)
        conditions = conditions.with_merged_parts(config.max_parts)
        generators = generators or [torch.Generator().manual_seed(seed) for seed in seeds]
        windows = plan_windows(
            grid.latent_frames(conditions.num_frames),
            grid.latent_frames(window_frames or config.sample_frames),
            WINDOW_OVERLAP // grid.frames_per_latent,
        )
        preview = partial(self._preview, conditions.first_frame)
        device = self._execution_device  # which looks through all modules each time
        text = yield from self._encode_text(conditions, guider, device, check)
        encoded: dict[str, torch.Tensor] = {}
        shared: torch.Tensor | None = None
        decoder, done = ClipDecoder(self.vae, check), 0

        with ThreadPoolExecutor(1) as executor:
            for window, following in zip(windows, [*windows[1:], None]):
                tracker = PartTracker(
                    conditions.of_window(window, grid.frames_per_latent),
                    grid,
                    self.transformer,
                    len(generators),
                    settings.matching,
                    executor,
                    check,
                )
                if not encoded:  # beside the search for the first window's parts
                    encoded = yield from self._encode_pictures(conditions, guider, device, check)
                denoiser = Denoiser(
                    self.transformer,
                    self.scheduler,
                    guider,
                    self._start(window, encoded, shared, generators),
                    text,
                    {name: encoded[name][:, :, window.frames] for name in guider.pose_conditions},
                    tracker,
                    settings,
                    generators,
                    self.mag_ratios,
                )
                total = len(windows) * denoiser.num_steps
                latents = yield from self._denoise(denoiser, window, done, total, preview, check)
                done += denoiser.num_steps
                self.mag_ratios = denoiser.mag_ratios
                # What the next window blends with is not final yet.
                stop = window.stop if following is None else following.final
                final = latents[:, :, window.place(window.final) : window.place(stop)]
                if decode:
                    yield from decoder.decode(final)
                else:
                    yield Latents(final)
                shared = None if following is None else latents[:, :, window.place(following.start) :]

    def _denoise(
        self,
        denoiser: Denoiser,
        window: Window,
        done: int,
        total: int,
        preview: Callable[[torch.Tensor, int], np.ndarray],
        check: Check,
    ) -> Generator[DenoisingStep, torch.Tensor | None, torch.Tensor]:
        """A window's steps, of `total` in all windows after the `done` of those before; returns its
        latents."""
        frames = [self.grid.num_frames(frame + 1) - 1 for frame in window.frames]
        steps, sent = denoiser.steps(), None
        with interruptible(self.transformer.blocks, check):
            for number in range(denoiser.num_steps):
                latents, clean = steps.send(sent)
                step, timestep = done + number + 1, denoiser.timestep(number)
                sent = yield DenoisingStep(
                    "denoising", step, total, timestep, latents, clean, frames, preview
                )
                latents = latents if sent is None else sent
            next(steps, None)
        return latents

    def _check_inputs(self, conditions: Conditions, guider: Guider) -> None:
        height, width = conditions.size
        self.grid.check_size(width, height, conditions.num_frames)
        if "camera" in guider.pose_conditions and conditions.camera_images is None:
            raise InputError(
                "This guidance is by the camera's motion, and there is none; set one, or choose another."
            )
        if self._needs_draft and conditions.draft is None:
            raise InputError(
                "This checkpoint starts from a draft of the clip, and there is none; give one, or choose "
                "another."
            )
        if self.transformer.config.init == "draft" and isinstance(self.scheduler, FlowMatchLCMScheduler):
            raise InputError(
                "The scheduler lcm starts every step from noise, and this checkpoint from a draft; choose "
                "euler."
            )

    @property
    def _needs_draft(self) -> bool:
        config = self.transformer.config
        return "draft" in (config.init, config.prediction_base)

    def _start(
        self,
        window: Window,
        encoded: dict[str, torch.Tensor],
        before: torch.Tensor | None,
        generators: Sequence[torch.Generator],
    ) -> Start:
        """What a window begins with; `before` are the latents that it shares with the one before."""
        config, frames, first = self.transformer.config, window.frames, encoded["first"]
        shape = (len(generators), first.shape[1], len(frames), *first.shape[3:])
        latents = randn_tensor(shape, list(generators), first.device, torch.float32)
        if config.init == "draft":
            latents = encoded["draft"][:, :, frames] + config.init_noise * latents
        known = torch.zeros_like(latents)
        known[:, :, :1] = first
        if before is not None:
            known[:, :, 1 : 1 + before.shape[2]] = before
        base = None if config.prediction_base is None else encoded[config.prediction_base][:, :, frames]
        held = window.held if window.held <= config.held_latents else 0
        return Start(latents, known, torch.tensor(window.weights, device=latents.device), base, 1 + held)

    def _encode_text(
        self, conditions: Conditions, guider: Guider, device: torch.device, check: Check
    ) -> Generator[Step, None, dict[str, torch.Tensor]]:
        """Text embeddings by the guider's conditions."""
        config = self.transformer.config
        prompts = {name: getattr(conditions, name) for name in guider.text_conditions}
        if not config.text_conditioning:
            return dict.fromkeys(prompts, torch.zeros(1, 1, config.text_dim, device=device))
        yield from self.encode_prompts(prompts.values(), check)
        return {name: self.prompt_embeds[prompt].to(device) for name, prompt in prompts.items()}

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

    def _preview(self, known: np.ndarray, latents: torch.Tensor, frame: int) -> np.ndarray:
        """A frame of latents `[C, F, h, w]` as uint8 [h, w, 3]. The fit, to a `known` picture, is made when
        first asked for."""
        if self.preview_decoder is not None:
            return self.preview_decoder.preview(latents, frame)
        if self.vae not in self._previews:
            self._previews[self.vae] = LatentPreview(self.vae, known[None], self._execution_device)
        return self._previews[self.vae](latents[:, frame])

    def _encode_pictures(
        self, conditions: Conditions, guider: Guider, device: torch.device, check: Check
    ) -> Generator[Step, None, dict[str, torch.Tensor]]:
        """Latents `[1, C, F, h, w]` of the whole clip: of the poses by the guider's conditions, of the draft
        and of the "first_frame" standing still where the model asks for them; and `[1, C, 1, h, w]` of the
        picture, "first".

        Those that were encoded before are taken from the cache.
        """
        poses, picture = conditions.pose_images, conditions.first_frame
        make: dict[str, Callable[[], np.ndarray | None]] = {
            "first": lambda: picture[None],
            "subject": lambda: poses,
            "first_pose": lambda: repeat_first_pose(poses, conditions.pose_frames or ()),
            "camera": lambda: conditions.camera_images,
            "empty": lambda: np.zeros_like(poses),
            "draft": lambda: conditions.draft,
            "first_frame": lambda: np.broadcast_to(picture, (len(poses), *picture.shape)),
        }
        config, vae = self.transformer.config, self.vae
        bases = [config.prediction_base, "draft" if config.init == "draft" else None]
        names = dict.fromkeys(["first", *guider.pose_conditions, *filter(None, bases)])
        images = {name: pictures for name in names if (pictures := make[name]()) is not None}
        kept = {name: self._latents.get(vae, pictures) for name, pictures in images.items()}
        encoded = {name: latents for name, latents in kept.items() if latents is not None}
        missing = [name for name in images if name not in encoded]
        total, done = sum(self.grid.latent_frames(len(images[name])) for name in missing), 0
        with interruptible([*vae.encoder.down_blocks, vae.encoder.mid_block], check):
            for name in missing:
                frames = []
                for frame in encode_images(vae, images[name], device):
                    frames.append(frame)
                    done += 1
                    yield Step("encoding", done, total)
                encoded[name] = torch.cat(frames, dim=2)
                self._latents.put(vae, images[name], encoded[name])
        return {name: latents.to(device) for name, latents in encoded.items()}

    def _conditions(
        self, image, prompt, negative_prompt, poses, height, width, num_frames, subject_mask, part_maps, draft
    ) -> Conditions:
        """Conditions from what the pipeline is called with. Raises `InputError`."""
        grid, config = self.grid, self.transformer.config
        image = _picture(image)
        poses = [] if poses is None else [_grey(_picture(pose)) for pose in poses]
        num_frames = num_frames or grid.num_frames(grid.latent_frames(len(poses) or config.sample_frames))
        if poses and len(poses) < num_frames:
            raise InputError(
                "There are {count} poses for {num_frames} frames; give a picture a frame.",
                count=len(poses),
                num_frames=num_frames,
            )
        if height is None or width is None:
            shown = (poses or [image])[0]
            width, height = grid.fit_size(shown.shape[1], shown.shape[0], config.sample_size)
        grid.check_size(width, height, num_frames)
        images = np.zeros((num_frames, height, width), np.uint8)
        for target, pose in zip(images, poses):
            target[:] = squash(pose, width, height)
        if subject_mask is not None:
            subject_mask = squash(_grey(_picture(subject_mask)), width, height) > 127
        if draft is not None:
            draft = np.stack([squash_photo(_picture(frame), width, height) for frame in draft])
        return Conditions(
            first_frame=squash_photo(image, width, height),
            pose_images=images,
            pose_frames=[frame for frame, pose in enumerate(images) if is_line(pose).any()],
            prompt=prompt,
            negative_prompt=negative_prompt,
            subject_mask=subject_mask,
            part_maps=part_maps,
            draft=draft,
        )


def _picture(image: Image | np.ndarray | torch.Tensor) -> np.ndarray:
    """uint8 `[H, W, 3]` or `[H, W]`."""
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().float()
        image = (
            (image.movedim(0, -1) if image.ndim == 3 else image).mul(255).round().clamp(0, 255).byte().numpy()
        )
    elif isinstance(image, Image):
        image = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    elif image.dtype == bool:
        image = image.astype(np.uint8) * 255
    return image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image


def _grey(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 2 else image.max(-1)


def _output(made: list, output_type: str) -> np.ndarray | torch.Tensor | list[list[Image]]:
    if output_type == "latent":
        return torch.cat(made, dim=2)
    frames = np.concatenate(made, axis=1)
    if output_type == "pil":
        return [[fromarray(frame) for frame in video] for video in frames]
    if output_type == "pt":
        return torch.from_numpy(frames).movedim(-1, 2).float() / 255
    return frames.astype(np.float32) / 255
