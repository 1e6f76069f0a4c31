"""Poses of a filmed subject as a job: found, told of, cancelled, kept until they are fetched."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from inference_server.cli import main
from shared.messages import Cancel, Cancelled, Failed, FoundPoses, PoseRequest, Progress, Received, Resume

WIDTH, HEIGHT = 160, 112


def walker(count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Pictures uint8 [H, W, 3] RGB of a red body with two legs that walks over a grey ground, and masks."""
    ground = cv2.resize(
        np.random.default_rng(0).integers(90, 150, (14, 20, 3)).astype(np.uint8), (WIDTH, HEIGHT)
    )
    pictures, masks = [], []
    for number in range(count):
        x, swing, mask = 50 + 2 * number, round(12 * np.sin(number)), np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.line(mask, (x - 24, 40), (x + 24, 40), 1, 15)
        for hip, foot in ((x - 20, x - 20 + swing), (x + 20, x + 20 - swing)):
            cv2.line(mask, (hip, 42), (foot, 90), 1, 6)
        pictures.append(np.where(mask[..., None] > 0, np.uint8([200, 40, 30]), ground))
        masks.append(mask > 0)
    return pictures, masks


def ask(job: str, pictures: list[np.ndarray], suffix: str = ".png", **fields) -> PoseRequest:
    files = [cv2.imencode(suffix, picture[..., ::-1])[1].tobytes() for picture in pictures]
    fields = {"points": np.float32([[50 / WIDTH, 40 / HEIGHT]])} | fields
    lengths = np.array([len(file) for file in files], np.int32)
    return PoseRequest(
        job=job, width=WIDTH, height=HEIGHT, fps=24, lengths=lengths, frames=b"".join(files), **fields
    )


def test_a_click_finds_the_poses_of_a_filmed_subject(server):
    pictures, truth = walker(9)
    with server.client("me") as client:
        assert client.welcome().pose_finder.ready
        client.send(ask("filmed", pictures, ".jpg"))
        found = client.ending("filmed")
    stages = {progress.stage: progress for progress in client.of(Progress)}
    assert {"reading", "subject", "skeleton"} <= set(stages) and stages["skeleton"].step == 9
    assert isinstance(found, FoundPoses) and (found.pose.width, found.pose.height) == (WIDTH, HEIGHT)
    union = (found.mask > 0) | truth[0]
    assert ((found.mask > 0) & truth[0]).sum() > 0.85 * union.sum() and found.masks.shape == (9, 14, 20)
    assert found.pose.num_frames == 9 and "without a neural network" in found.note
    moved = [found.pose.frame_points(frame)[0][:, 0].mean() for frame in range(9)]
    assert moved[8] - moved[0] == pytest.approx(16, abs=4)
    # Its client may come back for it, from wherever, until it has said that it has it.
    with server.client("me") as other:
        other.send(Resume(job="filmed", have=0))
        assert np.array_equal(other.ending("filmed").pose.points, found.pose.points)
        other.send(Received(job="filmed"))
        other.send(Resume(job="filmed", have=0))
        assert other.wait_for(Failed).code == "unknown"


def test_a_single_picture_gives_a_mask_alone(server):
    pictures, truth = walker(1)
    box = np.float32([20 / WIDTH, 25 / HEIGHT, 85 / WIDTH, 96 / HEIGHT])
    with server.client() as client:
        client.send(ask("mask", pictures, box=box, points=np.zeros((0, 2), np.float32)))
        found = client.ending("mask")
        client.send(ask("nothing", [np.full_like(pictures[0], 99)], box=np.float32([0.2, 0.2, 0.4, 0.4])))
        assert "No subject was found" in client.ending("nothing").message
    union = (found.mask > 0) | truth[0]
    assert ((found.mask > 0) & truth[0]).sum() > 0.85 * union.sum()
    assert not found.pose.limbs and found.pose.num_frames == 1


def test_a_search_for_poses_can_be_cancelled_and_what_is_no_picture_is_refused(server):
    pictures, _ = walker(200)
    with server.client() as client:
        client.send(ask("long", pictures, ".jpg"))
        client.wait_for(Progress)
        client.send(Cancel(job="long"))
        assert isinstance(client.ending("long"), Cancelled)
        request = ask("odd", pictures[:3])
        client.send(PoseRequest(**{**vars(request), "width": WIDTH + 1}))
        assert "Frame 1 of the video is no picture of 161 x 112" in client.ending("odd").message


def test_a_command_that_names_a_server_has_it_find_the_poses(server, tmp_path, monkeypatch, capsys):
    pytest.importorskip("av")
    from ..xpose.footage import encode

    pictures, masks = walker(9)
    video = encode(tmp_path / "walker.mp4", np.stack(pictures))
    cv2.imwrite(str(tmp_path / "mask.png"), 255 * masks[0].astype(np.uint8))
    monkeypatch.setattr("inference_server.xpose.finder.find_poses", None)  # not on this side
    words = ["generate", "--server", server.address, "--pose-video", str(video), "--engine", "plain"]
    assert main([*words, "--mask", str(tmp_path / "mask.png"), "--output", str(tmp_path / "clip")]) == 0
    assert "without a neural network" in capsys.readouterr().out
    assert len(list((tmp_path / "clip").glob("*.png"))) == 9
    assert main([*words, "--box", "0", "0", "0.03", "0.03", "--output", str(tmp_path / "none")]) == 1
    assert "No subject was found there" in capsys.readouterr().err
