"""Weights as users have them: the official release's files, diffusers folders, Wan's own, LoRAs, GGUF and
fp8.

What needs torch is imported when it is first asked for, so that looking for the files costs nothing.
"""

from importlib import import_module

from .errors import CheckpointError
from .folder import WeightSet, default_folder, find_weights, lora_folder, lora_names

_HOMES = {
    "declared_config": ".lora",
    "from_official_state_dict": ".official",
    "to_official_state_dict": ".official",
    "load_lora": ".lora",
    "load_text_encoder": ".text_encoder",
    "load_tiny_decoder": ".vae",
    "load_transformer": ".transformer",
    "load_vae": ".vae",
    "unload_loras": ".lora",
}

__all__ = [
    "CheckpointError",
    "WeightSet",
    "default_folder",
    "find_weights",
    "lora_folder",
    "lora_names",
    *_HOMES,
]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
