"""The text encoder, UMT5-XXL: Wan's own `models_t5_umt5-xxl-enc-bf16.pth`, and transformers' folders; its
tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from accelerate import init_empty_weights
from transformers import AutoTokenizer, PreTrainedTokenizerBase, UMT5Config, UMT5EncoderModel

from .errors import CheckpointError
from .keymap import KeyMap
from .lazy_tensors import LazyTensors, Renamed
from .loading import Opened, Quantization, fill, split_float8_scales
from .readers import open_tensors

WAN_T5_KEYS = KeyMap(
    [
        (f"encoder.block.{{}}.layer.0.SelfAttention.{part}", f"blocks.{{}}.attn.{part}")
        for part in ("q", "k", "v", "o")
    ]
    + [
        (
            "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias",
            "blocks.{}.pos_embedding.embedding",
        ),
        ("encoder.block.{}.layer.0.layer_norm", "blocks.{}.norm1"),
        ("encoder.block.{}.layer.1.layer_norm", "blocks.{}.norm2"),
        ("encoder.block.{}.layer.1.DenseReluDense.wi_0", "blocks.{}.ffn.gate.0"),
        ("encoder.block.{}.layer.1.DenseReluDense.wi_1", "blocks.{}.ffn.fc1"),
        ("encoder.block.{}.layer.1.DenseReluDense.wo", "blocks.{}.ffn.fc2"),
        ("encoder.final_layer_norm", "norm"),
        ("shared", "token_embedding"),
    ]
)

EMBEDDING = "shared.weight"
TIED_EMBEDDING = "encoder.embed_tokens.weight"
TOKENIZER_TENSOR = "spiece_model"  # ComfyUI's files carry the tokenizer along
TOKENIZER_FOLDERS = ("tokenizer", "google/umt5-xxl", "../tokenizer", "../google/umt5-xxl")


def load_text_encoder(
    path: Path | str,
    *,
    torch_dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    quantization: Quantization = None,
    tokenizer: Path | str | None = None,
    check: Callable[[], None] | None = None,
) -> tuple[UMT5EncoderModel, PreTrainedTokenizerBase]:
    """Load the encoder from Wan's `models_t5_umt5-xxl-enc-bf16.pth`, or from a file or folder of
    transformers'.

    Its tokenizer comes with it: from the folder `tokenizer`, or looked for beside the encoder.
    `check` is called between the tensors, and what it raises ends the reading.
    Raises `CheckpointError`: one sentence on what is wrong with the files.
    """
    path = Path(path)
    tokenizer = load_tokenizer(_tokenizer_beside(path) if tokenizer is None else Path(tokenizer))
    opened = open_text_encoder(path)
    encoder = fill(opened, torch_dtype=torch_dtype, device=device, quantization=quantization, check=check)
    return encoder, tokenizer


def open_text_encoder(path: Path | str) -> Opened[UMT5EncoderModel]:
    """Open an encoder's checkpoint and tell what model it is. Raises `CheckpointError`."""
    tensors, scales = split_float8_scales(open_tensors(Path(path)))
    if "token_embedding.weight" in tensors:
        scales = {ours: scales[name] for ours, name in WAN_T5_KEYS.all_to_ours(scales, tensors.where).items()}
        tensors = Renamed(tensors, WAN_T5_KEYS.all_to_ours(tensors, tensors.where))
    else:
        tensors = with_one_embedding(tensors)
    config_file = tensors.paths[0].parent / "config.json"
    if config_file.exists() and '"umt5"' in config_file.read_text(encoding="utf-8"):
        config = UMT5Config.from_json_file(config_file)
    else:
        config = UMT5Config(**config_from_shapes(tensors.shapes, tensors.where))
    with init_empty_weights():
        encoder = UMT5EncoderModel(config)
    # One embedding in both places, as transformers ties it when it loads one itself.
    encoder.encoder.embed_tokens.weight = encoder.shared.weight
    return Opened(encoder, tensors, scales)


def config_from_shapes(shapes: Mapping[str, tuple[int, ...]], where: str) -> dict[str, object]:
    """The configuration of the encoder that tensors of these names (transformers') and shapes belong to.

    Raises `CheckpointError` when it is no UMT5 encoder.
    """
    block = "encoder.block.0.layer"
    try:
        vocab_size, d_model = shapes[EMBEDDING]
        num_buckets, num_heads = shapes[f"{block}.0.SelfAttention.relative_attention_bias.weight"]
        inner_dim = shapes[f"{block}.0.SelfAttention.q.weight"][0]
        d_ff = shapes[f"{block}.1.DenseReluDense.wi_0.weight"][0]
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            "{where} is no UMT5 encoder: its tensor {error} is missing or has no such shape;"
            " choose models_t5_umt5-xxl-enc-bf16.pth or diffusers' folder text_encoder.",
            where=where,
            error=error,
        ) from error
    return {
        "vocab_size": vocab_size,
        "d_model": d_model,
        "d_kv": inner_dim // num_heads,
        "d_ff": d_ff,
        "num_layers": len({name.split(".")[2] for name in shapes if name.startswith("encoder.block.")}),
        "num_heads": num_heads,
        "relative_attention_num_buckets": num_buckets,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer saved in a folder; nothing is fetched. Raises `CheckpointError`."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            "The folder {folder} holds no tokenizer that can be read ({reason});"
            " get google/umt5-xxl with python build.py weights.",
            folder=folder,
            reason=str(error).splitlines()[0],
        ) from error


def _tokenizer_beside(path: Path) -> Path:
    folder = path if path.is_dir() else path.parent
    found = next((folder / name for name in TOKENIZER_FOLDERS if (folder / name).is_dir()), None)
    if found is None:
        raise CheckpointError(
            "There is no tokenizer beside {path}: a folder google/umt5-xxl or tokenizer;"
            " get it with python build.py weights.",
            path=path,
        )
    return found


def with_one_embedding(tensors: LazyTensors) -> LazyTensors:
    """The same without the second copy of the token embedding that transformers may have saved.

    Raises `CheckpointError` when the two differ.
    """
    names = {name: name for name in tensors if name != TOKENIZER_TENSOR}
    if TIED_EMBEDDING in names:
        if EMBEDDING in names and not torch.equal(tensors[EMBEDDING], tensors[TIED_EMBEDDING]):
            raise CheckpointError(
                "{file} holds two different token embeddings; get the file again, or Wan's own encoder.",
                file=tensors.where,
            )
        names.setdefault(EMBEDDING, TIED_EMBEDDING)
        del names[TIED_EMBEDDING]
    return Renamed(tensors, names)
