"""Where the official code's recordings lie, and its sample on machines that have it."""

from __future__ import annotations

import os
from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared"
GOLDEN = Path(
    os.environ.get("POSEANYTHING_GOLDEN") or Path(__file__).resolve().parent / "data" / "recordings"
)
DEER = SHARED / "data" / "official" / "deer"
