"""Where the weights lie: which files make up the model, and finding them in a folder without opening a
tensor."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from ..conditioning.latent_grid import LatentGrid
from .errors import CheckpointError, WeightsMissing, name_some

SHARD = re.compile(r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.safetensors")

# What a component may be called, the likeliest first. A folder of diffusers' counts when its config.json is
# there.
VAE_NAMES = ("Wan2.2_VAE.pth", "Wan2.2_VAE.safetensors", "wan2.2_vae.safetensors", "vae")
TEXT_ENCODER_NAMES = (
    "models_t5_umt5-xxl-enc-bf16.pth",
    "models_t5_umt5-xxl-enc-bf16.safetensors",
    "text_encoder",
    "umt5_xxl_fp16.safetensors",
    "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
)
PREVIEW_NAMES = ("taew2_2.safetensors", "taew2_2.pth")  # a tiny decoder of Wan 2.2's latents; none is needed
TOKENIZER_NAMES = ("google/umt5-xxl", "tokenizer")
OWN_NAMES = ("cross_attn_instance", "part_attn", "condition_proj", "pose_proj")  # parts that no plain Wan has
CHECKSUMS = "SHA256SUMS"  # kept beside fetched files
TRANSFORMER_FILES = "diffusion_pytorch_model*.safetensors or a .gguf file"
LOOKED_FOR = {
    "transformer": TRANSFORMER_FILES,
    "vae": " or ".join(VAE_NAMES),
    "text_encoder": " or ".join(TEXT_ENCODER_NAMES),
    "tokenizer": " or ".join(TOKENIZER_NAMES),
}


@dataclass(frozen=True)
class WeightSet:
    """Where each component of the model lies within `folder`: a file, or a folder with one checkpoint in
    it.

    A transformer saved as a pipeline of diffusers is, in a folder `transformer`, has the VAE in the folder
    `vae` beside it. One without text conditioning, by its config.json, has neither text encoder nor
    tokenizer.
    """

    folder: Path
    transformers: tuple[Path, ...]
    """The one there is, or those to choose from."""
    shared: Mapping[str, Path | None]
    """The VAE, text encoder and tokenizer of those that don't have their own."""

    @property
    def transformer(self) -> Path:
        """The only one. Raises `CheckpointError` naming them where there are several."""
        if len(self.transformers) > 1:
            raise CheckpointError(
                "{folder} holds several PoseAnything transformers ({names});"
                " choose one by the engine's option transformer.",
                folder=self.folder,
                names=self._names,
            )
        return self.transformers[0]

    def choose(self, transformer: str) -> WeightSet:
        """The same with the transformer of this name, a file or folder within `folder`; "" leaves it as it
        is.

        The name may come from another machine and leads nowhere else. Raises `CheckpointError`.
        """
        if not transformer:
            return self
        name, path = PurePath(transformer), self.folder / transformer
        if name.anchor or ".." in name.parts or not path.exists():
            raise CheckpointError(
                "There is no transformer {transformer!r} in {folder}; choose among {names}.",
                transformer=transformer,
                folder=self.folder,
                names=self._names,
            )
        chosen = replace(self, transformers=(path,))
        if missing := chosen.missing(path):
            raise _lack(self.folder, missing)
        return chosen

    @property
    def vae(self) -> Path:
        """The chosen transformer's."""
        found = _own_vae(self.transformer) or self.shared["vae"]
        if found is None:
            raise _lack(self.folder, ["vae"])
        return found

    @property
    def preview_decoder(self) -> Path | None:
        """The tiny decoder of the VAE's latents, where there is one."""
        return None if _own_vae(self.transformer) else self.shared.get("preview_decoder")

    @property
    def text_encoder(self) -> Path | None:
        """The chosen transformer's; None where it reads no prompts."""
        return self.shared["text_encoder"] if _reads_prompts(self.transformer) else None

    @property
    def tokenizer(self) -> Path | None:
        return self.shared["tokenizer"] if _reads_prompts(self.transformer) else None

    def missing(self, transformer: Path | None) -> list[str]:
        """Names of the components that a transformer needs and that are not there."""
        needs = {
            "transformer": transformer is None,
            "vae": transformer is None or _own_vae(transformer) is None,
            "text_encoder": transformer is None or _reads_prompts(transformer),
        }
        needs["tokenizer"] = needs["text_encoder"]
        return [name for name, is_needed in needs.items() if is_needed and self.shared.get(name) is None]

    @property
    def config(self) -> dict[str, object]:
        """The `config.json` beside the first transformer, which says how it was trained; empty without."""
        return read_config(self.transformers[0])

    @property
    def grid(self) -> LatentGrid | None:
        """How the first transformer and its VAE divide a clip, by their `config.json`; None without."""
        vae = _own_vae(self.transformers[0]) or self.shared["vae"]
        found = read_config(vae) if vae is not None else {}
        if (
            not {"scale_factor_spatial", "scale_factor_temporal"} <= found.keys()
            or "patch_size" not in self.config
        ):
            return None
        return LatentGrid.of(found, self.config)

    @property
    def transformer_names(self) -> list[str]:
        """The transformers as `choose` takes them."""
        return [path.relative_to(self.folder).as_posix() for path in self.transformers]

    @property
    def _names(self) -> str:
        return name_some(self.transformer_names)


def default_folder() -> Path:
    """The folder of the weights: what the environment variable POSEANYTHING_WEIGHTS names, else one in the
    home."""
    return Path(os.environ.get("POSEANYTHING_WEIGHTS") or Path.home() / ".poseanything" / "weights")


def lora_folder(folder: Path | None = None) -> Path:
    """Where LoRAs lie: the folder `loras` of the weights' folder."""
    return (default_folder() if folder is None else folder) / "loras"


def lora_names(folder: Path | None = None) -> list[str]:
    """The names of the LoRA files there, sorted."""
    return sorted(path.name for path in lora_folder(folder).glob("*.safetensors"))


def find_weights(folder: Path | str | None = None, *, transformer: Path | str | None = None) -> WeightSet:
    """Find the model's components in `folder` (`default_folder()` when None) and in the folders right inside
    it, which may be pipelines as diffusers saves them. Transformers that lack a component are left out where
    there is another.

    `transformer`, a path absolute or within `folder`, chooses one of several transformers (the release's
    `tiktok`). Raises `CheckpointError` naming what is missing, and under which names and where it was looked
    for.
    """
    folder = default_folder() if folder is None else Path(folder)
    if not folder.is_dir():
        raise WeightsMissing(
            "There is no folder {folder}; get the weights into it with python build.py weights.",
            LOOKED_FOR,
            folder=folder,
        )
    places = _places(folder)
    if transformer is None:
        saved = [place / "transformer" for place in places[1:]]
        transformers = _find_transformers(places + [path for path in saved if path.is_dir()])
    elif not (folder / transformer).exists():
        raise CheckpointError(
            "The weights in {folder}, and in the folders right inside it, lack the transformer"
            " ({transformer}). Get them with python build.py weights.",
            folder=folder,
            transformer=transformer,
        )
    else:
        transformers = [folder / transformer]
    shared = {
        # A VAE that was saved together with a transformer inside is that one's alone.
        "vae": _find_named(
            [folder, *(path for path in places[1:] if not (path / "transformer").is_dir())], VAE_NAMES
        ),
        "text_encoder": _find_named(places, TEXT_ENCODER_NAMES),
        "tokenizer": _find_named(places, TOKENIZER_NAMES),
        "preview_decoder": _find_named(places, PREVIEW_NAMES),
    }
    found = WeightSet(folder, tuple(transformers), shared)
    complete = tuple(one for one in transformers if not found.missing(one))
    if not complete:
        missing = found.missing(next(iter(transformers), None))
        raise _lack(folder, missing)
    return replace(found, transformers=complete)


def _lack(folder: Path, missing: list[str]) -> WeightsMissing:
    """What is wrong with a folder that lacks components."""
    plain = next(filter(_is_plain_wan, _places(folder)), None) if "transformer" in missing else None
    return WeightsMissing(
        "The weights in {folder}, and in the folders right inside it, lack {wanted}. Get them with python "
        "build.py weights."
        if plain is None
        else "The weights in {folder}, and in the folders right inside it, lack {wanted}. {plain} holds the "
        "plain Wan transformer, which is not it. Get them with python build.py weights.",
        missing,
        folder=folder,
        wanted="; ".join(f"{name.replace('_', ' ')} ({LOOKED_FOR[name]})" for name in missing),
        plain=plain,
    )


def _places(folder: Path) -> list[Path]:
    """Where weights are looked for."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [folder, *inside]


def _own_vae(transformer: Path) -> Path | None:
    """The VAE that was saved together with a transformer."""
    vae = transformer.parent / "vae"
    return vae if transformer.name == "transformer" and _is_component_folder(vae) else None


def _reads_prompts(transformer: Path) -> bool:
    """Whether a transformer was trained with prompts, as its config.json says."""
    return read_config(transformer).get("text_conditioning") is not False


def read_config(transformer: Path) -> dict[str, object]:
    """The `config.json` of a transformer's folder, or beside its file; empty where none can be read."""
    folder = transformer if transformer.is_dir() else transformer.parent
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def checkpoint_families(folder: Path) -> dict[str, list[Path]]:
    """The safetensors checkpoints of a folder: their files, shards of one together, by the name they
    share."""
    families: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        match = SHARD.fullmatch(path.name)
        families.setdefault(match["stem"] if match else path.stem, []).append(path)
    return families


def peek_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors file's tensors, from its header alone; nothing when it has no sound
    header."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size <= path.stat().st_size else {}
        return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _find_named(places: list[Path], names: tuple[str, ...]) -> Path | None:
    candidates = (place / name for place in places for name in names)
    return next((path for path in candidates if path.is_file() or _is_component_folder(path)), None)


def _is_component_folder(path: Path) -> bool:
    return any((path / name).is_file() for name in ("config.json", "tokenizer_config.json", "tokenizer.json"))


def _find_transformers(places: list[Path]) -> list[Path]:
    """The PoseAnything transformers: the file of each, or the folder where it is the only checkpoint.

    Files too damaged to tell are taken only where there is no other, so that loading them says what is wrong.
    """
    found: list[Path] = []
    for accept in (_is_poseanything, _may_be_damaged):
        for place in places if not found else ():
            families = checkpoint_families(place)
            accepted = [files[0] for stem, files in families.items() if accept(stem, files)]
            quantised = [path for path in sorted(place.glob("*.gguf")) if _may_be_wan(path)]
            alone = len(families) == 1 and accepted and not quantised
            found += [place] if alone else accepted + quantised
    return found


def _may_be_wan(gguf: Path) -> bool:
    """Whether a GGUF file's header, where it names an architecture, names Wan's; UMT5 comes as GGUF too."""
    with gguf.open("rb") as file:
        head = file.read(4096)
    # A key, the type of its value (8, text), the text's length as 64 bits, and the text.
    _, key, value = head.partition(b"general.architecture\x08\0\0\0")
    return not key or value[8:].startswith(b"wan") and value[0] == len(b"wan")


def _is_poseanything(stem: str, files: list[Path]) -> bool:
    shapes = _peek_all(files)
    in_channels, out_channels = _channels(shapes)
    return in_channels is not None and (
        in_channels == 2 * out_channels
        or any(part in name for name in shapes for part in OWN_NAMES)
        or b'"pose_injection"' in _config_beside(files[0])
    )


def _config_beside(file: Path) -> bytes:
    path = file.parent / "config.json"
    return path.read_bytes() if path.is_file() else b""


def _may_be_damaged(stem: str, files: list[Path]) -> bool:
    match = SHARD.fullmatch(files[0].name)
    lacks_shards = match is not None and len(files) < int(match["count"])
    return stem.startswith("diffusion_pytorch_model") and (lacks_shards or not all(map(peek_shapes, files)))


def _is_plain_wan(place: Path) -> bool:
    return any(_channels(_peek_all(files))[0] is not None for files in checkpoint_families(place).values())


def _peek_all(files: list[Path]) -> dict[str, tuple[int, ...]]:
    return {name: shape for file in files for name, shape in peek_shapes(file).items()}


def _channels(shapes: dict[str, tuple[int, ...]]) -> tuple[int | None, int]:
    """The channels a Wan transformer takes and gives, (None, 0) when it is none."""
    patch = next((shape for name, shape in shapes.items() if name.endswith("patch_embedding.weight")), ())
    head = next(
        (shape for name, shape in shapes.items() if name.endswith(("head.head.weight", "proj_out.weight"))),
        (),
    )
    if len(patch) != 5 or not head:
        return None, 0
    return patch[1], head[0] // (patch[2] * patch[3] * patch[4])
