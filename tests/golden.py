"""Where the official code's recordings and its sample lie, on machines that have them."""

from __future__ import annotations

import os
from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared"
GOLDEN = Path(os.environ.get("POSEANYTHING_GOLDEN") or SHARED / "golden")
DEER = SHARED / "data" / "official" / "deer"
