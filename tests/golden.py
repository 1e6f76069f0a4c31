"""The numbers recorded from the official code, and its own samples on machines that have them.

A test of recorded numbers takes each recording there is as a parameter from `recordings`, which marks it: so
`-k golden` selects exactly these tests. POSEANYTHING_GOLDEN names another folder of recordings.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
GOLDEN = Path(
    os.environ.get("POSEANYTHING_GOLDEN") or Path(__file__).resolve().parent / "data" / "recordings"
)
DEER = SHARED / "data" / "official" / "deer"


def recordings(pattern: str) -> list:
    """Parameters for a test: the recordings of a shape, or one that is skipped and says what is missing."""
    found = sorted(GOLDEN.glob(pattern))
    if not found:
        missing = pytest.mark.skip(reason=f"no recording {pattern} in {GOLDEN}")
        return [pytest.param(None, id=f"no {pattern}", marks=[pytest.mark.golden, missing])]
    return [pytest.param(path, id=path.stem, marks=pytest.mark.golden) for path in found]


def official_sample(name: str) -> Path:
    """The folder of a sample of the official release; skips where it is not."""
    places = [GOLDEN / name, GOLDEN.parent / "data" / "official" / name, SHARED / "data" / "official" / name]
    for place in places:
        if (place / "skeleton").is_dir():
            return place
    pytest.skip(f"the official release's sample {name!r} is not here: {SHARED} has no data/official/{name}")
