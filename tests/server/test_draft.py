"""The draft engine through the server that users run: the whole way of a clip but for Blender."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from shared.messages import Done, Failed, Frame
from shared.pose import PoseSequence

from .client import ServerProcess, png, request

WIDTH, HEIGHT = 256, 192


@pytest.fixture(scope="module")
def server():
    with ServerProcess() as process:
        yield process


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture of a red leg before a ramp of blue, its mask, and its labels: thigh 1, shin 2."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 2] = np.linspace(60, 200, WIDTH).astype(np.uint8)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    middle, third = HEIGHT // 2, HEIGHT // 3
    labels[middle - third : middle, WIDTH // 2 - 8 : WIDTH // 2 + 8] = 1
    labels[middle : middle + third, WIDTH // 2 - 8 : WIDTH // 2 + 8] = 2
    image[labels > 0] = (220, 30, 30)
    return image, (labels > 0).astype(np.uint8), labels


def redness(frame: Frame) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(frame.data, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (HEIGHT, WIDTH, 3)
    return image[..., 2].astype(int) - image[..., 0]


@pytest.mark.parametrize("labelled", [True, False])
def test_the_drawing_follows_the_pose(server, labelled):
    image, mask, labels = scene()
    truth = {"subject_mask": mask} | ({"first_labels": labels} if labelled else {})
    with server.client() as client:
        client.send(request("leg", "draft", 25, WIDTH, HEIGHT, first_frame=png(image), **truth))
        done = client.ending("leg")
        assert isinstance(done, Done), done
        frames = client.of(Frame)
    assert [frame.index for frame in frames] == list(range(25))
    foot = slice(HEIGHT // 2 + HEIGHT // 4, HEIGHT // 2 + HEIGHT // 3)
    red = [np.maximum(redness(frame)[foot].sum(axis=0), 0) for frame in frames]
    columns = [np.average(np.arange(WIDTH), weights=weights + 1e-9) for weights in red]
    assert abs(columns[0] - WIDTH / 2) < 6, "the leg hangs straight down at first"
    assert columns[6] > WIDTH / 2 + 8 and columns[18] < WIDTH / 2 - 8, "then swings right and left"
    thigh = redness(frames[6])[HEIGHT // 4 : HEIGHT // 2, WIDTH // 2 - 4 : WIDTH // 2 + 4]
    assert (thigh > 50).mean() > 0.8, "the thigh stays"


def test_it_is_labelled_as_what_it_is(server):
    with server.client() as client:
        (draft,) = [engine for engine in client.welcome().engines if engine.name == "draft"]
    assert draft.ready and not draft.neural and not draft.uses_prompt
    assert "draft" in draft.label.lower()


def test_a_pose_that_is_never_seen_is_no_fault(server):
    """A rig behind the camera is odd but valid."""
    unseen = PoseSequence.from_frames(WIDTH, HEIGHT, [], [], [[]] * 5)
    with server.client() as client:
        client.send(request("unseen", "draft", 5, WIDTH, HEIGHT, pose=unseen))
        ending = client.ending("unseen")
    assert isinstance(ending, Done) or (isinstance(ending, Failed) and ending.code == "invalid"), ending
