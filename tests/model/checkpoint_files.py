"""Tiny checkpoints with random weights, in the very forms users have them.

The names here are written down from the originals (Wan2.2's wan/modules/vae2_2.py and t5.py, the release's
list of keys), not made with the maps under test.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

VAE_LEVELS = 4


def wan_vae_shapes(
    base: int, decoder_base: int, multipliers: tuple[int, ...] = (1, 2, 4, 4), latent_channels: int = 48
) -> dict[str, tuple[int, ...]]:
    """Every tensor of Wan 2.2's VAE as Wan's own code names it."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, into: int, *kernel: int) -> None:
        shapes[f"{name}.weight"] = (out, into, *kernel)
        shapes[f"{name}.bias"] = (out,)

    def residual(name: str, into: int, out: int) -> None:
        shapes[f"{name}.residual.0.gamma"] = (into, 1, 1, 1)
        conv(f"{name}.residual.2", out, into, 3, 3, 3)
        shapes[f"{name}.residual.3.gamma"] = (out, 1, 1, 1)
        conv(f"{name}.residual.6", out, out, 3, 3, 3)
        if into != out:
            conv(f"{name}.shortcut", out, into, 1, 1, 1)

    def middle(side: str, width: int) -> None:
        residual(f"{side}.middle.0", width, width)
        shapes[f"{side}.middle.1.norm.gamma"] = (width, 1, 1)
        conv(f"{side}.middle.1.to_qkv", 3 * width, width, 1, 1)
        conv(f"{side}.middle.1.proj", width, width, 1, 1)
        residual(f"{side}.middle.2", width, width)

    widths = [base * m for m in (1, *multipliers)]
    conv("encoder.conv1", widths[0], 12, 3, 3, 3)
    for level, (into, out) in enumerate(zip(widths, widths[1:])):
        block = f"encoder.downsamples.{level}.downsamples"
        residual(f"{block}.0", into, out)
        residual(f"{block}.1", out, out)
        if level < VAE_LEVELS - 1:
            conv(f"{block}.2.resample.1", out, out, 3, 3)
        if level in (1, 2):
            conv(f"{block}.2.time_conv", out, out, 3, 1, 1)
    middle("encoder", widths[-1])
    shapes["encoder.head.0.gamma"] = (widths[-1], 1, 1, 1)
    conv("encoder.head.2", 2 * latent_channels, widths[-1], 3, 3, 3)
    conv("conv1", 2 * latent_channels, 2 * latent_channels, 1, 1, 1)
    conv("conv2", latent_channels, latent_channels, 1, 1, 1)

    widths = [decoder_base * m for m in (multipliers[-1], *multipliers[::-1])]
    conv("decoder.conv1", widths[0], latent_channels, 3, 3, 3)
    middle("decoder", widths[0])
    for level, (into, out) in enumerate(zip(widths, widths[1:])):
        block = f"decoder.upsamples.{level}.upsamples"
        residual(f"{block}.0", into, out)
        residual(f"{block}.1", out, out)
        residual(f"{block}.2", out, out)
        if level < VAE_LEVELS - 1:
            conv(f"{block}.3.resample.1", out, out, 3, 3)
        if level in (0, 1):
            conv(f"{block}.3.time_conv", 2 * out, out, 3, 1, 1)
    shapes["decoder.head.0.gamma"] = (widths[-1], 1, 1, 1)
    conv("decoder.head.2", 12, widths[-1], 3, 3, 3)
    return shapes


def wan_t5_shapes(
    vocabulary: int, dim: int, inner: int, feed_forward: int, heads: int, layers: int, buckets: int = 32
) -> dict[str, tuple[int, ...]]:
    """Every tensor of the UMT5 encoder as Wan's own code names it."""
    shapes: dict[str, tuple[int, ...]] = {"token_embedding.weight": (vocabulary, dim), "norm.weight": (dim,)}
    for layer in range(layers):
        block = f"blocks.{layer}"
        shapes |= {f"{block}.norm1.weight": (dim,), f"{block}.norm2.weight": (dim,)}
        shapes |= {f"{block}.attn.{part}.weight": (inner, dim) for part in "qkv"}
        shapes[f"{block}.attn.o.weight"] = (dim, inner)
        shapes[f"{block}.ffn.gate.0.weight"] = (feed_forward, dim)
        shapes[f"{block}.ffn.fc1.weight"] = (feed_forward, dim)
        shapes[f"{block}.ffn.fc2.weight"] = (dim, feed_forward)
        shapes[f"{block}.pos_embedding.embedding.weight"] = (buckets, heads)
    return shapes


def transformer_shapes(
    dim: int = 128,
    in_channels: int = 8,
    out_channels: int = 4,
    feed_forward: int = 64,
    layers: int = 2,
    text_dim: int = 16,
    freq_dim: int = 32,
    part_attention: bool = True,
) -> dict[str, tuple[int, ...]]:
    """Every tensor of the transformer as the release names it, one head of 128 features by default."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out: int, into: int) -> None:
        shapes[f"{name}.weight"] = (out, into)
        shapes[f"{name}.bias"] = (out,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = (dim,)
        shapes[f"{name}.bias"] = (dim,)

    shapes |= {"patch_embedding.weight": (dim, in_channels, 1, 2, 2), "patch_embedding.bias": (dim,)}
    linear("text_embedding.0", dim, text_dim)
    linear("text_embedding.2", dim, dim)
    linear("time_embedding.0", dim, freq_dim)
    linear("time_embedding.2", dim, dim)
    linear("time_projection.1", 6 * dim, dim)
    for layer in range(layers):
        block = f"blocks.{layer}"
        for attention in ("self_attn", "cross_attn", *(["cross_attn_instance"] if part_attention else [])):
            for part in "qkvo":
                linear(f"{block}.{attention}.{part}", dim, dim)
            shapes |= {f"{block}.{attention}.norm_{part}.weight": (dim,) for part in "qk"}
        norm(f"{block}.norm3")
        if part_attention:
            norm(f"{block}.norm4")
        linear(f"{block}.ffn.0", feed_forward, dim)
        linear(f"{block}.ffn.2", dim, feed_forward)
        shapes[f"{block}.modulation"] = (1, 6, dim)
    shapes["head.modulation"] = (1, 2, dim)
    linear("head.head", 4 * out_channels, dim)
    return shapes


def random_tensors(
    shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float32, seed: int = 0
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: (0.2 * torch.randn(shape, generator=generator)).to(dtype) for name, shape in shapes.items()}


def save_shards(
    tensors: dict[str, torch.Tensor], folder: Path, shards: int = 2, index: bool = True
) -> list[Path]:
    """Save tensors as the release does: `diffusion_pytorch_model-00001-of-00002.safetensors`, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(tensors)
    paths, weight_map = [], {}
    for number in range(shards):
        path = folder / f"diffusion_pytorch_model-{number + 1:05d}-of-{shards:05d}.safetensors"
        chosen = names[number::shards]
        save_file({name: tensors[name].contiguous() for name in chosen}, path)
        weight_map |= dict.fromkeys(chosen, path.name)
        paths.append(path)
    if index:
        document = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(document))
    return paths


def save_tokenizer(folder: Path) -> Path:
    """A unigram tokenizer of a few pieces, saved as transformers does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("\u2581", -2.0),
        ("\u2581deer", -3.0),
        ("\u2581runs", -3.0),
    ]
    pieces += [(letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyz."]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )
    fast.save_pretrained(folder)
    return folder


def save_release(folder: Path, vocabulary: int = 40) -> Path:
    """A whole tiny model laid out as the weights command lays out the real one."""
    save_shards(random_tensors(transformer_shapes(), torch.bfloat16), folder / "PoseAnything")
    wan = folder / "Wan2.2-TI2V-5B"
    save_tokenizer(wan / "google" / "umt5-xxl")
    torch.save(random_tensors(wan_vae_shapes(4, 4)), wan / "Wan2.2_VAE.pth")
    torch.save(
        random_tensors(wan_t5_shapes(vocabulary, 16, 16, 24, 2, 2), torch.bfloat16),
        wan / "models_t5_umt5-xxl-enc-bf16.pth",
    )
    return folder


def save_sampling_release(folder: Path) -> Path:
    """As `save_release`, of a model whose parts fit each other, so that clips can be sampled."""
    shapes = transformer_shapes(in_channels=96, out_channels=48)
    save_shards(random_tensors(shapes, torch.bfloat16), folder / "PoseAnything")
    wan = folder / "Wan2.2-TI2V-5B"
    save_tokenizer(wan / "google" / "umt5-xxl")
    torch.save(random_tensors(wan_vae_shapes(4, 4), seed=1), wan / "Wan2.2_VAE.pth")
    torch.save(random_tensors(wan_t5_shapes(40, 16, 16, 24, 2, 2)), wan / "models_t5_umt5-xxl-enc-bf16.pth")
    return folder


def save_loras(folder: Path) -> tuple[str, ...]:
    """Two LoRAs of different layers of that model, in its weights' folder; gives their names."""
    names = ("film.safetensors", "fur.safetensors")
    (folder / "loras").mkdir(exist_ok=True)
    for block, name in enumerate(names):
        generator = torch.Generator().manual_seed(block)
        layer = f"diffusion_model.blocks.{block}.self_attn.v"
        tensors = {
            f"{layer}.lora_A.weight": torch.randn(4, 128, generator=generator),
            f"{layer}.lora_B.weight": torch.randn(128, 4, generator=generator),
        }
        save_file(tensors, folder / "loras" / name)
    return names
