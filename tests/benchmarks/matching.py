"""Ways to find the parts of the first frame in later ones, by the small trained model (Eq. 8, section C).

    python build.py bench matching [--clips 48] [--steps 4] [--model FOLDER]

Clips are drawn by the 2D generator from seeds that no training uses; no time is left out after frame 0.
Limbs are given apart: the first frame's as the scene shows them, those of each later frame as the tokens
under their strokes, of which nothing says which is which. The clip is made without parts, while the last
block's self-attention is recorded in the first step ("from noise") and in the last one that is followed by
another ("near the end"). The ways:

- `assigned`: the default, one to one, about where each part was in the first frame and in the frame before,
  without what all parts or candidates share;
- `paper`: each part takes the candidate that it attends to most;
- `anywhere`: as `assigned`, wherever the parts were;
- `by place`: as `assigned`, without attention;
- `other way`: as `assigned`, by how the candidates attend to the parts;
- `first place`: as `assigned`, about where each part was in the first frame alone.

Printed are the shares of right matches in percent, means over clips with 95 % intervals; differences are
paired, clip by clip.

Left out: the released weights; finding limbs in pictures, whose lines are too thin at the small model's size;
and what a wrong match costs the pictures.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from inference_server.datasets.examples import Example
from inference_server.poseanything.conditioning.parts import matching
from inference_server.poseanything.conditioning.parts.matching import assign_candidates, best_candidates
from inference_server.poseanything.conditioning.parts.truth import cover_tokens
from inference_server.poseanything.models.attention_recorder import FirstFrameAttention
from inference_server.poseanything.sampling.part_tracking import PartTracker
from inference_server.synthesis.pool import FRAMES_PER_LATENT, encode_row, strokes
from tests.benchmarks._small_model import (
    arguments_of,
    drawn_clips,
    each,
    leaves_no_time_out,
    rows_of,
    show,
    small_pipeline,
)
from tests.training.mini_clips import conditions_of

FIRST_SEED = 995_000


class EveryAttention(FirstFrameAttention):
    """Records the self-attention weights of all tokens, float32 `[B, L, L]`."""

    def record(self, attn, hidden_states, rotary_emb) -> None:
        self.rows = torch.arange(hidden_states.shape[1])
        super().record(attn, hidden_states, rotary_emb)


@dataclass(frozen=True, eq=False)
class Seen:
    """What there is to match by in a frame.

    first, last: bool [P, h, w], the parts in the first frame, and as they were matched in the frame before.
    candidates: bool [P, h, w], the limbs of this frame.
    attention: [P, h * w], each part's weights on this frame's tokens, summed over the part's tokens.
    back: the same the other way, of this frame's tokens on the part's.
    """

    first: np.ndarray
    last: np.ndarray
    candidates: np.ndarray
    attention: np.ndarray
    back: np.ndarray


Matched = tuple[np.ndarray, np.ndarray]
"""The masks that were chosen, bool [n, h, w], and the indices of their parts."""


def assigned(seen: Seen) -> Matched:
    return assign_candidates(seen.attention, seen.candidates, seen.first, seen.last)


def anywhere(seen: Seen) -> Matched:
    with mock.patch.multiple(matching, FIRST_PLACE_WEIGHT=0.0, LAST_PLACE_WEIGHT=0.0):
        return assigned(seen)


def paper(seen: Seen) -> Matched:
    return best_candidates(seen.attention, seen.candidates, seen.first.reshape(len(seen.first), -1))


WAYS: dict[str, Callable[[Seen], Matched]] = {
    "assigned": assigned,
    "paper": paper,
    "anywhere": anywhere,
    "by place": lambda seen: assigned(replace(seen, attention=np.ones_like(seen.attention))),
    "other way": lambda seen: assigned(replace(seen, attention=seen.back)),
    "first place": lambda seen: assigned(replace(seen, last=seen.first)),
}


class Recorder:
    """Makes clips by the small model without parts and keeps how its tokens attend to each other."""

    def __init__(self, model: Path, steps: int):
        self.pipeline, self.settings = small_pipeline(model, steps)

    def attention(self, clip: Example) -> dict[str, np.ndarray]:
        """By moment, the weights [L, L]."""
        kept: list[EveryAttention] = []

        def recorder(tracker: PartTracker, timestep: float) -> EveryAttention:
            kept.append(EveryAttention(self.pipeline.transformer.config.num_layers - 1))
            return kept[-1]

        with (
            mock.patch.object(PartTracker, "recorder", recorder),
            mock.patch.object(PartTracker, "observe", lambda tracker, recorder, final=False: None),
        ):
            self.pipeline.sample(conditions_of(clip), settings=self.settings)
        return {
            name: kept[step].weights[0].cpu().numpy()
            for name, step in (("from noise", 0), ("near the end", -1))
        }


def share_right(
    way: Callable[[Seen], Matched], weights: np.ndarray, first: np.ndarray, limbs: np.ndarray
) -> float:
    """Percent of the parts `first` bool [P, h, w] that a way matches to the right one of `limbs` bool
    [F - 1, P, h, w]."""
    tokens = first.reshape(len(first), -1).astype(np.float64)
    size, last, right = tokens.shape[1], first.copy(), []
    for index, candidates in enumerate(limbs):
        slot = index // FRAMES_PER_LATENT + 1
        later = slice(slot * size, (slot + 1) * size)
        attention, back = tokens @ weights[:size, later], tokens @ weights[later, :size].T
        chosen, of = way(Seen(first, last, candidates, attention, back))
        shown = candidates[of].any((1, 2))
        right += (chosen == candidates[of]).all((1, 2))[shown].tolist()
        last[of] = chosen
    return 100 * float(np.mean(right))


def measure(recorder: Recorder, clip: Example) -> dict[str, dict[str, float]]:
    """By way, the figures of a clip."""
    first = encode_row(clip, with_draft=False)["first_masks"].astype(bool)
    limbs = cover_tokens(strokes(clip), *first.shape[1:])
    attention = recorder.attention(clip)
    return {
        name: {
            f"{moment}, %": share_right(way, weights, first, limbs) for moment, weights in attention.items()
        }
        for name, way in WAYS.items()
    }


def main() -> None:
    arguments = arguments_of(__doc__, clips=48).parse_args()
    clips = itertools.islice(filter(leaves_no_time_out, drawn_clips(FIRST_SEED)), arguments.clips)
    start = partial(Recorder, arguments.model, arguments.steps)
    show(rows_of(each(clips, measure, start, arguments.processes)), arguments.figures)


if __name__ == "__main__":
    main()
