"""Poses from a video: found, laid over another picture, and made a clip of."""

import cv2
import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("skimage")

from inference_server.cli import main  # noqa: E402
from inference_server.xpose.finder import find_poses  # noqa: E402
from inference_server.xpose.pose_video import box_of, make_request, placed, read_clip  # noqa: E402
from inference_server.xpose.stages import SubjectPrompt, XPoseError  # noqa: E402

from .footage import HEIGHT, WIDTH, encode, lizard  # noqa: E402


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return encode(tmp_path_factory.mktemp("video") / "lizard.mp4", lizard(40)[0])


def poses_of(video, **options):
    clip = read_clip(video, SubjectPrompt(points=((0.4, 62 / HEIGHT),)), **options)
    return clip, find_poses(clip, "medial", "poses")


def test_poses_begin_where_they_are_asked_to_and_fill_whole_steps(video):
    clip, found = poses_of(video, begin=0.5, most_frames=12)
    assert len(clip.frames) == 9 and found.pose.num_frames == 9
    assert np.abs(clip.frames[0].astype(int) - lizard(40)[0][12]).mean() < 8
    with pytest.raises(XPoseError, match="Only 4 frames"):
        poses_of(video, begin=1.5)
    slow = read_clip(video, SubjectPrompt(), fps=12.0, most_frames=9)  # as fast as it was filmed
    assert np.abs(slow.frames[8].astype(int) - lizard(40)[0][16]).mean() < 8


def test_two_corners_place_the_poses_over_another_picture(video):
    clip, found = poses_of(video, most_frames=5)
    picture = np.full((HEIGHT * 2, WIDTH * 2, 3), 128, np.uint8)
    cv2.ellipse(picture, (200, 130), (60, 40), 0, 0, 360, (30, 60, 220), -1)
    place = (0.42, 0.33, 0.83, 0.68)
    request = make_request(clip, found, "a fish", picture, place)
    points = request.pose.frame_points(0)[0][:, :2] / (WIDTH, HEIGHT)
    assert (points > np.array(place[:2]) - 0.02).all() and (points < np.array(place[2:]) + 0.02).all()
    inside = cv2.ellipse(np.zeros((HEIGHT, WIDTH), np.uint8), (100, 65), (30, 20), 0, 0, 360, 1, -1)
    assert (request.subject_mask == inside).mean() > 0.99 and request.part_maps is None
    back = placed(request.pose, place, box_of(found.mask))
    assert np.allclose(back.points, found.pose.points, atol=0.01)


def test_limbs_run_the_same_way_in_every_frame(video):
    pose = poses_of(video, most_frames=17)[1].pose
    last = {}
    for frame in range(17):
        points, lengths = pose.frame_points(frame)
        owners = pose.owners[pose.offsets[frame] :]
        longest = {}  # of a limb's pieces
        for owner, end, length in zip(owners, np.cumsum(lengths), lengths):
            along = points[end - 1, :2] - points[end - length, :2]
            longest[owner] = max(along, longest.get(owner, along), key=np.linalg.norm)
        assert all(along @ last.get(owner, along) > 0 for owner, along in longest.items())
        last |= longest


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--option", "speed=1"], "no option 'speed'"),
        (["--prompt", "nowhere.txt"], "nowhere.txt"),
        (["--output", "."], "is there already"),
    ],
)
def test_what_is_wrong_is_told_before_the_search(video, tmp_path, monkeypatch, capsys, wrong, words):
    monkeypatch.setattr("inference_server.xpose.finder.find_poses", lambda *_: pytest.fail("it searches"))
    command = [
        "generate",
        "--pose-video",
        str(video),
        "--engine",
        "draft",
        "--output",
        str(tmp_path / "clip"),
    ]
    assert main([*command, *wrong]) == 1
    assert words in capsys.readouterr().err


def test_a_video_drives_its_own_first_frame(video, tmp_path, capsys):
    words = ["generate", "--pose-video", str(video), "--engine", "draft", "--frames", "9"]
    assert main([*words, "--click", "0.31", "0.48", "--output", str(tmp_path / "clip")]) == 0
    made = [cv2.imread(str(path))[..., ::-1] for path in sorted((tmp_path / "clip").glob("*.png"))]
    truth, masks = lizard(40)
    assert len(made) == 9
    subject = masks[8] & ~masks[0]
    assert (
        np.abs(made[8].astype(int) - truth[8])[subject].mean()
        < 0.6 * np.abs(truth[0].astype(int) - truth[8])[subject].mean()
    )
    assert main([*words, "--box", "0.8", "0.8", "0.8", "0.9", "--output", str(tmp_path / "none")]) == 1
    assert "fractions" in capsys.readouterr().err and not (tmp_path / "none").exists()
