"""Probing the card: what computes, how much memory it has to give, and whether it can be used at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from shared.sentences import Sentence, SentenceError, say

GIB = 2**30


class DeviceError(SentenceError):
    """The card can't be used, or stopped working. Its text is one sentence: what is wrong, and what to do.

    After one raised while computing the process can use CUDA no more.
    """


@dataclass(frozen=True)
class Card:
    """What computes, and the memory it and its host have to give, in bytes."""

    name: str
    device: torch.device
    free_bytes: int
    """Of the card; of the host where there is no card."""
    host_bytes: int
    bfloat16: bool = True
    """Whether it computes in bfloat16; the older ones do in float16 alone."""
    total_bytes: int = 0
    """Of the card, what others hold included; 0 where that is not known."""

    @classmethod
    def of(cls, device: torch.device | str, held_bytes: int = 0) -> Card:
        """The device as it is now. What this process's allocator holds of it counts as free, and so do
        `held_bytes` of the host, which loaded weights hold: keeping them takes nothing more.

        Raises `DeviceError` for a card that can't be used.
        """
        device = torch.device(device)
        memory = psutil.virtual_memory()
        available, total = memory.available, memory.total
        if (container := container_memory()) is not None:
            available, total = min(available, container[0]), min(total, container[1])
        host_bytes = min(available + held_bytes, total)
        if device.type != "cuda":
            return cls(say("The processor"), device, host_bytes, host_bytes)
        try:
            free_bytes, total_bytes = torch.cuda.mem_get_info(device)
            free_bytes += torch.cuda.memory_reserved(device)
            name, capability = torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)
        except (RuntimeError, AssertionError) as error:
            raise DeviceError(explain(error)) from error
        require_capability(name, capability, torch.cuda.get_arch_list())
        return cls(name, device, free_bytes, host_bytes, capability >= (8, 0), total_bytes)

    @property
    def others_bytes(self) -> int:
        """What other programs hold of the card."""
        return max(0, self.total_bytes - self.free_bytes)


def container_memory(root: Path = Path("/sys/fs/cgroup")) -> tuple[int, int] | None:
    """Free and total bytes of the container that this process is in, None where no limit is set.

    Without it a process is ended for what the machine has and its container may not use.
    """
    for limit, used, reclaimable in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            total = int((root / limit).read_text())
            in_use = int((root / used).read_text())
            lines = (root / used).with_name("memory.stat").read_text().splitlines()
        except (OSError, ValueError):  # "max" is no limit
            continue
        pages = dict(line.split() for line in lines if line.count(" ") == 1)
        return max(0, total - in_use + int(pages.get(reclaimable, 0))), total
    return None


def default_device(initialize: Callable[[], None] = torch.cuda.init) -> torch.device:
    """CUDA's first card, or the processor where the machine has none.

    Raises `DeviceError` where there is a card that this torch can't use: the processor would take hours.
    """
    if torch.version.cuda is None and torch.version.hip is None:
        return torch.device("cpu")
    try:
        initialize()
    except (RuntimeError, AssertionError) as error:
        text = str(error).lower()
        if "no nvidia driver" in text or "no cuda gpus" in text or "no cuda-capable" in text:
            return torch.device("cpu")
        raise DeviceError(explain(error)) from error
    return torch.device("cuda")


def require_capability(name: str, capability: tuple[int, int], architectures: list[str]) -> None:
    """Raise `DeviceError` for a card older than all that torch was built for (its `get_arch_list()`)."""
    built = [int("".join(filter(str.isdigit, word))) for word in architectures if word.startswith("sm_")]
    oldest = min(built, default=0)
    if capability[0] * 10 + capability[1] < oldest:
        raise DeviceError(
            "{name} (compute capability {major}.{minor}) is too old for this PyTorch, which"
            " needs {needed_major}.{needed_minor} or newer; use a newer card, or a PyTorch for older ones.",
            name=name,
            major=capability[0],
            minor=capability[1],
            needed_major=oldest // 10,
            needed_minor=oldest % 10,
        )


REMEDIES = {  # what to say, by words of an error
    ("driver on your system is too old", "driver version is insufficient"): (
        "The NVIDIA driver is older than this PyTorch needs ({error}); update the driver, or get the PyTorch "
        "that fits it with python build.py setup --model."
    ),
    ("busy or unavailable", "prohibited", "exclusive"): (
        "Another program has taken the card for itself ({error}); close it, or set the card's compute mode "
        "to default."
    ),
    ("no kernel image", "not compatible with the current pytorch"): (
        "This PyTorch was not built for this card ({error}); get the one that fits with python build.py "
        "setup --model."
    ),
    ("gpu is lost", "device lost", "fallen off", "unspecified launch failure", "unknown error"): (
        "The card stopped answering ({error}); make the clip again; if it happens again, restart the machine "
        "and look at the card's temperature."
    ),
    ("ecc",): (
        "The card's memory is faulty ({error}); restart the machine, and have the card checked if it happens "
        "again."
    ),
}


def explain(error: BaseException) -> Sentence:
    """One sentence on an error of CUDA's, with what to do."""
    text = str(error).partition("\n")[0].strip()[:200]
    for words, template in REMEDIES.items():
        if any(word in str(error).lower() for word in words):
            return say(template, error=text)
    return say(
        "The card failed ({error}); make the clip again, and report it if it happens again.", error=text
    )


def is_device_fault(error: BaseException) -> bool:
    """Whether the card itself failed, after which the process can't use it any more."""
    words = ("cuda error", "cudnn error", "cublas error", "cudnn_status", "cublas_status", "hip error")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
