"""Two processes that share a clip, over gloo."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from inference_server.poseanything.checkpoints import find_weights  # noqa: E402
from inference_server.poseanything.conditioning.conditions import InputError  # noqa: E402
from inference_server.poseanything.runtime.runner import ClipRunner  # noqa: E402
from inference_server.poseanything.sampling.pipeline import DenoisingStep, Frames  # noqa: E402
from inference_server.poseanything.sampling.request import SamplingRequest  # noqa: E402
from shared.engines import Guidance  # noqa: E402
from tests.model.tiny_pipeline import linear_vae, tiny_clip  # noqa: E402
from tests.model.tiny_transformer import tiny_transformer  # noqa: E402


class Cancelled(Exception):
    pass


def asked(seed: int = 7, **options) -> SamplingRequest:
    maps = np.zeros((9, 8, 12), np.uint8)
    maps[:, 2:6, 3:6], maps[:, 2:6, 6:9] = 1, 2
    guidance = Guidance("classifier_free", {"guidance_scale": 2.0}, stop=0.5)
    return SamplingRequest.of(tiny_clip(part_maps=maps), guidance, seed, 4, options)


def frames(runner: ClipRunner, request: SamplingRequest, check=None) -> np.ndarray:
    events = [event for event in runner.make(request, check) if isinstance(event, Frames)]
    return np.concatenate([event.images for event in events], axis=1)[0]


@pytest.fixture
def runner(tmp_path):
    transformer = tiny_transformer(in_channels=96, out_channels=48, text_conditioning=False, sample_frames=9)
    transformer.save_pretrained(tmp_path / "small" / "transformer")
    linear_vae().save_pretrained(tmp_path / "small" / "vae")
    runner = ClipRunner(find_weights(tmp_path), "cpu")
    yield runner
    if runner._team is not None:
        runner._team.close()


def test_two_processes_make_the_clip_that_one_makes(runner):
    alone = frames(runner, asked())
    lengths = []
    attention = type(runner.pipeline.transformer.blocks[0].attn1)
    forward = attention.forward

    def noted(self, hidden_states, *inputs, **options):
        lengths.append(hidden_states.shape[1])
        return forward(self, hidden_states, *inputs, **options)

    with mock.patch.object(attention, "forward", noted):
        together = frames(runner, asked(cards=2))
    assert set(lengths) == {9}  # of 18 tokens
    assert runner._team.size == 2 and np.abs(together.astype(int) - alone).max() <= 1
    assert not np.array_equal(frames(runner, asked(seed=8, cards=2)), together)

    # A clip that is cancelled, or left, ends in both; the next is as if it had not been.
    looks = []

    def check():
        looks.append(1)
        if len(looks) == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        frames(runner, asked(seed=9, cards=2), check)
    events = runner.make(asked(seed=9, cards=2))
    next(event for event in events if isinstance(event, DenoisingStep))
    events.close()
    events = runner.make(asked(seed=9, cards=2))
    next(events)
    events.close()
    with pytest.raises(InputError, match="choose one of none, taylorseer"):
        frames(runner, asked(cards=2, cache="first_block"))
    assert np.array_equal(frames(runner, asked(cards=2)), together)

    assert np.array_equal(frames(runner, asked()), alone) and runner._team is None
