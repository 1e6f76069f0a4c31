"""Runs over folders of videos: nothing stops them, and whoever kills them changes nothing."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("av")
pytest.importorskip("webdataset")

from inference_server.cli import main  # noqa: E402
from inference_server.datasets import dataset as dataset_module  # noqa: E402
from inference_server.datasets.dataset import read_examples, read_index, verify  # noqa: E402
from inference_server.datasets.release import read_release_layout  # noqa: E402
from inference_server.xpose import report, store  # noqa: E402

from .footage import encode, lizard  # noqa: E402

PLUG_IN = "tests.xpose.plug_in"
ROOT = Path(__file__).resolve().parents[2]


def words(videos, output, *more):
    return ["xpose", "run", str(videos), "--output", str(output), "--frames", "9", "--least-frames", "9",
            "--subject", f"{PLUG_IN}:Mortal", "--processes", "2", *more]  # fmt: skip


def table(dataset):
    with open(dataset / "report.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def everything(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    (folder / "more").mkdir()
    encode(folder / "a lizard 🦎.mp4", lizard(30)[0])
    encode(folder / "more" / "deadly.mp4", lizard(9, 2)[0])
    encode(folder / "more" / "faulty.mp4", lizard(9, 3)[0])
    encode(folder / "more" / "lizard.mkv", lizard(12, 4)[0])
    encode(folder / "z bird.mp4", lizard(9, 5)[0])
    (folder / "damaged.mp4").write_bytes(b"no video at all")
    return folder


@pytest.fixture(scope="module")
def dataset(videos, tmp_path_factory):
    output = tmp_path_factory.mktemp("sets") / "whole"
    forget, examples = store.WorkFolder.forget_example, output.parent / "examples"
    examples.mkdir()

    def keep_a_copy(work, span):
        shutil.copy(work.dataset / "work" / "examples" / store.clip_id(span), examples)
        forget(work, span)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store.WorkFolder, "forget_example", keep_a_copy)
        assert main(words(videos, output, "--filter", f"{PLUG_IN}:Words", "--layout", "release")) == 0
    return output


def test_one_bad_video_never_stops_the_rest(dataset):
    said = {(row["clip"] or row["video"]): row for row in table(dataset)}
    kept = [name for name, row in said.items() if row["kept"] == "True"]
    assert kept == [f"a lizard 🦎.mp4#{number:04d}" for number in (1, 2, 3)] + ["more/lizard.mkv#0001"]
    assert "can't be read" in said["damaged.mp4"]["reason"]
    assert "died" in said["more/deadly.mp4#0001"]["reason"]
    assert "nothing to divide by" in said["more/faulty.mp4#0001"]["reason"]
    assert (said["z bird.mp4#0001"]["stage"], said["z bird.mp4#0001"]["reason"]) == (
        "filter",
        "A bird is seen.",
    )
    assert all(row["reason"].count("\n") == 0 for row in said.values())


def test_what_is_written_can_be_trained_on(dataset):
    verify(dataset)
    examples = list(read_examples(dataset))
    assert [len(example.frames) for example in examples] == [9] * 4
    request = examples[0].request
    assert request.prompt == "a lizard walks" and request.pose.limbs and request.first_labels.any()
    assert request.part_maps.shape == (9, 16, 20) and request.subject_mask.any()
    assert {example.subject for example in examples} == {"a lizard 🦎.mp4", "more/lizard.mkv"}
    released = list(read_release_layout(dataset / "release"))
    assert (
        len(released) == 4 and released[0].prompt == "a lizard walks" and released[0].poses.any((1, 2)).all()
    )
    assert not list(dataset.rglob("*.part")) and not list((dataset / "work" / "examples").iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills copies of this process")
def test_killed_while_it_packs_it_ends_the_same(dataset, videos, tmp_path):
    filtered = ("--filter", f"{PLUG_IN}:Words")
    expected = {name: data for name, data in everything(dataset).items() if not name.startswith("release/")}
    for point in range(20):
        torn = tmp_path / str(point) / "whole"
        for folder in ("work", "sheets"):  # all clips are done, and none is packed
            shutil.copytree(dataset / folder, torn / folder)
        shutil.copytree(dataset.parent / "examples", torn / "work" / "examples", dirs_exist_ok=True)
        if not (child := os.fork()):
            _exit_at(point)
            main(words(videos, torn, *filtered))
            os._exit(0)
        survived = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert main(words(videos, torn, *filtered)) == 0
        found = everything(torn)
        assert found.keys() == expected.keys()
        assert [name for name in found if found[name] != expected[name]] == []
        if survived:
            break
    assert survived and point == 6  # four examples, their shard and its index


def _exit_at(point):
    """End this process, as a kill does, before what is the nth thing that packing writes."""
    left = iter(range(point))

    def counted(function):
        def count(*words):
            if next(left, None) is None:
                os._exit(9)
            return function(*words)

        return count

    dataset_module.os.replace = counted(os.replace)
    dataset_module.DatasetWriter.append = counted(dataset_module.DatasetWriter.append)
    report.write_report = lambda folder: ""


def test_what_was_rejected_on_the_page_is_left_out_until_it_is_accepted(dataset, tmp_path, capsys):
    page = (dataset / "index.html").read_text(encoding="utf-8")
    assert "walking" in page and "A bird is seen." in page
    clips = json.loads((dataset / "clips.js").read_text(encoding="utf-8")[len("const CLIPS = ") : -2])
    assert [clip[2] for clip in clips] == sorted((clip[2] for clip in clips), reverse=True)
    name = next(clip[1] for clip in clips if clip[0] == "a lizard 🦎.mp4#0002")
    assert (dataset / "sheets" / f"{name}.jpg").exists()
    decisions = tmp_path / "decisions.json"
    jobs = [example.request.job for example in read_examples(dataset)]
    for accepted, left in ((False, [jobs[0], *jobs[2:]]), (True, jobs)):
        decisions.write_text(json.dumps({name: accepted}))
        assert main(["xpose", "review", str(dataset), "--decisions", str(decisions)]) == 0
        assert [example.request.job for example in read_examples(dataset)] == left
        row = next(row for row in table(dataset) if row["clip"].endswith("🦎.mp4#0002"))
        assert row["decision"] == ("accepted" if accepted else "rejected")
    decisions.write_text('{"somebody else": false}')
    assert main(["xpose", "review", str(dataset), "--decisions", str(decisions)]) == 1
    assert "choose the page's own" in capsys.readouterr().err


def test_a_dropped_clip_that_is_accepted_is_made_when_the_run_goes_on(tmp_path, capsys):
    folder, output = tmp_path / "videos", tmp_path / "set"
    folder.mkdir()
    encode(folder / "a lizard.mp4", lizard(9)[0])
    more = ("--area", "paper", "--processes", "1")  # which is too much to ask of it
    assert main(words(folder, output, *more)) == 0
    assert "look " in (said := capsys.readouterr().out) and "subject " in said, "rates of the steps"
    clips = json.loads((output / "clips.js").read_text(encoding="utf-8")[len("const CLIPS = ") : -2])
    assert [clip[3] for clip in clips] == [0]
    decisions = tmp_path / "decisions.json"
    decisions.write_text(json.dumps({clip[1]: True for clip in clips}))
    for _ in range(2):  # saying it twice changes nothing
        assert main(["xpose", "review", str(output), "--decisions", str(decisions)]) == 0
        assert "1 that was dropped is made" in capsys.readouterr().out
    encode(folder / "0 more.mp4", lizard(9, 4)[0])
    assert main(words(folder, output, *more)) == 0
    found = pq.read_table(output / "report.parquet").to_pylist()
    assert [(row["clip"], row["kept"], row["decision"], row["notes"]) for row in found] == [
        ("a lizard.mp4#0001", False, "accepted", ""),
        ("a lizard.mp4#0001a", True, "", "accepted by hand"),
        ("0 more.mp4#0001", False, "", ""),
    ]
    assert [example.subject for example in read_examples(output)] == ["a lizard.mp4"]
    assert [row["clip"] for row in table(output)] == [row["clip"] for row in found]


def test_killed_at_any_point_it_ends_the_same_bit_for_bit(tmp_path):
    folder, whole, torn = (tmp_path / name for name in ("videos", "whole", "torn"))
    folder.mkdir()
    for number in range(2):
        encode(folder / f"{number}.mp4", lizard(27, number)[0])
    slow = ("--option", "subject.seconds=0.2")
    assert main(words(folder, whole, *slow)) == 0
    begun = subprocess.Popen(
        [sys.executable, "-m", "inference_server", *words(folder, torn, *slow)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while len(list(torn.glob("work/clips/*.json"))) < 3 and time.monotonic() < deadline:
        assert begun.poll() is None
        time.sleep(0.01)
    os.kill(begun.pid, signal.SIGKILL)
    begun.wait()
    assert main(words(folder, torn, *slow)) == 0
    assert [row["kept"] for row in table(torn)] == ["True"] * 6
    found, expected = everything(torn), everything(whole)
    expected["index.html"] = expected["index.html"].replace(b"whole", b"torn")  # the folder's name
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []


def test_one_box_serves_a_whole_shot(tmp_path):
    """Of two that move, the smaller one is pointed at, in the first frame alone."""
    large, small = lizard(25)[0], lizard(25, 1)[0]
    frames = np.concatenate([large, large], 2)
    frames[:, 32:, 160:] = small[:, :1, :1]
    frames[:, 32:128, 160:280] = np.stack([cv2.resize(frame, (120, 96)) for frame in small])
    video = encode(tmp_path / "two.mp4", np.pad(frames, ((0, 0), (32, 0), (0, 0), (0, 0))))  # a black bar
    box = ("--box", "0.5", "0.4", "0.8", "1.0")
    assert main(words(video, tmp_path / "set", *box)) == 0
    masks = [example.request.subject_mask for example in read_examples(tmp_path / "set")]
    sides = [np.nonzero(mask.any(0))[0][[0, -1]] for mask in masks]
    assert len(sides) == 3 and all(160 <= low and high < 280 for low, high in sides)


def test_other_settings_do_not_mix_and_new_videos_are_added(dataset, videos, tmp_path, capsys):
    assert main(words(videos, dataset, "--area", "paper")) == 1
    assert "begun with other settings" in capsys.readouterr().err
    assert main(["xpose", "run", str(tmp_path), "--output", str(tmp_path / "set")]) == 1
    assert "holds no videos" in capsys.readouterr().err
    assert (
        main(["xpose", "run", str(videos), "--output", str(tmp_path / "set"), "--box", "5", "5", "9", "9"])
        == 1
    )
    assert "fractions" in capsys.readouterr().err
    said = tmp_path / "subjects.json"
    said.write_text('{"nobody.mp4#0001": {"points": [[0.5, 0.5]]}}')
    assert main([*words(videos, tmp_path / "set"), "--subjects", str(said)]) == 1
    assert "nobody.mp4#0001, which is not in" in capsys.readouterr().err


def test_a_full_disk_ends_the_run_in_a_sentence_and_nothing_is_half(tmp_path, monkeypatch, capsys):
    folder, output = tmp_path / "videos", tmp_path / "set"
    folder.mkdir()
    for number in range(2):
        encode(folder / f"{number}.mp4", lizard(9, number)[0])
    write = Path.write_bytes

    def full(path, data):
        if path.parent.name == "plans" and path.name.startswith(store.video_id("1.mp4")):
            write(path, data[:10])
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(words(folder, output, "--processes", "1")) == 1
    assert "free some space and run again" in capsys.readouterr().err
    assert not list(output.rglob("*.part")) and not list(output.glob("*.tar"))
    monkeypatch.setattr(Path, "write_bytes", write)
    assert main(words(folder, output, "--processes", "1")) == 0
    assert read_index(output)["statistics"]["examples"] == 2
