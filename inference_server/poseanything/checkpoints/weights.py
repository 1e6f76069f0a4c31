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
class Component:
    """A part of the released model as users see it.

    names: which components of a `WeightSet` it is.
    parameters, itemsize: how many, and the bytes that each takes in its file.
    """

    label: str
    what: str
    names: tuple[str, ...]
    parameters: int
    itemsize: int

    @property
    def bytes(self) -> int:
        """About as many as its files have."""
        return self.parameters * self.itemsize


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


TOKEN_EMBEDDING = 256_384 * 4096
"""Of the text encoder's parameters, those that only look words up."""
TRANSFORMER = Component(
    "Transformer", "the transformer with part-aware attention", ("transformer",), 6_133_576_896, 2
)
VAE = Component("Video VAE", "the video VAE", ("vae",), 704_688_668, 4)
TEXT_ENCODER = Component(
    "Text Encoder",
    "the text encoder and its tokenizer",
    ("text_encoder", "tokenizer"),
    4_630_761_472 + TOKEN_EMBEDDING,
    2,
)


def _listed(*components: Component) -> str:
    """What they are, and how large."""
    return ", ".join(f"{component.what} ({component.bytes / 1e9:.1f} GB)" for component in components)


POSEANYTHING = Source(
    repository="Ryan241005/PoseAnything",
    folder="PoseAnything",
    required=("diffusion_pytorch_model*.safetensors",),
    optional=("*.safetensors.index.json", "config.json", "README.md", "LICENSE*"),
    what=_listed(TRANSFORMER),
)
WAN = Source(
    repository="Wan-AI/Wan2.2-TI2V-5B",
    folder="Wan2.2-TI2V-5B",
    required=("Wan2.2_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl/*"),
    optional=("LICENSE*",),
    what=_listed(VAE, TEXT_ENCODER),
)
PARTS = ((TRANSFORMER, POSEANYTHING, ""), (VAE, WAN, "apache-2.0"), (TEXT_ENCODER, WAN, "apache-2.0"))
"""Components, where they come from, and the licence that is stated there."""
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
    return tuple(
        WeightsPart(part.label, source.page, licence, part.bytes, present=missing.isdisjoint(part.names))
        for part, source, licence in PARTS
    )


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
                    "{path} is missing or no longer what was fetched; delete it and get it again.", path=path
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
            "Weights are fetched with {package}, which is not installed; run python build.py setup --model.",
            package=error.name,
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
