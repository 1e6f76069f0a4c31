"""Means over clips, and differences paired by clip, with 95 % confidence intervals."""

from __future__ import annotations

import numpy as np

NORMAL_95 = 1.96


def mean_of(values: np.ndarray) -> dict[str, float]:
    """Mean of [N] values, one a clip, and the half width of its interval; clips without a value (NaN) don't
    count."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not len(values):
        return {"mean": float("nan"), "interval": float("nan"), "clips": 0}
    half = NORMAL_95 * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("inf")
    return {"mean": round(float(values.mean()), 4), "interval": round(float(half), 4), "clips": len(values)}


def compare(values: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """What `values` are more than `others` by, clip by clip, and in which share of the clips they are
    more."""
    difference = np.asarray(values, float) - np.asarray(others, float)
    finite = difference[np.isfinite(difference)]
    return mean_of(difference) | {
        "wins": round(float((finite > 0).mean()), 4) if len(finite) else float("nan")
    }
