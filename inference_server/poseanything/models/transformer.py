"""The PoseAnything transformer: Wan2.2-TI2V-5B that sees poses and keeps each part of the subject looking
itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import FP32LayerNorm
from diffusers.utils import apply_lora_scale
from torch import nn
from torch.distributed import ProcessGroup

from ..compat.diffusers import (
    ContextParallelInput,
    ContextParallelOutput,
    TransformerBlockMetadata,
    TransformerBlockRegistry,
    WanRotaryPosEmbed,
    WanTimeTextImageEmbedding,
    WanTransformerBlock,
    parallel_group,
)
from .attention_recorder import FirstFrameAttention
from .part_aware_attention import PartAwareCrossAttention
from .part_tokens import PartTokens, sequence_share

__all__ = [
    "FirstFrameAttention",
    "PartTokens",
    "PoseAnythingTransformer3DModel",
    "PoseAnythingTransformerBlock",
]


CHOICES: dict[str, tuple[str | None, ...]] = {
    "pose_injection": ("channel", "mlp", "width"),
    "part_attention_empty": ("shared", "excluded"),
    "prediction_type": ("flow_prediction", "sample"),
    "prediction_base": (None, "first_frame", "draft"),
    "init": ("noise", "draft"),
    "pose_look": ("trained", "bones"),
    "between_poses": ("empty", "interpolated"),
    "camera_condition": ("against_background", "with_background"),
}
"""The words that an entry of the configuration may have."""
TRAINED_WITH = (
    "part_attention_threshold",
    "max_parts",
    "prediction_type",
    "prediction_base",
    "init",
    "init_noise",
    "flow_shift",
    "distilled_timesteps",
    "num_inference_steps",
    "held_latents",
    "text_conditioning",
    "sample_frames",
    "sample_size",
    "pose_canvas",
    "pose_look",
    "between_poses",
    "camera_condition",
    "camera_strength",
    "subject_strength",
)
"""Entries of the configuration that no tensor tells: how the checkpoint was trained."""


def check_config(config: Mapping[str, Any]) -> None:
    """Raise `ValueError` where a choice of the whole configuration is none of the words it has."""
    for name, words in CHOICES.items():
        if config[name] not in words:
            choices = ", ".join(map(repr, words))
            raise ValueError(f"{name} is {config[name]!r}; it must be one of {choices}.")
    if config["prediction_base"] is not None and config["prediction_type"] != "sample":
        raise ValueError("A flow is counted from nothing; leave out prediction_base, or predict the sample.")


class PoseAnythingTransformerBlock(WanTransformerBlock):
    """Wan's block with part-aware cross-attention between text cross-attention and feed-forward."""

    def __init__(
        self,
        dim: int,
        ffn_dim: int,
        num_heads: int,
        qk_norm: str = "rms_norm_across_heads",
        cross_attn_norm: bool = True,
        eps: float = 1e-6,
        part_attention: bool = True,
        part_attention_empty: str = "shared",
    ):
        super().__init__(dim, ffn_dim, num_heads, qk_norm, cross_attn_norm, eps)
        if part_attention:
            self.norm_part = FP32LayerNorm(dim, eps, elementwise_affine=True)
            self.part_attn = PartAwareCrossAttention(
                dim, num_heads, dim // num_heads, eps, part_attention_empty
            )

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        rotary_emb: tuple[torch.Tensor, torch.Tensor],
        parts: PartTokens | None = None,
        recorder: FirstFrameAttention | None = None,
    ) -> torch.Tensor:
        """Runs the block.

        Args:
            hidden_states: `[B, L, dim]`.
            encoder_hidden_states: `[B, text length, dim]`.
            temb: `[B, T, 6, dim]`, modulation of T equal stretches of the sequence (1, a frame's, or a
                token's each).
            rotary_emb: cosine and sine, `[1, L, 1, head dim]` each.
            parts: tokens of the parts; None leaves part-aware attention out.
            recorder: takes this block's self-attention weights.
        """
        modulation = (self.scale_shift_table + temb.float()).unsqueeze(2).unbind(3)
        shift_msa, scale_msa, gate_msa, c_shift_msa, c_scale_msa, c_gate_msa = modulation

        # 1. Self-attention
        # Nothing is named that need not live on: at full size every name holds 50 MB or more.
        norm_hidden_states = modulate(self.norm1(hidden_states.float()), shift_msa, scale_msa).type_as(
            hidden_states
        )
        if recorder is not None and recorder.on == "input":
            recorder.record(self.attn1, norm_hidden_states, rotary_emb)
        hidden_states = add_gated(
            hidden_states, self.attn1(norm_hidden_states, None, None, rotary_emb), gate_msa
        )

        # 2. Cross-attention to the text
        norm_hidden_states = self.norm2(hidden_states.float()).type_as(hidden_states)
        hidden_states = hidden_states + self.attn2(norm_hidden_states, encoder_hidden_states, None, None)

        # 3. Cross-attention of the parts in later frames to the same parts in frame 0
        if parts is not None:
            hidden_states = self.attend_parts_(hidden_states, parts)

        # 4. Feed-forward
        norm_hidden_states = modulate(self.norm3(hidden_states.float()), c_shift_msa, c_scale_msa)
        hidden_states = add_gated(
            hidden_states, self.ffn(norm_hidden_states.type_as(hidden_states)), c_gate_msa
        )

        if recorder is not None and recorder.on == "own_output":
            norm_hidden_states = modulate(self.norm1(hidden_states.float()), shift_msa, scale_msa)
            recorder.record(self.attn1, norm_hidden_states.type_as(hidden_states), rotary_emb)
        return hidden_states

    @torch.compiler.disable  # it would be compiled anew for every clip, whose parts have other lengths
    def attend_parts_(self, hidden_states: torch.Tensor, parts: PartTokens) -> torch.Tensor:
        """Adds part-aware cross-attention to `[B, L, dim]` in place; frame 0 stays as it is."""
        tokens, first = parts.gather(hidden_states)
        attn_output, shared_output = self.part_attn(self.norm_part(tokens), self.norm_part(first), parts)
        return parts.write_(hidden_states, tokens + attn_output, shared_output)


class PoseAnythingTransformer3DModel(ModelMixin, ConfigMixin, PeftAdapterMixin, CacheMixin, AttentionMixin):
    r"""Wan2.2-TI2V-5B with pose injection (paper, section 4.1) and part-aware temporal coherence (section
    4.2).

    Fields shared with `WanTransformer3DModel` mean what they mean there; the defaults are the released
    model's.

    Args:
        in_channels: channels of the patch embedding; with `pose_injection="channel"` the video latents' and
            the pose latents' together.
        pose_injection: how pose latents come in. `"channel"`, as released: beside the video's channels (Eq.
            3). `"mlp"`: projected and added to the video latents (Eq. 4; the release's `condition_proj`).
            `"width"`: to the right of the video, as one picture twice as wide (Eq. 5).
        part_attention: whether the blocks have the Part-aware Temporal Coherence Module.
        part_attention_empty: what it does with the tokens outside a part: `"shared"`, as released, keeps them
            as empty keys and queries; `"excluded"`, as the paper reads, leaves them out.
        part_attention_threshold: part-aware attention runs at the timesteps above (0 to 1000; paper, section
            C: 975).
        max_parts: how many parts a clip had at most in training; more are merged.
        prediction_type: what the network was trained to predict: `"flow_prediction"`, the flow from the clean
            latents to where it starts, or `"sample"`, the clean latents.
        prediction_base: what a prediction of the sample is counted from: `"first_frame"`, its latents in
            every frame, or `"draft"`, the draft's; None for nothing.
        init: where the flow starts, at timestep 1000: `"noise"`, or `"draft"`, the latents of a draft of the
            clip.
        init_noise: standard deviation of the noise that is added to the draft there.
        flow_shift: shift of the noise schedule (5 for the release).
        distilled_timesteps: the timesteps of a few-step checkpoint, descending from 1000; None where any
            number of steps will do.
        num_inference_steps: how many steps it is sampled in where nothing else is asked for.
        held_latents: how many latent frames after the first it was trained to go on from, given clean at
            timestep 0, as windows of a long clip are; 0 where no frame but the first was clean.
        text_conditioning: whether it was trained with prompts. Without, no text encoder is needed: the text
            is a single token of zeros.
        sample_frames: pixel frames of the longest clip it was trained on; longer ones are made window by
            window.
        sample_size: pixels of the longer side it was trained at.
        pose_canvas: pixels of the longer side at which pose images are drawn, to be scaled to the clip's;
            None where they are drawn at the clip's own size.
        pose_look: what the pose images show: `"trained"`, as the release's, people by OpenPose's points and
            animals by the middle lines of their bodies; `"bones"`, a rig's bones as they lie.
        between_poses: what it is shown in frames between two poses (section F): `"empty"` pictures, or
            `"interpolated"` poses.
        camera_condition: how the rectangle of the camera's motion moves (section 4.3):
            `"against_background"`, and guidance goes away from it, as in the paper; or `"with_background"`,
            as models learn it by `camera_poses` of the training, and guidance goes towards it.
        camera_strength: of that guidance, where 1 is asked for.
        subject_strength: of the subject's motion in it, where no strength is asked for; None leaves it to the
            guider.

    The last nineteen tell how the checkpoint was trained. Nothing in `forward` depends on them; the pipeline
    reads them from `transformer.config`, so a folder saved by `save_pretrained` carries all it takes to
    sample from it.

    Raises:
        ValueError: one of the choices is none of the words it has.

    Example:
        >>> transformer = PoseAnythingTransformer3DModel(  # a small bridge from drafts, over a linear VAE
        ...     patch_size=(1, 1, 1), num_attention_heads=4, attention_head_dim=64, in_channels=1536,
        ...     out_channels=768, text_dim=32, ffn_dim=1024, num_layers=4, part_attention_empty="excluded",
        ...     part_attention_threshold=0.0, max_parts=10, init="draft", num_inference_steps=4,
        ...     text_conditioning=False, sample_frames=17,
        ...     sample_size=64, pose_canvas=None, pose_look="bones",
        ... )
        >>> transformer.save_pretrained("weights/small/transformer")
    """

    _supports_gradient_checkpointing = True
    _skip_layerwise_casting_patterns = ["patch_embedding", "pose_proj", "condition_embedder", "norm"]
    _no_split_modules = ["PoseAnythingTransformerBlock"]
    _keep_in_fp32_modules = [
        "rope",
        "time_embedder",
        "scale_shift_table",
        "norm1",
        "norm2",
        "norm3",
        "norm_part",
    ]
    _repeated_blocks = ["PoseAnythingTransformerBlock"]
    # Timesteps and parts come in several forms and are split in `forward`.
    _cp_plan = {
        "rope": {
            0: ContextParallelInput(split_dim=1, expected_dims=4, split_output=True),
            1: ContextParallelInput(split_dim=1, expected_dims=4, split_output=True),
        },
        "blocks.0": {"hidden_states": ContextParallelInput(split_dim=1, expected_dims=3)},
        "proj_out": ContextParallelOutput(gather_dim=1, expected_dims=3),
    }

    @register_to_config
    def __init__(
        self,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        num_attention_heads: int = 24,
        attention_head_dim: int = 128,
        in_channels: int = 96,
        out_channels: int = 48,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 14336,
        num_layers: int = 30,
        cross_attn_norm: bool = True,
        qk_norm: str | None = "rms_norm_across_heads",
        eps: float = 1e-6,
        rope_max_seq_len: int = 1024,
        pose_injection: str = "channel",
        part_attention: bool = True,
        part_attention_empty: str = "shared",
        part_attention_threshold: float = 975.0,
        max_parts: int = 5,
        prediction_type: str = "flow_prediction",
        prediction_base: str | None = None,
        init: str = "noise",
        init_noise: float = 0.0,
        flow_shift: float = 5.0,
        distilled_timesteps: list[float] | None = None,
        num_inference_steps: int = 50,
        held_latents: int = 0,
        text_conditioning: bool = True,
        sample_frames: int = 81,
        sample_size: int = 832,
        pose_canvas: int | None = 512,
        pose_look: str = "trained",
        between_poses: str = "empty",
        camera_condition: str = "against_background",
        camera_strength: float = 1.0,
        subject_strength: float | None = None,
    ) -> None:
        super().__init__()
        inner_dim = num_attention_heads * attention_head_dim
        check_config(self.config)

        # 1. Pose injection, patch & position embedding
        if pose_injection == "mlp":
            self.pose_proj = nn.Linear(in_channels, in_channels)
        self.rope = WanRotaryPosEmbed(attention_head_dim, patch_size, rope_max_seq_len)
        self.patch_embedding = nn.Conv3d(in_channels, inner_dim, kernel_size=patch_size, stride=patch_size)

        # 2. Condition embeddings
        self.condition_embedder = WanTimeTextImageEmbedding(
            dim=inner_dim, time_freq_dim=freq_dim, time_proj_dim=inner_dim * 6, text_embed_dim=text_dim
        )

        # 3. Transformer blocks
        self.blocks = nn.ModuleList(
            PoseAnythingTransformerBlock(
                inner_dim,
                ffn_dim,
                num_attention_heads,
                qk_norm,
                cross_attn_norm,
                eps,
                part_attention,
                part_attention_empty,
            )
            for _ in range(num_layers)
        )

        # 4. Output norm & projection
        self.norm_out = FP32LayerNorm(inner_dim, eps, elementwise_affine=False)
        self.proj_out = nn.Linear(inner_dim, out_channels * math.prod(patch_size))
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, inner_dim) / inner_dim**0.5)

        self.gradient_checkpointing = False

    def declare(self, **trained_with: Any) -> None:
        """Have the configuration say that it was trained otherwise: entries of `TRAINED_WITH`. Raises
        `ValueError` for other ones, or words that they can't have."""
        for name in trained_with.keys() - set(TRAINED_WITH):
            raise ValueError(f"{name} does not tell how a checkpoint was trained.")
        check_config({**self.config, **trained_with})
        # diffusers leaves out what it believes to be a default where it copies a configuration.
        defaults = [name for name in self.config.get("_use_default_values", []) if name not in trained_with]
        self.register_to_config(**trained_with, _use_default_values=defaults)

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        pose_hidden_states: torch.Tensor | None = None,
        parts: PartTokens | None = None,
        attention_recorder: FirstFrameAttention | None = None,
        attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[torch.Tensor]:
        """Predicts the flow of one denoising step.

        L, the length of the sequence, is the number of patches: F x h x w, with w that of video and pose
        together when poses are injected by width.

        Args:
            hidden_states: `[B, C, F, H, W]`, noisy video latents, frame 0 clean.
            timestep: `[B]`; or `[B, F]` for each latent frame its own; or `[B, L]` for each token. The clean
                frame 0 has 0. By frames costs next to nothing, by tokens the modulation of every token.
            encoder_hidden_states: `[B, text length, text_dim]`, text embeddings, zeros past the prompt.
            pose_hidden_states: `[B, C, F, H, W]`, pose latents. Without them the model is plain Wan, which
                `pose_injection="channel"` doesn't allow.
            parts: the tokens of each part on the same grid; None switches part-aware attention off for this
                step.
            attention_recorder: takes first-frame attention weights of one block on the way.
            attention_kwargs: `scale`, the strength of loaded LoRAs.
            return_dict: whether to return a `Transformer2DModelOutput` and not a tuple.

        Returns:
            The flow, `[B, out_channels, F, H, W]`.

        Raises:
            ValueError: an input doesn't fit the model or the others.
        """
        batch_size, _, _, _, width = hidden_states.shape
        p_t, p_h, p_w = self.config.patch_size

        # 1. Pose injection, patch & position embedding
        hidden_states = self.inject_pose(hidden_states, pose_hidden_states)
        rotary_emb = self.rope(hidden_states)
        hidden_states = self.patch_embedding(hidden_states)
        grid = hidden_states.shape[2:]
        hidden_states = hidden_states.flatten(2).transpose(1, 2).contiguous()
        timestep = timestep.unsqueeze(1) if timestep.ndim == 1 else timestep
        self.check_conditions(timestep, parts, attention_recorder, *hidden_states.shape[:2])
        if attention_recorder is not None and attention_recorder.rows is None:
            attention_recorder.rows = torch.arange(grid[1] * grid[2], device=hidden_states.device)

        # 2. Condition embeddings
        if (group := parallel_group(self._parallel_config)) is not None:
            timestep, parts = self.shard_conditions(timestep, parts, hidden_states.shape[1], group)
        temb, timestep_proj, encoder_hidden_states, _ = self.condition_embedder(
            timestep.flatten(), encoder_hidden_states, timestep_seq_len=timestep.shape[1]
        )
        timestep_proj = timestep_proj.unflatten(2, (6, -1))

        # 3. Transformer blocks
        for index, block in enumerate(self.blocks):
            recorder = (
                attention_recorder if attention_recorder and attention_recorder.block == index else None
            )
            inputs = (hidden_states, encoder_hidden_states, timestep_proj, rotary_emb, parts, recorder)
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden_states = self._gradient_checkpointing_func(block, *inputs)
            else:
                hidden_states = block(*inputs)

        # 4. Output norm, projection & unpatchify
        modulation = self.scale_shift_table.to(temb.device) + temb.unsqueeze(2)
        shift, scale = (
            modulation.unsqueeze(2).to(hidden_states.device).unbind(3)
        )  # the last of several devices
        hidden_states = modulate(self.norm_out(hidden_states.float()), shift, scale).type_as(hidden_states)
        hidden_states = self.proj_out(hidden_states)
        hidden_states = hidden_states.reshape(batch_size, *grid, p_t, p_h, p_w, -1).permute(
            0, 7, 1, 4, 2, 5, 3, 6
        )
        output = hidden_states.flatten(6, 7).flatten(4, 5).flatten(2, 3)[..., :width]

        if not return_dict:
            return (output,)
        return Transformer2DModelOutput(sample=output)

    def inject_pose(
        self, hidden_states: torch.Tensor, pose_hidden_states: torch.Tensor | None
    ) -> torch.Tensor:
        """The latents that the patch embedding takes, from the video's and the pose's (paper, Eq. 3-5)."""
        injection, channels = self.config.pose_injection, self.config.in_channels
        if pose_hidden_states is not None:
            if pose_hidden_states.shape != hidden_states.shape:
                raise ValueError(
                    f"Pose latents {tuple(pose_hidden_states.shape)} and video latents "
                    f"{tuple(hidden_states.shape)} differ in shape; encode poses and video at one size and "
                    "length."
                )
            if injection == "channel":
                hidden_states = torch.cat([hidden_states, pose_hidden_states], dim=1)
            elif injection == "mlp":
                hidden_states = hidden_states + self.pose_proj(pose_hidden_states.movedim(1, -1)).movedim(
                    -1, 1
                )
            else:
                hidden_states = torch.cat([hidden_states, pose_hidden_states], dim=-1)
        if hidden_states.shape[1] != channels:
            raise ValueError(
                f"The model takes latents of {channels} channels and got {hidden_states.shape[1]};"
                f" with pose injection by {injection} that is "
                + ("video and pose latents together." if injection == "channel" else "the video's alone.")
            )
        return hidden_states

    def check_conditions(
        self,
        timestep: torch.Tensor,
        parts: PartTokens | None,
        recorder: FirstFrameAttention | None,
        batch_size: int,
        sequence_length: int,
    ) -> None:
        """Raises `ValueError` where what comes with the latents doesn't fit them or the model."""
        if sequence_length % timestep.shape[1]:
            raise ValueError(
                f"{timestep.shape[1]} timesteps don't divide a sequence of {sequence_length} tokens;"
                " give one for all, one per latent frame or one per token."
            )
        if recorder is not None and not 0 <= recorder.block < len(self.blocks):
            raise ValueError(
                f"There is no block {recorder.block} to record attention in; the model's last is "
                f"{len(self.blocks) - 1}."
            )
        if parts is None:
            return
        if not self.config.part_attention:
            raise ValueError(
                "This checkpoint has no part-aware attention; load one that has, or pass parts=None."
            )
        if (parts.batch_size, parts.sequence_length) != (batch_size, sequence_length):
            raise ValueError(
                f"The parts were made for {parts.batch_size} x {parts.sequence_length} tokens and the "
                f"latents make {batch_size} x {sequence_length}; make them from masks of this token grid and "
                "batch size."
            )

    def shard_conditions(
        self,
        timestep: torch.Tensor,
        parts: PartTokens | None,
        sequence_length: int,
        group: ProcessGroup,
    ) -> tuple[torch.Tensor, PartTokens | None]:
        """Timesteps and parts for this rank's piece of the sequence, under context parallelism."""
        if timestep.shape[1] > 1:
            timestep = timestep.repeat_interleave(sequence_length // timestep.shape[1], dim=1)
            timestep = timestep[:, sequence_share(sequence_length, group)]
        return timestep, parts and parts.shard(group)


def modulate(hidden_states: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Adaptive norm's shift and scale, `[B, T, 1, dim]` for T equal stretches of `[B, L, dim]`."""
    stretches = hidden_states.unflatten(1, (shift.shape[1], -1))
    return (stretches * (1 + scale) + shift).flatten(1, 2)


def add_gated(hidden_states: torch.Tensor, output: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """The residual sum in float32, its gate `[B, T, 1, dim]` for T equal stretches of `[B, L, dim]`."""
    gated = output.unflatten(1, (gate.shape[1], -1)).float() * gate
    return (hidden_states.float() + gated.flatten(1, 2)).type_as(hidden_states)


# What diffusers' caching hooks need to know of a block.
TransformerBlockRegistry.register(
    PoseAnythingTransformerBlock,
    TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=None),
)
