"""Faster on this machine: another attention kernel, compilation, float8 products, the VAE's layout."""

from __future__ import annotations

import functools
import logging
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from diffusers import AutoencoderKLWan
from torch import nn
from torch.nn import functional

from ..checkpoints.float8 import Float8Linear
from ..compat.diffusers import (
    AttentionBackendName,
    WanCausalConv3d,
    WanResidualBlock,
    WanRMS_norm,
    WanUpsample,
    attention_backends,
    check_attention_backend,
    dispatch_attention_fn,
    replace_forward,
)
from ..conditioning.conditions import InputError
from ..conditioning.prompts import MAX_TOKENS as PROMPT_TOKENS
from ..models.streaming_vae import decode_frames
from ..models.transformer import PoseAnythingTransformer3DModel
from .out_of_memory import is_out_of_memory
from .remembered import Remembered, cache_folder

log = logging.getLogger(__name__)

EXACT_BACKENDS = ("native", "_native_cudnn", "_flash_3", "flash")
"""Backends that `fastest_attention` chooses among; those that can't run here drop out."""
ROUNDING_BACKENDS = ("sage",)
"""And those that round to 8 bits, for cards of Ada's generation, where their packages are installed."""
VAE_LAYOUTS = {
    "contiguous": (torch.contiguous_format, torch.contiguous_format),
    "channels_last": (torch.channels_last, torch.channels_last_3d),
}
"""Of the weights of two- and three-dimensional convolutions."""
ADA = (8, 9)
GAIN = 0.97
"""How much of the native backend's time another one may take: nothing changes for less."""


class Compilation:
    """What of a model is compiled: in use while `enabled`, until compiling fails."""

    def __init__(self):
        self.enabled, self._failed = True, False

    @property
    def in_use(self) -> bool:
        return self.enabled and not self._failed

    def note(self, error: Exception) -> None:
        """Give up where an error is the compiler's; raises any other."""
        compiler = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
        if is_out_of_memory(error) or not compiler:
            raise error
        log.warning("The model can't be compiled here: %s", str(error).partition("\n")[0])
        self._failed = True


def compile_blocks(transformer: PoseAnythingTransformer3DModel, **options) -> Compilation:
    """Compile the blocks' forward; blocks that are alike share what is compiled. `options` go to
    `torch.compile`.

    Unlike `compile_repeated_blocks` this leaves hooks (caches, streaming) outside of what is compiled, those
    there are and those to come, so that it lasts when they are taken off and put on again. Part-aware
    attention, whose lengths differ from clip to clip, runs as it is between two compiled halves. Steps with a
    recorder are not compiled: they are few. Where compiling fails the blocks go on as they were.

    What is compiled is kept across starts, in the cache folder unless TORCHINDUCTOR_CACHE_DIR names another.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor"))
    compilation = Compilation()
    for block in transformer.blocks:
        replace_forward(
            block,
            lambda forward: _compiled_unrecorded(forward, torch.compile(forward, **options), compilation),
        )
    return compilation


def compile_vae(vae: nn.Module, compilation: Compilation, **options) -> None:
    """Compile what lies between the VAE's convolutions: each norm with the nonlinearity that follows it.

    By themselves they read and write every feature nine times, mostly in float32, about a third of the time
    of decoding. It is in use as `compilation` is, that of the blocks. `options` go to `torch.compile`.
    """
    compiled = torch.compile(normalize_and_activate, **{"dynamic": True} | options)
    for module in vae.modules():
        norms = []
        if isinstance(module, WanResidualBlock):
            norms = [module.norm1, module.norm2]
        elif isinstance(getattr(module, "norm_out", None), WanRMS_norm):
            norms = [module.norm_out]
        if not norms or not isinstance(module.nonlinearity, nn.SiLU):
            continue
        for norm in norms:
            replace_forward(norm, functools.partial(_compiled_norm, norm, compiled, compilation))
        module.nonlinearity = nn.Identity()


def pad_in_convolutions(vae: nn.Module) -> None:
    """Let the VAE's convolutions pad height and width themselves, and let it enlarge features as they are.

    diffusers pads a copy of what goes into each convolution, and enlarges in float32, though what is repeated
    needs no precision. The frames are the same but for rounding.
    """
    for module in vae.modules():
        if isinstance(module, WanCausalConv3d):
            replace_forward(module, functools.partial(_padding_itself, module))
        elif isinstance(module, WanUpsample):
            replace_forward(module, functools.partial(_enlarging, module))


def _padding_itself(convolution: WanCausalConv3d, plain: Callable) -> Callable:
    left, _, top, _, before, _ = convolution._padding

    def forward(hidden_states: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
        missing = before
        if cache_x is not None and before > 0:
            hidden_states = torch.cat([cache_x.to(hidden_states.device), hidden_states], dim=2)
            missing -= cache_x.shape[2]
        if missing > 0:
            hidden_states = functional.pad(hidden_states, (0, 0, 0, 0, missing, 0))
        return functional.conv3d(
            hidden_states,
            convolution.weight,
            convolution.bias,
            convolution.stride,
            (0, top, left),
            convolution.dilation,
        )

    return forward


def _enlarging(module: WanUpsample, plain: Callable) -> Callable:
    return functools.partial(functional.interpolate, scale_factor=module.scale_factor, mode=module.mode)


def normalize_and_activate(hidden_states: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """SiLU of `[B, C, ...]` normalised over the channels, times their `gain`; computed in float32."""
    normalized = functional.normalize(hidden_states.float(), dim=1) * gain.float()
    return functional.silu(normalized).to(hidden_states.dtype)


def _compiled_norm(
    norm: WanRMS_norm, compiled: Callable, compilation: Compilation, plain: Callable
) -> Callable:
    def forward(hidden_states: torch.Tensor) -> torch.Tensor:
        gain = norm.gamma * norm.scale
        if compilation.in_use:
            try:
                return compiled(hidden_states, gain)
            except Exception as error:
                compilation.note(error)
        return functional.silu(plain(hidden_states))

    return forward


def _compiled_unrecorded(eager: Callable, compiled: Callable, compilation: Compilation) -> Callable:
    @functools.wraps(eager)
    def forward(hidden_states, encoder_hidden_states, temb, rotary_emb, parts=None, recorder=None):
        if recorder is None and compilation.in_use:
            try:
                return compiled(hidden_states, encoder_hidden_states, temb, rotary_emb, parts)
            except Exception as error:
                compilation.note(error)
        return eager(hidden_states, encoder_hidden_states, temb, rotary_emb, parts, recorder)

    return forward


class CompileChoice:
    """Whether compiling pays: once a model makes its second clip here, and in every first one after that,
    since what was compiled is kept across starts.

    Args:
        device: what computes.
        model: what tells this model's blocks from another's.
    """

    def __init__(self, device: torch.device, model: str):
        self._known = Remembered("compiled")
        self._key = f"{_machine(device)}, {model}"
        self._possible = (
            device.type == "cuda" and platform.system() == "Linux" and find_spec("triton") is not None
        )
        self.clips = 0

    def pays(self) -> bool:
        return self._possible and (self.clips > 0 or bool(self._known.get(self._key)))

    def clip_made(self, compiled: bool) -> None:
        self.clips += 1
        if compiled and self._possible and not self._known.get(self._key):
            self._known.set(self._key, True)


def set_attention_backend(transformer: PoseAnythingTransformer3DModel, name: str) -> None:
    """Choose one of diffusers' attention backends ("native", "flash", "_flash_3_hub", "sage", ...).

    diffusers sets it for the whole process as well, so that another model's choice changes this one's.

    Raises `InputError` where there is none of that name or it can't run here.
    """
    if attention_backends(transformer) == {name}:
        return
    try:
        transformer.set_attention_backend(name)
    except (ValueError, RuntimeError, ImportError) as error:
        raise InputError(
            "The attention backend {name!r} can't be used here ({reason}); choose native.",
            name=name,
            reason=str(error).splitlines()[0],
        ) from error


def fastest_attention(
    device: torch.device, dtype: torch.dtype, heads: int, head_dim: int, tokens: int
) -> str:
    """The backend that computes self-attention of such a shape fastest on this card, by a short trial.

    It is remembered, so that a seed gives the same frames after the next start too.
    """
    if device.type != "cuda":
        return "native"
    installed = [name for name in candidates(torch.cuda.get_device_capability(device)) if _is_usable(name)]
    length = 1 << (tokens - 1).bit_length()
    key = f"{_machine(device)}, {dtype}, {heads} x {head_dim}, {length} tokens, {' '.join(installed)}"
    known = Remembered("attention")
    if (name := known.get(key)) in installed:
        return str(name)
    seconds = {name: _trial(name, device, dtype, heads, head_dim, tokens) for name in installed}
    name = choose(seconds)
    log.info("Attention by %s: %s", name, seconds)
    known.set(key, name)
    return name


def candidates(capability: tuple[int, int]) -> tuple[str, ...]:
    """The backends worth a trial on a card of this compute capability."""
    return EXACT_BACKENDS + (ROUNDING_BACKENDS if capability == ADA else ())


def choose(seconds: dict[str, float | None]) -> str:
    """The fastest by the seconds each took, None where it failed; the native one where little is gained."""
    ran = {name: taken for name, taken in seconds.items() if taken is not None}
    fastest = min(ran, key=lambda name: ran[name], default="native")
    native = ran.get("native")
    return fastest if native is None or ran.get(fastest, native) < GAIN * native else "native"


def _is_usable(name: str) -> bool:
    try:
        check_attention_backend(name)
    except (ImportError, RuntimeError, ValueError):
        return False
    return True


def _trial(
    name: str, device: torch.device, dtype: torch.dtype, heads: int, head_dim: int, tokens: int, runs: int = 5
) -> float | None:
    """Median seconds of attention to the clip itself and to a prompt; None where the backend fails."""
    query = torch.randn(1, tokens, heads, head_dim, device=device, dtype=dtype)
    text = query[:, :PROMPT_TOKENS].contiguous()
    taken = []
    try:
        for _ in range(runs + 1):
            torch.cuda.synchronize(device)
            started = time.perf_counter()
            for keys in (query, text):
                dispatch_attention_fn(query, keys, keys, backend=AttentionBackendName(name))
            torch.cuda.synchronize(device)
            taken.append(time.perf_counter() - started)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        log.info("Attention by %s fails here: %s", name, str(error).partition("\n")[0])
        return None
    return statistics.median(taken[1:])


def fastest_vae_layout(vae: nn.Module, device: torch.device) -> str:
    """The memory layout in which the VAE decodes faster on this card, "contiguous" or "channels_last", by a
    short trial on pictures of 512 x 512. It is remembered."""
    if device.type != "cuda" or not isinstance(vae, AutoencoderKLWan):
        return "contiguous"
    known, key = Remembered("vae_layout"), f"{_machine(device)}, {vae.dtype}, {vae.config.decoder_base_dim}"
    if (layout := known.get(key)) not in VAE_LAYOUTS:
        seconds = {}
        for name in VAE_LAYOUTS:
            set_vae_layout(vae, name)
            seconds[name] = _decoding_trial(vae, device)
        layout = min(VAE_LAYOUTS, key=lambda name: seconds[name] * (GAIN if name == "contiguous" else 1))
        log.info("The VAE decodes %s: %s", layout, seconds)
        known.set(key, layout)
    return str(layout)


def set_vae_layout(vae: nn.Module, layout: str) -> None:
    """Keep the weights of the VAE's convolutions in a layout that `fastest_vae_layout` names. What they make
    is in it too; values differ by rounding."""
    for module in vae.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            kind = VAE_LAYOUTS[layout][isinstance(module, nn.Conv3d)]
            module.weight.data = module.weight.data.contiguous(memory_format=kind)


@torch.no_grad()
def _decoding_trial(vae: AutoencoderKLWan, device: torch.device, side: int = 32, frames: int = 4) -> float:
    """Seconds of the frame that is decoded fastest of a few, large enough to keep a card busy."""
    latents = torch.zeros(1, vae.config.z_dim, frames, side, side, device=device)
    taken = []
    started = time.perf_counter()
    for _ in decode_frames(vae, latents):
        torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
        started = time.perf_counter()
    return min(taken[1:])  # the first frame is another's shape


def set_float8_products(transformer: nn.Module, enabled: bool) -> None:
    """Let layers whose weights are float8 multiply in float8 too, or in the input's precision.

    It is about twice as fast where the card has such units (compute capability 8.9 and newer), and rounds
    the inputs as well as the weights. Raises `InputError` where the card can't.
    """
    layers = [module for module in transformer.modules() if isinstance(module, Float8Linear)]
    if enabled and layers:
        device = layers[0].scale.device
        if device.type == "cuda" and torch.cuda.get_device_capability(device) < ADA:
            raise InputError(
                "{card} has no float8 units; choose another precision.",
                card=torch.cuda.get_device_name(device),
            )
    for layer in layers:
        layer.multiplies_in_float8 = enabled


def _machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return f"{name}, torch {torch.__version__}"
