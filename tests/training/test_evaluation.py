"""Measures tell what they are for, and the command writes them down."""

import dataclasses
import json

import numpy as np
import pytest

pytest.importorskip("skimage")
pytest.importorskip("webdataset")

from inference_server.cli import main  # noqa: E402
from inference_server.evaluation.metrics import (  # noqa: E402
    background_flow,
    part_colour_drift,
    part_pck,
    pixel_measures,
    pose_adherence,
)
from inference_server.evaluation.run import summarise  # noqa: E402
from inference_server.evaluation.statistics import compare, mean_of  # noqa: E402
from inference_server.synthesis.clips import ClipSettings, make_clip  # noqa: E402
from inference_server.synthesis.pool import draw_draft  # noqa: E402
from inference_server.training.dataset import DatasetWriter, write_video  # noqa: E402

SETTINGS = ClipSettings(128, 96, 5)


@pytest.fixture(scope="module")
def clips():
    """Clips with a creature that moves far enough to be told from one that stands still."""
    clips = [make_clip(seed, SETTINGS) for seed in range(30)]
    return [clip for clip in clips if np.mean((clip.labels[0] > 0) != (clip.labels[-1] > 0)) > 0.04][:8]


def still(clip):
    return np.repeat(clip.frames[:1], len(clip.frames), 0)


def test_pixel_measures_are_the_textbooks():
    truth = np.full((3, 16, 16, 3), 100, np.uint8)
    measures = pixel_measures(truth + np.uint8(10), truth, np.ones((3, 16, 16), np.uint8))
    assert measures["psnr"] == measures["psnr_subject"] == pytest.approx(20 * np.log10(255 / 10), abs=1e-3)
    assert measures["l1"] == pytest.approx(10 / 255, abs=1e-5)
    assert pixel_measures(truth, truth)["ssim"] == pytest.approx(1)


def test_parts_in_their_place_are_told_from_parts_elsewhere(clips):
    truth = [part_pck(clip.frames, clip.frames, clip.labels) for clip in clips]
    drafts = [part_pck(draw_draft(clip), clip.frames, clip.labels) for clip in clips]
    stills = [part_pck(still(clip), clip.frames, clip.labels) for clip in clips]
    assert np.nanmean(truth) > 0.98
    assert np.nanmean(drafts) > np.nanmean(stills) + 0.2


def test_a_pose_that_is_followed_is_told_from_one_that_is_not(clips):
    true = [pose_adherence(clip.frames, clip.request, clip.labels) for clip in clips]
    stills = [pose_adherence(still(clip), clip.request, clip.labels) for clip in clips]
    assert np.nanmean(true) > np.nanmean(stills) + 0.15


def test_colours_that_drift_are_seen(clips):
    clip = clips[0]
    reddened = clip.frames.copy()
    reddened[1:, ..., 0] = reddened[1:, ..., 0].clip(None, 195) + 60
    assert part_colour_drift(reddened, clip.labels) > part_colour_drift(clip.frames, clip.labels) + 5


def test_a_camera_that_is_followed_is_told_from_one_that_is_not():
    clips = [make_clip(seed, SETTINGS) for seed in range(40)]
    moving = [clip for clip in clips if clip.request.camera_motion is not None][:8]
    true = [background_flow(clip.frames, clip.request, clip.labels) for clip in moving]
    stills = [background_flow(still(clip), clip.request, clip.labels) for clip in moving]
    assert np.nanmedian([each["camera_cosine"] for each in true]) > 0.9
    for name in ("background_flow_error",):
        assert np.nanmean([each[name] for each in true]) < 0.6 * np.nanmean([each[name] for each in stills])


def test_intervals_hold_what_they_promise():
    random = np.random.default_rng(0)
    held = [abs(m["mean"]) <= m["interval"] for m in (mean_of(random.normal(size=40)) for _ in range(400))]
    assert 0.9 < np.mean(held) < 0.98
    assert compare(np.array([1.0, 2, 3]), np.array([0.0, 3, 1]))["wins"] == pytest.approx(2 / 3, abs=1e-3)


def test_less_is_better_where_it_is():
    rows = [{"a": {"l1": 0.1, "psnr": 20.0}, "b": {"l1": 0.2, "psnr": 18.0}} for _ in range(3)]
    against = summarise(rows)["against"]["a over b"]
    assert against["l1"]["wins"] == against["psnr"]["wins"] == 1


def test_engines_and_folders_are_measured_side_by_side(tmp_path, capsys):
    examples = [make_clip(seed, SETTINGS) for seed in range(3)]
    with DatasetWriter(tmp_path / "set", "test") as writer:
        for example in examples:
            writer.add(dataclasses.replace(example))
    (tmp_path / "perfect").mkdir()
    for example in examples:
        write_video(tmp_path / "perfect" / f"{example.request.job}.mkv", example.frames, 24)
    words = ["evaluate", "--data", str(tmp_path / "set"), "--split", "all", "--engine", "draft"]
    words += ["--clips", str(tmp_path / "perfect"), "--output", str(tmp_path / "out")]
    assert main(words) == 0
    assert "fvd is absent" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "measures.json").read_text())
    psnr = {name: values["psnr"]["mean"] for name, values in summary["measures"].items()}
    assert psnr["perfect"] > 100 > psnr["draft"] > psnr["first frame repeated"]
    assert summary["against"]["draft over perfect"]["psnr"]["wins"] == 0
    assert "synthetic-0.png" in (tmp_path / "out" / "index.html").read_text()
    assert (tmp_path / "out" / "synthetic-0.png").stat().st_size > 5000


def test_a_clip_that_is_missing_is_named(tmp_path, capsys):
    with DatasetWriter(tmp_path / "set", "test") as writer:
        writer.add(make_clip(0, SETTINGS))
    (tmp_path / "empty").mkdir()
    words = [
        "evaluate",
        "--data",
        str(tmp_path / "set"),
        "--split",
        "all",
        "--clips",
        str(tmp_path / "empty"),
    ]
    assert main([*words, "--output", str(tmp_path / "out")]) == 1
    assert "holds nothing named synthetic-0" in capsys.readouterr().err
