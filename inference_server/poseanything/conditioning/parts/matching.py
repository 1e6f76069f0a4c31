"""Which part of a later frame is which part of the first: the one it attends to most (Eq. 8, section C)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from .plan import PartPlan

FIRST_PLACE_WEIGHT, LAST_PLACE_WEIGHT = 2.5, 5.0
"""What a part loses of its score, in nats of attention, that has moved by the subject's extent, against the
others, since the first frame, and since it was matched last: chosen on drawn clips by a small model
(docs/small-model.md)."""


def match_parts(
    plan: PartPlan,
    weights: np.ndarray,
    rows: np.ndarray | None = None,
    mode: str = "paper",
    frames_per_latent: int = 4,
) -> np.ndarray:
    """Match every part of the first frame in all later latent frames.

    In each posed pixel frame a first-frame part takes the candidate with the highest mean attention weight; a
    part without tokens takes none, and an empty candidate is never taken.

    Args:
        plan: parts of the first frame and candidates of the others.
        weights: [R, L] softmax weights of first-frame queries over all L = F_latent * h * w tokens, heads
            summed or averaged.
        rows: int [R], the first-frame token that each row of `weights` belongs to, `plan.rows` at least.
            None: all in order.
        mode: "paper" reads the weights of the latent frame that holds the pixel frame and unites the matches
            of its pixel frames. "assigned" does as well, but gives each candidate to one part, about where it
            was before (see `assign_candidates`). "release" repeats the official code's slips: it reads the
            latent frame before, files the result one frame before its own (the first wraps round to the
            last), and of the four keeps the last match, united with what lies under its own frame by then.
        frames_per_latent: pixel frames to each latent frame after the first (the VAE's).

    Returns:
        bool [F_latent - 1, P, h, w]: the matched masks of latent frames 1 and later.

    Raises:
        ValueError: the weights don't belong to this plan, or the mode is unknown.
    """
    if mode not in ("paper", "assigned", "release"):
        raise ValueError(f'Matching mode {mode!r} is unknown; choose "paper", "assigned" or "release".')
    num_parts, height, width = plan.first.shape
    num_tokens = height * width
    num_rows, length = weights.shape
    num_frames = length // num_tokens
    if (
        length % num_tokens
        or num_rows != (num_tokens if rows is None else len(rows))
        or max(plan.candidates, default=0) > frames_per_latent * (num_frames - 1)
    ):
        raise ValueError(
            f"Attention weights {tuple(weights.shape)} do not fit parts of {height} x {width} tokens; "
            "record them on the clip that the parts were planned for."
        )
    queries = plan.first.reshape(num_parts, num_tokens).astype(np.float64)
    recorded = queries if rows is None else queries[:, rows]
    if not np.array_equal(recorded.sum(1), queries.sum(1)):
        raise ValueError("The attention weights lack rows of the parts; record all rows that the plan names.")

    attention = (recorded @ np.asarray(weights, np.float64)).reshape(num_parts, num_frames, num_tokens)
    matched = np.zeros((num_frames - 1, num_parts, height, width), bool)
    last = plan.first.copy()
    for frame in sorted(plan.candidates):
        slot = (frame - 1) // frames_per_latent
        if mode == "assigned":
            choice, part = assign_candidates(attention[:, slot + 1], plan.candidates[frame], plan.first, last)
            matched[slot, part] |= choice
            last[part] = choice
        elif mode == "paper":
            choice, part = best_candidates(attention[:, slot + 1], plan.candidates[frame], queries)
            matched[slot, part] |= choice
        else:
            choice, part = best_candidates(attention[:, slot], plan.candidates[frame], queries)
            matched[slot - 1, part] = matched[slot, part] | choice
    return matched


def best_candidates(
    attention: np.ndarray, candidates: np.ndarray, queries: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The best of `candidates` [S, h, w] for each part that has one, bool [n, h, w], and the indices of those
    n parts.

    attention: [P, h * w], each part's weights on one frame's tokens, summed over the part's tokens `queries`
        [P, h * w].
    """
    keys = candidates.reshape(len(candidates), queries.shape[1]).astype(np.float64)
    keys, candidates = keys[keys.any(1)], candidates[candidates.any((1, 2))]
    parts = np.flatnonzero(queries.any(1)) if len(keys) else np.zeros(0, int)
    # The part's own size divides all of its scores alike and so decides nothing.
    scores = attention[parts] @ keys.T / keys.sum(1)
    return candidates[scores.argmax(1)] if len(parts) else candidates[:0], parts


def assign_candidates(
    attention: np.ndarray, candidates: np.ndarray, first: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As `best_candidates`, one to one: no two parts share a candidate as long as there are enough.

    By itself a part's attention is drawn to whatever candidate all parts attend to. So each candidate's share
    common to all parts, and each part's to all candidates, are taken off before the best assignment is found,
    and a part is expected about where it was, counted from the subject's middle.

    first, last: bool [P, h, w], the parts in the first frame, and where they were matched last.
    """
    keys = candidates[candidates.any((1, 2))]
    parts = np.flatnonzero(first.any((1, 2))) if len(keys) else np.zeros(0, int)
    if not len(parts):
        return candidates[:0], parts
    flat = keys.reshape(len(keys), -1).astype(np.float64)
    score = np.log(np.maximum(attention[parts] @ flat.T / flat.sum(1), 1e-12))
    score = score - score.mean(0) - score.mean(1, keepdims=True)
    new, extent = _middles(keys), max(np.ptp(_middles(first[parts]), 0).max(), 1.0)
    for weight, before in ((FIRST_PLACE_WEIGHT, first), (LAST_PLACE_WEIGHT, last)):
        old = _middles(before[parts])
        moved = (old - old.mean(0))[:, None] - (new - new.mean(0))
        score -= weight * np.linalg.norm(moved, axis=2) / extent
    chosen = score.argmax(1)  # of the parts that get none of their own
    taken, of = linear_sum_assignment(-score)
    chosen[taken] = of
    return keys[chosen], parts


def _middles(masks: np.ndarray) -> np.ndarray:
    """[N, 2], row and column of the middle of each mask."""
    return np.array([np.argwhere(mask).mean(0) for mask in masks])
