"""Which files the model needs, where they come from, and whether they are there and whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from shared.engines import WeightsPart

from .errors import CheckpointError, WeightsMissing
from .folder import (
    CHECKSUMS,
    PREVIEW_NAMES,
    TEXT_ENCODER_NAMES,
    TOKENIZER_NAMES,
    TRANSFORMER_FILES,
    VAE_NAMES,
    find_weights,
)

if TYPE_CHECKING:
    from .hub import Progress


@dataclass(frozen=True)
class Source:
    """A repository of the hub, what of it the model needs, and the folder that gets it."""

    repository: str
    folder: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    what: str

    @property
    def page(self) -> str:
        return f"https://huggingface.co/{self.repository}"


POSEANYTHING = Source(
    repository="Ryan241005/PoseAnything",
    folder="PoseAnything",
    required=("diffusion_pytorch_model*.safetensors",),
    optional=("*.safetensors.index.json", "config.json", "README.md", "LICENSE*"),
    what="the transformer with part-aware attention, 6.13 billion parameters, about 12.3 GB in bfloat16",
)
WAN = Source(
    repository="Wan-AI/Wan2.2-TI2V-5B",
    folder="Wan2.2-TI2V-5B",
    required=("Wan2.2_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl/*"),
    optional=("LICENSE*",),
    what="the video VAE (2.8 GB), the text encoder (11.4 GB) and its tokenizer",
)
PARTS = (
    (("transformer",), WeightsPart("Transformer", POSEANYTHING.page, "", 12_300_000_000, False)),
    (("vae",), WeightsPart("Video VAE", WAN.page, "apache-2.0", 2_800_000_000, False)),
    (
        ("text_encoder", "tokenizer"),
        WeightsPart("Text Encoder", WAN.page, "apache-2.0", 11_400_000_000, False),
    ),
)
"""The components of the model as users see them, each about as large as it is on the hub."""
TIKTOK = "tiktok/*.safetensors"  # the release's weights for dancing people, run without part-aware attention


def describe(folder: Path) -> str:
    """Which files the model needs, where they are looked for and where they come from, and what is found
    there."""
    lines = [
        f"Looked for in {folder} and in the folders right inside it"
        " (POSEANYTHING_WEIGHTS names another one):",
        f"  transformer: {TRANSFORMER_FILES}, as released or as diffusers saves it",
        f"  VAE: {' or '.join(VAE_NAMES)}",
        f"  for sharper previews, if you like: {' or '.join(PREVIEW_NAMES)}, by github.com/madebyollin/taehv",
        f"  text encoder: {' or '.join(TEXT_ENCODER_NAMES)}",
        f"  tokenizer: {' or '.join(TOKENIZER_NAMES)}",
        "python build.py weights gets them from:",
    ]
    for source in (POSEANYTHING, WAN):
        lines.append(f"  {source.page} into {folder / source.folder}")
        lines.append(f"    {', '.join(source.required)}: {source.what}")
    try:
        found = find_weights(folder)
        lines += ["Found:", *(f"  transformer: {path}" for path in found.transformers)]
        for component in ("vae", "text_encoder", "tokenizer"):
            lines.append(f"  {component.replace('_', ' ')}: {found.shared[component]}")
    except CheckpointError as error:
        lines.append(str(error))
    return "\n".join(lines)


def describe_parts(folder: Path) -> tuple[WeightsPart, ...]:
    """What the model needs, and which of it lies in a folder."""
    missing: frozenset[str] = frozenset()
    try:
        find_weights(folder)
    except WeightsMissing as error:
        missing = error.missing
    except CheckpointError:
        pass  # something else is wrong with what is there
    return tuple(replace(part, present=missing.isdisjoint(components)) for components, part in PARTS)


def check(folder: Path) -> None:
    """Check that a folder's weights are complete, PoseAnything's, and as they were when they came.

    Raises `CheckpointError`.
    """
    from .hub import read_checksums, sha256
    from .inspection import inspect_weights

    for line in inspect_weights(find_weights(folder)):
        print(line, flush=True)
    for sums in sorted(folder.rglob(CHECKSUMS)):
        for name, digest in read_checksums(sums.parent).items():
            path = sums.parent / name
            if not path.exists() or sha256(path) != digest:
                raise CheckpointError(
                    f"{path} is missing or no longer what was fetched; delete it and get it again."
                )
            print(f"checksum right: {path}", flush=True)


def download(folder: Path, *, tiktok: bool = False, progress: Progress | None = None) -> None:
    """Get what the model needs into `folder`, saying under which licence.

    The token is the environment's HF_TOKEN. With HF_HUB_OFFLINE set nothing is fetched, only looked for.
    Raises `CheckpointError`.
    """
    wanted = [
        replace(POSEANYTHING, required=(*POSEANYTHING.required, TIKTOK)) if tiktok else POSEANYTHING,
        WAN,
    ]
    fetch_sources(wanted, folder, progress)
    find_weights(folder)
    print(f"The weights in {folder} are complete.")


def fetch_sources(sources: Sequence[Source], folder: Path, progress: Progress | None = None) -> None:
    """Get what of some repositories is wanted into `folder`, saying under which licence and how much it is;
    see `download`."""
    try:
        from huggingface_hub import constants

        from .hub import Repository, fetch
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"Weights are fetched with {error.name}, which is not installed;"
            " run python build.py setup --model."
        ) from error

    wanted = []
    for source in () if constants.is_offline_mode() else sources:
        repository = Repository(source.repository)
        files = repository.select(source.required, source.optional)
        target = folder / source.folder
        print(f"{repository.page}: {source.what}; licence: {repository.licence}")
        print(
            f"  {len(files)} files, {sum(file.size for file in files) / 1e9:.1f} GB, into {target}",
            flush=True,
        )
        wanted.append((repository, files, target))
    fetch(wanted, progress)
