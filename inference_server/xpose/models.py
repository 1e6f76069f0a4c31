"""Where the stages' weights are, and what they run on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from shared.sentences import say

from ..poseanything.checkpoints import default_folder
from ..poseanything.checkpoints.weights import Source
from .stages import XPoseError

FOLDER = "xpose"
"""Inside the weights' folder, so that none of it is taken for a part of the video model."""

TRANSFORMERS = ("*.safetensors", "config.json")
"""What transformers saves of every model."""
WORDS = ("tokenizer.json", "tokenizer_config.json")
EXTRAS = ("*.json", "vocab.txt", "merges.txt", "LICENSE*", "README.md")


@dataclass(frozen=True)
class StageModel:
    """A model that a stage loads, from a repository of the hub or from elsewhere by hand."""

    folder: str
    source: Source | None = None
    by_hand: str = ""


def _from_hub(repository: str, folder: str, what: str, required: tuple[str, ...]) -> StageModel:
    return StageModel(folder, Source(repository, folder, required, EXTRAS, what))


MODELS = {
    "qwen": [
        _from_hub(
            "Qwen/Qwen2.5-VL-7B-Instruct",
            "Qwen2.5-VL-7B-Instruct",
            "the language model that judges clips, 8.3 billion parameters, about 16.6 GB in bfloat16",
            (*TRANSFORMERS, *WORDS),
        )
    ],
    "grounded": [
        _from_hub(
            "IDEA-Research/grounding-dino-base",
            "grounding-dino-base",
            "the detector, 0.23 billion parameters, about 0.9 GB",
            (*TRANSFORMERS, *WORDS),
        ),
        _from_hub(
            "facebook/sam2.1-hiera-large",
            "sam2.1-hiera-large",
            "what follows masks, 0.22 billion parameters, about 0.9 GB",
            ("model.safetensors", "config.json"),
        ),
    ],
    "sam3": [
        _from_hub(
            "facebook/sam3",
            "sam3",
            "what finds kinds and follows them, about 3.4 GB; its terms must be accepted first",
            (*TRANSFORMERS, *WORDS),
        )
    ],
    "blumnet": [
        StageModel(
            "BlumNet",
            by_hand="BlumNet's checkpoints are not on the hub: get one, such as its demo's (Swin small, "
            "Apache-2.0), by the links of https://github.com/cong-yang/BlumNet and put its .pth there.",
        )
    ],
}
"""What each stage that has weights loads."""
OF_THE_PAPER = ("qwen", "grounded", "blumnet")
"""Those that are fetched where none is named."""


def describe_models(names: Iterable[str], folder: Path) -> str:
    """Which models some stages load, where from, and whether they are there."""
    lines = [f"Looked for in {folder}:"]
    for name in names:
        for model in MODELS[name]:
            place = folder / model.folder
            there = "there" if _has_files(place) else "missing"
            lines.append(f"  {name}: {place} ({there})")
            if model.source:
                lines.append(f"    {model.source.page}: {model.source.what}")
            else:
                lines.append(f"    {model.by_hand}")
    return "\n".join(lines)


def is_there(model: StageModel) -> bool:
    """Whether a model's weights lie where they are looked for."""
    return _has_files(default_folder() / FOLDER / model.folder)


def _has_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def weights_of(name: str) -> Path:
    """The folder of a model's weights. Raises `XPoseError` where it is not there."""
    path = default_folder() / FOLDER / name
    if not _has_files(path):
        raise XPoseError("{path} has no weights; get them with: python build.py weights xpose", path=path)
    return path


def pick_device(name: str = "") -> str:
    """The device of a name, or the card if there is one."""
    import torch

    return name or ("cuda" if torch.cuda.is_available() else "cpu")


def load_model(kind: Any, path: Path, **options: Any) -> Any:
    """What transformers' `from_pretrained` reads from a folder, nothing fetched and no code of it run; a
    model is ready to be asked. Raises `XPoseError` where it can't be read, or lacks weights, in whose place
    transformers would put random ones."""
    from transformers import PreTrainedModel

    is_model = issubclass(kind, PreTrainedModel)
    if is_model:
        options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        found = kind.from_pretrained(path, local_files_only=True, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise _unreadable(path, (str(error).strip() or type(error).__name__).splitlines()[0]) from error
    if not is_model:
        return found
    model, report = found
    lacking = sorted([*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])])
    if lacking:
        reason = say(
            "{count} weights are missing or of another size: {name}, ...", count=len(lacking), name=lacking[0]
        )
        raise _unreadable(path, reason)
    return model.eval()


def _unreadable(path: Path, reason: str) -> XPoseError:
    return XPoseError(
        "{path} can't be read ({reason}); get it again with: python build.py weights xpose",
        path=path,
        reason=reason,
    )
