"""PoseAnything Mini: a whole clip of any size, given up on request, and refused with a reason where it can't
run."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from inference_server.engines import describe_engine, find_engine  # noqa: E402
from inference_server.engines.base import JobCancelled, Picture  # noqa: E402
from inference_server.engines.mini import engine as mini  # noqa: E402
from shared.messages import Progress  # noqa: E402
from tests.server.draft_figures import WALKER, ask, pose_of, shoot, walk  # noqa: E402

FRAMES = 20


@pytest.fixture(scope="module")
def engine():
    made = find_engine("mini")()
    for _ in made.load():
        pass
    return made


@pytest.fixture(scope="module")
def request_():
    poses, pictures, _ = walk(FRAMES, travel=40)
    return ask(pictures[0], pose_of(WALKER, poses))


def test_it_makes_every_frame_from_the_draft(engine, request_):
    drafts, _ = shoot(request_)
    events = list(engine.generate(request_, lambda: False))
    made = [event for event in events if isinstance(event, Picture)]
    assert [picture.index for picture in made] == list(range(FRAMES))  # no multiple of what the model makes
    images = np.stack([picture.image for picture in made]).astype(int)
    assert images.shape == (FRAMES, 240, 320, 3)
    np.testing.assert_array_equal(images[0], drafts[0])
    changes = np.abs(images[1:] - np.stack(drafts)[1:]).mean((1, 2, 3))
    assert (changes > 0.05).all() and (changes < 12).all()


def test_a_clip_that_comes_back_to_its_first_pose_shows_the_first_frame_again(engine):
    poses, pictures, _ = walk(FRAMES)
    request = ask(pictures[0], pose_of(WALKER, [*poses[:3], poses[0]]))
    made = [event.image for event in engine.generate(request, lambda: False) if isinstance(event, Picture)]
    assert (made[1] != pictures[0]).any() and (made[3] == pictures[0]).all()


def test_frames_come_while_others_are_still_to_be_drawn(engine, request_):
    events = list(engine.generate(request_, lambda: False))
    shown = next(n for n, event in enumerate(events) if isinstance(event, Picture) and event.index == 1)
    assert any(isinstance(event, Progress) and event.stage == "drawing" for event in events[shown:])


def test_the_model_is_shown_poses_between_those_that_are_given(engine, request_, monkeypatch):
    """It was trained with a pose in every frame."""
    shown, make = [], engine.make
    monkeypatch.setattr(
        engine, "make", lambda asked, cancelled: shown.append(asked) or make(asked, cancelled)
    )
    list(engine.generate(replace(request_, pose_frames=(0, FRAMES - 1)), lambda: False))
    assert shown and all(asked.conditions.pose_images.any((1, 2)).all() for asked in shown)


def test_it_stops_when_asked(engine, request_):
    asked, events = [], engine.generate(request_, lambda: len(asked) > 0)
    next(events)
    asked.append(True)
    with pytest.raises(JobCancelled):
        next(events)


def test_it_says_what_it_needs(monkeypatch):
    described = describe_engine("mini")
    assert described.ready and described.frame_step == 1 and not described.uses_prompt
    monkeypatch.setattr("inference_server.engines.poseanything.engine.find_spec", lambda name: None)
    described = describe_engine("mini")
    assert not described.ready and "PoseAnything Mini (small, no card) needs torch" in described.reason


def test_weights_that_are_gone_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(mini, "WEIGHTS", tmp_path)
    described = describe_engine("mini")
    assert not described.ready and "missing; they come with the project" in described.reason
