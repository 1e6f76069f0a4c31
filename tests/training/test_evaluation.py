"""Measures tell what they are for, and the command writes them down."""

import dataclasses
import hashlib
import json

import cv2
import numpy as np
import pytest

pytest.importorskip("skimage")
pytest.importorskip("webdataset")

from inference_server.cli import main  # noqa: E402
from inference_server.datasets.dataset import DatasetWriter, write_video  # noqa: E402
from inference_server.datasets.release import read_release_layout, write_release_layout  # noqa: E402
from inference_server.evaluation import networks  # noqa: E402
from inference_server.evaluation.benchmarks import read_benchmark  # noqa: E402
from inference_server.evaluation.metrics import (  # noqa: E402
    background_flow,
    camera_share,
    detail,
    part_pck,
    pixel_measures,
    pose_adherence,
)
from inference_server.evaluation.networks import VideoDistance, frechet_distance  # noqa: E402
from inference_server.evaluation.parts import Colour, mean_drift, part_drifts  # noqa: E402
from inference_server.evaluation.run import OF_PART, measure, summarise  # noqa: E402
from inference_server.evaluation.skeletons import chamfer, skeleton_measures  # noqa: E402
from inference_server.evaluation.statistics import compare, mean_of  # noqa: E402
from inference_server.evaluation.subjects import camera_of, moved, without_subject  # noqa: E402
from inference_server.poseanything.conditioning.masks import size_of  # noqa: E402
from inference_server.synthesis.clips import ClipSettings, make_clip  # noqa: E402
from inference_server.synthesis.pool import draw_draft  # noqa: E402
from shared.pose import PoseSequence  # noqa: E402

from ..model.hub_server import Hub, weights  # noqa: E402

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


def test_blur_and_noise_are_told_from_detail(clips):
    clip, random = clips[0], np.random.default_rng(0)
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in clip.frames])
    noisy = (clip.frames + random.normal(0, 12, clip.frames.shape)).clip(0, 255).astype(np.uint8)
    moved = np.roll(clip.frames, 2, axis=2)
    shares = [detail(frames, clip.frames) for frames in (clip.frames, blurred, noisy, moved)]
    assert shares[0] == 1 and shares[1] < 0.5 and shares[2] > 1.5
    assert shares[3] == pytest.approx(1, abs=0.1), "where it lies is nothing to it"
    assert detail(blurred, clip.frames, clip.labels) < 0.7


def test_parts_in_their_place_are_told_from_parts_elsewhere(clips):
    truth, drafts, stills = (
        [
            np.mean(np.concatenate([*part_pck(made(clip), clip.frames, clip.labels).values()]))
            for clip in clips
        ]
        for made in (lambda clip: clip.frames, draw_draft, still)
    )
    assert np.mean(truth) > 0.98
    assert np.mean(drafts) > np.mean(stills) + 0.2


def test_parts_that_are_not_in_their_place_are_told_by_name(clips):
    """In the first frame repeated those that went far are missed, and those that stayed are not."""
    shares = {"stayed": [], "went far": []}
    for clip in clips:
        measured, size = measure(still(clip), clip), size_of(clip.labels[0] > 0)
        places = [
            {part: np.argwhere(labels == part).mean(0) for part in np.unique(labels)}
            for labels in clip.labels
        ]
        for part in set.intersection(*map(set, places)) - {0}:
            way = np.mean([np.linalg.norm(later[part] - places[0][part]) for later in places[1:]]) / size
            name = OF_PART + clip.request.pose.limbs[part - 1].name
            if name in measured and not 0.05 < way < 0.1:
                shares["stayed" if way <= 0.05 else "went far"].append(measured[name])
    print({name: (len(of), np.mean(of)) for name, of in shares.items()})
    assert np.mean(shares["stayed"]) > 0.7 and np.mean(shares["went far"]) < 0.5


def aside(clip):
    """The subject alone 3 % of its size to the right and down, over what lies behind it."""
    background = without_subject(clip.frames[0], clip.labels[0])
    camera, frames = camera_of(clip.request.camera_motion, len(clip.frames)), clip.frames.copy()
    for index in range(1, len(frames)):
        inside = clip.labels[index] > 0
        step = max(round(0.03 * size_of(inside) / 2**0.5), 1)
        there = np.roll(inside, (step, step), (0, 1))
        frames[index] = moved(background, camera[index])
        frames[index][there] = np.roll(clip.frames[index], (step, step), (0, 1))[there]
    return frames


def test_the_skeleton_of_a_result_is_held_against_the_one_asked(clips):
    def measured(made):
        found = [skeleton_measures(made(n), c.frames, c.request, c.labels) for n, c in enumerate(clips)]
        return {name: np.array([of[name] for of in found]) for name in found[0]}

    true = measured(lambda n: clips[n].frames)
    wrong = {
        "another clip": measured(lambda n: np.concatenate([clips[n].frames[:1], clips[n - 1].frames[1:]])),
        "first frame": measured(lambda n: still(clips[n])),
        "3 % aside": measured(lambda n: aside(clips[n])),
    }
    print(
        {name: {m: v.mean().round(3) for m, v in of.items()} for name, of in (wrong | {"true": true}).items()}
    )
    assert true["skeleton_chamfer"].mean() < 1.6 and true["skeleton_chamfer"].max() < 2.5
    assert true["skeleton_f"].mean() > 0.75
    for name, more, less in (("another clip", 6, 0.4), ("first frame", 3, 0.2), ("3 % aside", 0.5, 0.1)):
        assert (wrong[name]["skeleton_chamfer"] - true["skeleton_chamfer"]).mean() > more, name
        assert (true["skeleton_f"] - wrong[name]["skeleton_f"]).mean() > less, name
        assert (wrong[name]["skeleton_chamfer"] > true["skeleton_chamfer"]).all(), name


def test_what_only_one_of_two_skeletons_has_is_told_by_precision_or_recall(clips):
    clip = clips[0]
    pose = clip.request.pose
    lines = [[line for line in pose.frame(index)][:1] for index in range(pose.num_frames)]
    less = PoseSequence.from_frames(pose.width, pose.height, pose.parts, pose.limbs, lines)
    asked_less = dataclasses.replace(clip.request, pose=less)
    of = [
        skeleton_measures(clip.frames, clip.frames, asked, clip.labels)
        for asked in (clip.request, asked_less)
    ]
    assert of[1]["skeleton_precision"] < of[0]["skeleton_precision"] - 0.2, (
        "it has limbs that nobody asked for"
    )
    assert of[1]["skeleton_recall"] > of[1]["skeleton_precision"] + 0.2
    gone = clip.frames.copy()
    gone[1:] = without_subject(clip.frames[0], clip.labels[0])
    nothing = skeleton_measures(gone, clip.frames, clip.request, clip.labels)
    assert nothing["skeleton_recall"] < 0.3 and nothing["skeleton_chamfer"] > 10


def test_two_skeletons_distance_is_that_of_their_points():
    line = np.stack([np.arange(100.0), np.zeros(100)], 1)
    assert chamfer(line, line + (0, 3), 100) == pytest.approx(0.03)
    # Half of it is missing, a quarter of it far from what there is: 0 one way, 12.75 the other.
    assert chamfer(line[:50], line, 100) == pytest.approx((0 + 12.75) / 2 / 100)
    assert chamfer(line[:0], line, 100) == 0.5


def test_a_pose_that_is_followed_is_told_from_one_that_is_not(clips):
    true = [pose_adherence(clip.frames, clip.request, clip.labels) for clip in clips]
    stills = [pose_adherence(still(clip), clip.request, clip.labels) for clip in clips]
    assert np.nanmean(true) > np.nanmean(stills) + 0.15


def test_colours_that_drift_are_seen(clips):
    clip = clips[0]
    reddened = clip.frames.copy()
    reddened[1:, ..., 0] = reddened[1:, ..., 0].clip(None, 195) + 60
    beyond = part_drifts(reddened, clip.labels, Colour()) - part_drifts(clip.frames, clip.labels, Colour())
    assert mean_drift(beyond) > 5


def test_a_camera_that_is_followed_is_told_from_one_that_is_not():
    clips = [make_clip(seed, SETTINGS) for seed in range(40)]
    moving = [clip for clip in clips if clip.request.camera_motion is not None][:8]
    true = [background_flow(clip.frames, clip.request, clip.labels) for clip in moving]
    stills = [background_flow(still(clip), clip.request, clip.labels) for clip in moving]
    assert np.nanmedian([each["camera_cosine"] for each in true]) > 0.9
    errors = [np.nanmean([each["background_flow_error"] for each in of]) for of in (true, stills)]
    assert errors[0] < 0.6 * errors[1]
    ways = [camera_share(clip.frames, clip.request, clip.labels) for clip in moving]
    assert np.nanmedian(ways) == pytest.approx(1, abs=0.06) and np.nanmin(ways) > 0.4
    assert {camera_share(still(clip), clip.request, clip.labels) for clip in moving} == {0.0}


def test_how_far_the_camera_is_followed_is_seen_across_a_jump():
    clip = next(clip for clip in map(make_clip, range(40)) if clip.request.camera_motion is not None)
    last = np.array([0, *[-1] * (len(clip.frames) - 1)])
    jumping = dataclasses.replace(clip.request, camera_motion=clip.request.camera_motion[last])
    assert camera_share(clip.frames[last], jumping, clip.labels[last]) == pytest.approx(1, abs=0.11)


def test_intervals_hold_what_they_promise():
    random = np.random.default_rng(0)
    held = [abs(m["mean"]) <= m["interval"] for m in (mean_of(random.normal(size=40)) for _ in range(400))]
    assert 0.9 < np.mean(held) < 0.98
    assert compare(np.array([1.0, 2, 3]), np.array([0.0, 3, 1]))["wins"] == pytest.approx(2 / 3, abs=1e-3)


def test_less_is_better_where_it_is_and_as_much_as_the_truth_has_is_best():
    better = {"l1": 0.1, "psnr": 20.0, "detail": 1.1}
    worse = {"l1": 0.2, "psnr": 18.0, "detail": 0.7}
    against = summarise([{"a": better, "b": worse} for _ in range(3)])["against"]["a over b"]
    assert {name: figure["wins"] for name, figure in against.items()} == dict.fromkeys(better, 1)


def test_the_networks_of_the_measures_come_checked_into_torchs_cache(tmp_path, monkeypatch, capsys):
    root, cache = tmp_path / "hub", tmp_path / "torch" / "hub" / "checkpoints"
    (root / networks.I3D.repository / "auxiliary").mkdir(parents=True)
    (root / networks.I3D.repository / networks.I3D.required[0]).write_bytes(b"i" * 30_000)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert main(["weights", "evaluation", "--list"]) == 0
    assert "Absent: fvd needs the I3D network's weights" in capsys.readouterr().out
    cache.mkdir(parents=True)
    there = cache / "alexnet-owt-7be5be79.pth"
    there.touch()
    with Hub(root).running() as hub:
        done = weights(hub, "evaluation", TORCH_HOME=str(tmp_path / "torch"))
    assert done.returncode == 0 and "Apache-2.0" in done.stdout, done.stderr
    assert "fvd" not in networks.absent_measures()

    there.unlink()
    for content, status in ((b"cut off", 1), (b"alexnet", 0)):
        name = f"alexnet-owt-{hashlib.sha256(b'alexnet').hexdigest()[:8]}.pth"
        (tmp_path / name).write_bytes(content)
        monkeypatch.setattr(networks, "ALEXNET", (tmp_path / name).as_uri())
        assert main(["weights", "evaluation"]) == status
        assert (cache / name).exists() == (status == 0)
    assert "can't be fetched (invalid hash value" in capsys.readouterr().err


def test_engines_and_folders_are_measured_side_by_side(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
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
    printed = capsys.readouterr().out
    assert "fvd is absent" in printed and "part_feature_drift is absent" in printed
    assert "| draft | part_texture_drift |" in printed and "PCK of single parts" in printed
    summary = json.loads((tmp_path / "out" / "measures.json").read_text())
    psnr = {name: values["psnr"]["mean"] for name, values in summary["measures"].items()}
    assert psnr["perfect"] > 100 > psnr["draft"] > psnr["first frame repeated"]
    limbs = {limb.name for example in examples for limb in example.request.pose.limbs}
    parts = {name for name in summary["measures"]["perfect"] if name.startswith(OF_PART)}
    assert len(parts) > 3 and parts <= {OF_PART + name for name in limbs}
    assert summary["measures"]["perfect"][min(parts)]["mean"] == 1
    assert summary["against"]["draft over perfect"]["psnr"]["wins"] == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "synthetic-0.png" in page and "| draft | part_texture_drift |" in page
    assert (tmp_path / "out" / "synthetic-0.png").stat().st_size > 5000


def test_pictures_of_a_clip_are_read_and_one_clip_has_no_interval(tmp_path, capsys):
    clip, made = make_clip(0, SETTINGS), tmp_path / "made" / "synthetic-0"
    with DatasetWriter(tmp_path / "set", "test") as writer:
        writer.add(clip)
    made.mkdir(parents=True)
    words = ["evaluate", "--data", str(tmp_path / "set"), "--split", "all", "--clips", str(made.parent)]
    words += ["--output", str(tmp_path / "out")]
    assert main(words) == 1
    assert "synthetic-0 has no pictures" in capsys.readouterr().err
    for index, frame in enumerate(clip.frames):
        cv2.imwrite(str(made / f"{index:04d}.webp"), frame[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])
    assert main(words) == 0
    assert "± inf" not in capsys.readouterr().out

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    text = (tmp_path / "out" / "measures.json").read_text()
    psnr = json.loads(text, parse_constant=refuse)["measures"]["made"]["psnr"]
    assert psnr["mean"] > 100 and psnr["interval"] is None
    (made / "0002.webp").write_bytes(b"no picture")
    assert main(words) == 1
    assert "0002.webp can't be read" in capsys.readouterr().err


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
    assert main([*words[:5], "--output", str(tmp_path / "nothing")]) == 2
    assert "name an engine by --engine, or clips by --clips" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


def test_a_benchmark_is_read_in_both_layouts_and_the_papers_rows_stand_beside_ours(tmp_path, capsys):
    examples = [make_clip(seed, SETTINGS) for seed in range(2)]
    write_release_layout(iter(examples), tmp_path / "xpose")
    for number, example in enumerate(read_release_layout(tmp_path / "xpose")):
        for name, pictures in (("images", example.frames[..., ::-1]), ("skeleton", example.poses)):
            folder = tmp_path / "tiktok" / f"{number:05d}" / name
            folder.mkdir(parents=True)
            for index, picture in enumerate(pictures):
                cv2.imwrite(str(folder / f"{index:04d}.png"), picture)
    one, other = (list(read_benchmark(name, tmp_path / name)) for name in ("xpose", "tiktok"))
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.frames, b.frames) and np.array_equal(a.poses, b.poses)

    (tmp_path / "made").mkdir()
    for example in one:
        write_video(tmp_path / "made" / f"{example.name}.mkv", example.frames[:-2], 24)  # as long as it got
    words = ["evaluate", "--benchmark", "xpose", str(tmp_path / "xpose"), "--clips", str(tmp_path / "made")]
    assert main([*words, "--engine", "draft", "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "| |psnr|ssim|l1|lpips|fvd|" in printed
    assert "| PoseAnything (paper) | 30.29 | 0.7114 |" in printed
    for name in ("table.md", "index.html"):
        assert "| PoseAnything (paper) | 30.29 |" in (tmp_path / "out" / name).read_text()
    summary = json.loads((tmp_path / "out" / "measures.json").read_text())
    psnr = {name: values["psnr"]["mean"] for name, values in summary["measures"].items()}
    assert psnr["made"] > 50 > psnr["draft"] > psnr["first frame repeated"]

    (tmp_path / "tiktok" / "00000" / "skeleton" / "0000.png").unlink()
    words[words.index("xpose")], words[words.index(str(tmp_path / "xpose"))] = (
        "tiktok",
        str(tmp_path / "tiktok"),
    )
    assert main([*words, "--output", str(tmp_path / "out")]) == 1
    assert "draw one for each" in capsys.readouterr().err


def test_the_distance_of_videos_is_that_of_their_features_distributions():
    random = np.random.default_rng(0)
    one, other = random.normal(0, 1, (4000, 3)), random.normal((2, 0, 0), (1, 1, 3), (4000, 3))
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)
    # Of independent features: the sum of their means' and deviations' differences, squared.
    assert frechet_distance(one, other) == pytest.approx(2**2 + (3 - 1) ** 2, rel=0.05)

    pytest.importorskip("torch")
    shapes = []

    def network(video, rescale, resize, return_features):
        shapes.append(tuple(video.shape))
        return video.mean((3, 4)).flatten(1)[:, :6]

    distance = VideoDistance(network)
    for shade in (10, 60, 200):
        clip = np.full((5, 20, 30, 3), shade, np.uint8)
        distance.add("truth", clip)
        distance.add("same", clip)
        distance.add("brighter", clip + 40)
    assert set(shapes) == {(1, 3, 17, 224, 224)}
    assert distance.between("same", "truth") == pytest.approx(0, abs=1e-6)
    assert distance.between("brighter", "truth") == pytest.approx(6 * (40 / 127.5) ** 2, rel=1e-3)
