"""Getting files of a Hugging Face repository so that nothing is fetched twice and nothing damaged is kept.

`hf_hub_download` throws away what it has when a transfer breaks off, so the hub's own transport is used
underneath: a file grows under a `.part` name, goes on from there in this run or the next, and takes its name
once its checksum is right. What was verified is written down beside the files, in the form that
`sha256sum -c` reads.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from httpx2 import HTTPError
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import build_hf_headers

from shared.fetching import CHECKING, FETCHING
from shared.sentences import say

from ..compat.huggingface_hub import git_hash, http_get
from .errors import CheckpointError, name_some
from .folder import CHECKSUMS

Progress = Callable[[str, str, int, int], None]
"""Is told the stage (`FETCHING` or `CHECKING`), the file's name, and how many bytes of how many are there."""
Tell = Callable[[str, int], None]
"""The same of one file: the stage, and how many bytes of it are there."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub lists it: large ones with their sha256, all with the id git knows them by."""

    name: str
    size: int
    sha256: str | None
    blob_id: str

    def is_like(self, path: Path, sha256: str) -> bool:
        return sha256 == self.sha256 if self.sha256 else git_hash(path.read_bytes()) == self.blob_id


class Repository:
    """A repository of the hub at its newest revision. Raises `CheckpointError` when it can't be reached."""

    def __init__(self, name: str):
        self.name = name
        self.page = f"https://huggingface.co/{name}"
        self._api = HfApi(token=os.environ.get("HF_TOKEN"))
        try:
            info = self._api.model_info(name, files_metadata=True)
        except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled) as error:
            raise CheckpointError(self._explain(error)) from error
        self.revision = info.sha
        self.licence = (info.card_data and info.card_data.get("license")) or "not stated, see its page"
        self.files = [
            RemoteFile(
                entry.rfilename, entry.size or 0, entry.lfs.sha256 if entry.lfs else None, entry.blob_id
            )
            for entry in info.siblings or []
        ]

    def select(self, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> list[RemoteFile]:
        """The files that the patterns name, `*` within one folder. Raises `CheckpointError` for one required
        but not there."""
        unmet = [pattern for pattern in required if not any(_fits(file, pattern) for file in self.files)]
        if unmet:
            raise CheckpointError(
                "{page} has no {files} any more; look at its page, and name the files' folder with "
                "POSEANYTHING_WEIGHTS once you have them.",
                page=self.page,
                files=name_some(unmet),
            )
        return [file for file in self.files if any(_fits(file, pattern) for pattern in required + optional)]

    def fetch(self, file: RemoteFile, target: Path, tell: Tell) -> None:
        """Bring a file into the folder `target`. Raises `CheckpointError`."""
        try:
            self._fetch(file, target, tell)
        except (HfHubHTTPError, HTTPError, OfflineModeIsEnabled) as error:
            raise CheckpointError(self._explain(error)) from error
        except OSError as error:
            raise CheckpointError(
                "{file} of {page} stopped on its way ({error}); begin again and it goes on from there.",
                file=file.name,
                page=self.page,
                error=error,
            ) from error

    def _fetch(self, file: RemoteFile, target: Path, tell: Tell) -> None:
        path, part = target / file.name, _part(file, target)
        verified = read_checksums(target)
        if path.exists():
            if (
                file.name in verified
                and verified[file.name] == file.sha256
                and path.stat().st_size == file.size
            ):
                return
            tell(CHECKING, file.size)
            digest = sha256(path)
            if not file.is_like(path, digest):
                raise CheckpointError(
                    "{path} is not the file that {page} has; move it away, or name another folder.",
                    path=path,
                    page=self.page,
                )
            _write_checksum(target, file.name, digest)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as stream:
            http_get(
                hf_hub_url(self.name, file.name, revision=self.revision, endpoint=self._api.endpoint),
                cast(BinaryIO, _Watched(stream, lambda size: tell(FETCHING, size))),
                resume_size=stream.tell(),
                # Compressed on the way, a file could not be taken up in the middle.
                headers=build_hf_headers(token=self._api.token) | {"Accept-Encoding": "identity"},
                expected_size=file.size,
                displayed_filename=file.name,
            )
        tell(CHECKING, file.size)
        digest = sha256(part)
        if not file.is_like(part, digest):
            part.unlink()
            raise CheckpointError(
                "{file} arrived damaged (its checksum is wrong); begin again.", file=file.name
            )
        part.replace(path)
        _write_checksum(target, file.name, digest)

    def _explain(self, error: Exception) -> str:
        if isinstance(error, GatedRepoError):
            return say(
                "{page} is open to those who accept its terms; accept them there and set HF_TOKEN.",
                page=self.page,
            )
        if isinstance(error, RepositoryNotFoundError):
            return say(
                "{page} is not there, or not for you; look there, and set HF_TOKEN if it asks to sign in.",
                page=self.page,
            )
        return say(
            "{page} can't be reached ({reason}); begin again later, it goes on where it stopped.",
            page=self.page,
            reason=(str(error).strip() or type(error).__name__).splitlines()[0],
        )


def fetch(
    wanted: Sequence[tuple[Repository, list[RemoteFile], Path]], progress: Progress | None = None
) -> None:
    """Bring files of repositories into their folders. Raises `CheckpointError`, also when the disk is too
    small for all of them."""
    _require_space(wanted)
    total = sum(file.size for _, files, _ in wanted for file in files)
    done = 0
    for repository, files, target in wanted:
        for file in files:

            def tell(stage: str, size: int, before: int = done, name: str = file.name) -> None:
                if progress is not None:
                    progress(stage, name, before + size, total)

            repository.fetch(file, target, tell)
            done += file.size
            tell(FETCHING, file.size)


class _Watched:
    """A file that tells how long it has become, for what can only write to it."""

    def __init__(self, stream: BinaryIO, tell: Callable[[int], None]):
        self._stream, self._tell = stream, tell

    def write(self, data: bytes) -> int:
        written = self._stream.write(data)
        self._tell(self._stream.tell())
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_checksums(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a folder that was verified when it came, by its name there."""
    path = folder / CHECKSUMS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _write_checksum(folder: Path, name: str, digest: str) -> None:
    sums = read_checksums(folder) | {name: digest}
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    (folder / CHECKSUMS).write_text(text, encoding="utf-8")


def _fits(file: RemoteFile, pattern: str) -> bool:
    return fnmatch.fnmatchcase(file.name, pattern) and file.name.count("/") == pattern.count("/")


def _part(file: RemoteFile, target: Path) -> Path:
    """Where a file lies until it is whole; part of its checksum in the name keeps two versions of it
    apart."""
    path = target / file.name
    return path.with_name(f"{path.name}.{(file.sha256 or file.blob_id)[:12]}.part")


def _require_space(wanted: Sequence[tuple[Repository, list[RemoteFile], Path]]) -> None:
    """All folders are on one disk."""
    missing = [
        (file, target) for _, files, target in wanted for file in files if not (target / file.name).exists()
    ]
    parts = [_part(file, target) for file, target in missing]
    needed = sum(file.size for file, _ in missing) - sum(
        part.stat().st_size for part in parts if part.exists()
    )
    if not missing:
        return
    folder = missing[0][1].parent
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    if needed > free:
        raise CheckpointError(
            "{folder} needs {needed:.1f} GB more and its disk has {free:.1f} GB free; free some, or name "
            "another folder.",
            folder=folder,
            needed=needed / 1e9,
            free=free / 1e9,
        )
