"""Weights as users have them: the official release's files, diffusers folders, Wan's own, LoRAs, GGUF and fp8."""

from .errors import CheckpointError
from .official import from_official_state_dict, to_official_state_dict
from .text_encoder import load_text_encoder
from .transformer import load_transformer
from .vae import load_vae

__all__ = [
    "CheckpointError",
    "from_official_state_dict",
    "load_text_encoder",
    "load_transformer",
    "load_vae",
    "to_official_state_dict",
]
