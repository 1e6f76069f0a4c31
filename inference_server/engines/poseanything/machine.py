"""What the model would run on here: found out without importing torch, which takes seconds and memory."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from shared.sentences import say

SETUP = "python build.py setup --model"


@dataclass(frozen=True)
class NvidiaCard:
    """A card that nvidia-smi lists. cuda: the newest CUDA that its driver supports, (12, 4) for 12.4."""

    name: str
    memory_bytes: int
    cuda: tuple[int, int]


def runs_on() -> str:
    """What it runs on and what that means, in a sentence."""
    card = find_card()
    if card is None:
        return say("Runs on the processor: a clip takes hours.")
    return say("Runs on {card}, {size:.0f} GB.", card=card.name, size=card.memory_bytes / 1e9)


def obstacle() -> str:
    """Why the card that is there can't be used, and what to do; "" where nothing is in the way."""
    card, cuda = find_card(), torch_cuda()
    if card is None:
        return ""
    if cuda is None:
        return say(
            "The installed PyTorch can't use {card}; run {command}, or set CUDA_VISIBLE_DEVICES=-1 to run on "
            "the processor.",
            card=card.name,
            command=SETUP,
        )
    if cuda[0] > card.cuda[0]:
        return say(
            "The installed PyTorch needs CUDA {needed} but the driver of {card} supports {supported}; update "
            "the NVIDIA driver, or set CUDA_VISIBLE_DEVICES=-1 to run on the processor.",
            needed=".".join(map(str, cuda)),
            card=card.name,
            supported=".".join(map(str, card.cuda)),
        )
    return ""


def find_card() -> NvidiaCard | None:
    """The NVIDIA card that is computed on: the first that CUDA_VISIBLE_DEVICES leaves. None where there is
    none, or its driver does not answer."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    cards = find_cards()
    if visible in ("", "-1") or not cards:
        return None
    number = int(visible) if visible.isdecimal() else 0  # else a card's UUID
    return cards[number] if number < len(cards) else None


@cache
def find_cards() -> tuple[NvidiaCard, ...]:
    """All of the machine's NVIDIA cards, in the order of CUDA's numbers where those are by the bus."""
    try:
        done = subprocess.run(["nvidia-smi", "-q", "-x"], capture_output=True, timeout=20, check=True)
        return read_report(done.stdout)
    except (OSError, subprocess.SubprocessError):
        return ()


def read_report(xml: bytes) -> tuple[NvidiaCard, ...]:
    """The cards in the report of `nvidia-smi -q -x`; none where it can't be read."""
    try:
        root = ElementTree.fromstring(xml)
        major, minor = root.findtext("cuda_version", "").split(".")[:2]
        return tuple(
            NvidiaCard(
                gpu.findtext("product_name", ""),
                int(gpu.findtext("fb_memory_usage/total", "").split()[0]) << 20,
                (int(major), int(minor)),
            )
            for gpu in root.iterfind("gpu")
        )
    except (ElementTree.ParseError, IndexError, ValueError):
        return ()


@cache
def torch_cuda() -> tuple[int, int] | None:
    """The CUDA version that the installed torch is built for, None for a build without; read from its
    file."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^cuda\b[^=]*=\s*['\"](\d+)\.(\d+)", text, re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else None
