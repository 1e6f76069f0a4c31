"""Sets in the official release's layout: read as its metadata.csv says, written back, and trained on as they
are."""

import dataclasses

import cv2
import numpy as np
import pytest

pytest.importorskip("skimage")
pytest.importorskip("webdataset")
torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from safetensors.torch import load_file  # noqa: E402

from inference_server.cli import main  # noqa: E402
from inference_server.datasets.dataset import DatasetWriter, read_examples, split_of, write_video  # noqa: E402
from inference_server.datasets.errors import DatasetError  # noqa: E402
from inference_server.datasets.release import (  # noqa: E402
    Fit,
    ReleaseExample,
    fingerprint,
    read_release_layout,
    read_rows,
    to_example,
    write_release_layout,
)
from inference_server.poseanything.conditioning.latent_grid import LatentGrid  # noqa: E402
from inference_server.poseanything.models.linear_vae import AutoencoderLinear  # noqa: E402
from inference_server.synthesis.clips import ClipSettings, make_clip  # noqa: E402
from inference_server.training.settings import TrainingSettings  # noqa: E402
from inference_server.training.shard_batches import LatentCache, ShardBatches, no_text  # noqa: E402
from shared.raster import condition_images  # noqa: E402

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

FIT = Fit(LatentGrid(8, 4, 1))
MODEL = """
[transformer]
patch_size = [1, 1, 1]
num_attention_heads = 1
attention_head_dim = 32
in_channels = 384
out_channels = 192
text_dim = 8
ffn_dim = 64
num_layers = 2
rope_max_seq_len = 64
text_conditioning = false
part_attention = false
"""
RUN = """
longer_side = 96
steps = 4
warmup_steps = 1
log_steps = 1
mixed_precision = "no"
learning_rate = 0.003
batch_size = 2
checkpoint_seconds = 1000.0
"""


@pytest.fixture(scope="module")
def clips():
    """Two as wide as high, two wider, of which one has few poses."""
    clips = [make_clip(seed, ClipSettings(96 if seed > 1 else 64, 64, 9)) for seed in range(4)]
    clips = [dataclasses.replace(clip, draft=None) for clip in clips]
    sparse = dataclasses.replace(clips[3].request, pose_frames=(0, 3, 8))
    return [*clips[:3], dataclasses.replace(clips[3], request=sparse)]


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    vae = AutoencoderLinear(z_dim=192)
    vae.set_basis(torch.linalg.qr(torch.randn(768, 192))[0].T, torch.zeros(768))
    return vae


def publish(folder, clips):
    """A set as the release has it: a row by hand, names of videos and their clips, poses for some frames."""
    rows = ["file_name,condition_images,text,condition_index"]
    for name, clip in clips.items():
        poses = folder / "train" / "skeleton_image" / name
        poses.mkdir(parents=True)
        (folder / "train" / "video").mkdir(exist_ok=True)
        write_video(folder / "train" / "video" / f"{name}.mkv", clip.frames, 24)
        frames = clip.request.conditioned_frames()
        drawn = condition_images(clip.request.pose, 512, 512 * clip.request.height // clip.request.width)
        for frame in frames:
            cv2.imwrite(str(poses / f"{frame:03d}.png"), drawn[frame])
        names = str([f"{frame:03d}.png" for frame in frames])
        rows.append(f'{name}.mkv,"{names}",A creature walks.,"{list(frames)}"')
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")


def test_a_set_as_it_is_published_is_read(tmp_path, clips):
    names = ["Og1-HBAendg_30", "Og1-HBAendg_31", "EZwrDYL6YIw_69", "b97ce5bc-728e-4976-802a-b06fc094302d"]
    publish(tmp_path, dict(zip(names, clips)))
    read = list(read_release_layout(tmp_path))
    assert [clip.name for clip in read] == names and read[0].prompt == "A creature walks."
    assert [clip.subject for clip in read] == ["Og1-HBAendg", "Og1-HBAendg", "EZwrDYL6YIw", names[3]]
    assert all(np.array_equal(clip.frames, truth.frames) for clip, truth in zip(read, clips))
    assert np.array_equal(read[0].first_frame, clips[0].frames[0]), "where there is no picture of it"
    assert np.flatnonzero(read[3].poses.any((1, 2))).tolist() == [0, 3, 8]
    for split in ("train", "validation", "test"):
        assert all(split_of(row.subject) == split for row in read_rows(tmp_path, split))

    before = fingerprint(tmp_path)
    (tmp_path / "train" / "skeleton_image" / names[0] / "000.png").unlink()
    assert fingerprint(tmp_path) != before
    with pytest.raises(DatasetError, match="000.png can't be read"):
        list(read_release_layout(tmp_path))


def test_what_is_no_such_set_is_told(tmp_path):
    for text, said in (
        ("name,text\na,b\n", "has no file_name"),
        ("file_name,condition_images\na.mp4,[0\n", "can't be read"),
        (
            "file_name,condition_images,condition_index\na.mp4,['0.png'],\"[0, 1]\"\n",
            "1 condition_images of 2",
        ),
        ("file_name\na.mp4\n", "a.mp4 can't be read"),
    ):
        (tmp_path / "metadata.csv").write_text(text)
        with pytest.raises(DatasetError, match=said):
            list(read_release_layout(tmp_path))


def test_clips_are_cut_down_to_what_a_model_takes(clips):
    clip = dataclasses.replace(clips[2], frames=clips[2].frames[:8])
    frames, poses = np.repeat(clip.frames, 2, 0), np.zeros((16, 50, 90), np.uint8)
    long = ReleaseExample("long", frames, poses, frames[0], "", "long")
    example = to_example(long, Fit(LatentGrid(8, 4, 2), 70, 15))
    assert example.frames.shape == (13, 32, 64, 3) and example.poses.shape == (13, 32, 64)
    assert not example.request.pose.limbs, "without a line it has no parts"
    with pytest.raises(DatasetError, match="long has 4 frames and the model takes at least 5"):
        to_example(dataclasses.replace(long, frames=frames[:4]))


def test_what_is_written_comes_back(tmp_path, clips):
    unmasked = dataclasses.replace(clips[1].request, subject_mask=None)
    clips = [clips[0], dataclasses.replace(clips[1], request=unmasked), *clips[2:]]
    assert write_release_layout(iter(clips), tmp_path / "set") == 4
    read = [to_example(clip, FIT) for clip in read_release_layout(tmp_path / "set")]
    for clip, back in zip(clips, read):
        request = clip.request
        size = request.width, request.height
        drawn = condition_images(request.pose, *size, request.conditioned_frames())
        assert np.array_equal(back.frames, clip.frames) and np.array_equal(back.poses, drawn)
        assert back.subject == clip.subject and back.request.prompt == request.prompt
        assert back.request.conditioned_frames() == request.conditioned_frames()
        assert np.array_equal(back.request.subject_mask, request.subject_mask)
    assert read[0].request.subject_mask.any() and read[1].request.subject_mask is None

    with DatasetWriter(tmp_path / "shards", "release") as writer:
        assert all(writer.add(example) for example in read)
    packed = list(read_examples(tmp_path / "shards"))
    assert all(np.array_equal(a.poses, b.poses) for a, b in zip(packed, read))
    write_release_layout(iter(packed), tmp_path / "again")
    for one, other in zip(read_release_layout(tmp_path / "again"), read):
        assert np.array_equal(one.poses, other.poses)


def test_the_pictures_themselves_are_the_poses_and_are_thinned_by_frames(tmp_path, clips, vae):
    write_release_layout(iter(clips[2:3]), tmp_path / "set")
    cpu, poses = torch.device("cpu"), next(read_release_layout(tmp_path / "set")).poses
    for picture in range(9):
        cv2.rectangle(poses[picture], (400, 20), (500, 60), 255, 2)  # no limb has it
        cv2.imwrite(str(tmp_path / "set/train/skeleton_image/000000" / f"{picture:03d}.png"), poses[picture])
    cache = LatentCache(tmp_path / "cache", [tmp_path / "set"], vae, cpu, None, fit=FIT)
    (clip,) = (to_example(clip, FIT) for clip in read_release_layout(tmp_path / "set"))

    def batch(**changes):
        settings = TrainingSettings(part_masks="drawn", **{"part_dropout": 0.0} | changes)
        return ShardBatches(cache, settings, (1, 1, 1), no_text(8)).batch(0, 1)

    dense, sparse, none = batch(), batch(sparse_poses=1.0), batch(pose_dropout=1.0)
    assert torch.allclose(dense.pose[0], cache.latents(clip.poses), atol=1e-5)
    assert torch.allclose(none.pose[0], cache.latents(np.zeros_like(clip.poses)), atol=1e-5)
    assert not torch.equal(sparse.pose, dense.pose) and torch.equal(sparse.pose[:, :, 0], dense.pose[:, :, 0])
    assert torch.equal(batch(camera_poses=1.0).pose, dense.pose), "nothing is known of its camera"
    assert dense.parts.first_masks.shape[1] > 1 and dense.parts.later_masks.any()
    assert not none.parts.later_masks.any()


def test_the_three_stages_train_on_a_set_as_it_is_published(tmp_path, clips, vae, capsys):
    publish(tmp_path / "set", {f"video{number}_0": clip for number, clip in enumerate(clips)})
    vae.save_pretrained(tmp_path / "vae")

    def train(name, text, *more):
        (tmp_path / f"{name}.toml").write_text(f'stage = "{name}"\n' + RUN + text)
        words = f"train {tmp_path}/{name}.toml --data {tmp_path}/set --vae {tmp_path}/vae --cpu --split all"
        assert main([*words.split(), "--output", str(tmp_path / name), *more]) == 0

    def weights(name):
        return load_file(tmp_path / name / "transformer" / "diffusion_pytorch_model.safetensors")

    train("base", MODEL, "--plan")
    assert "2 examples of 96 x 96 and 9 frames" in capsys.readouterr().out
    train("base", MODEL)
    train("mixed", f'checkpoint = "{tmp_path}/base/transformer"\n')
    parts = f'checkpoint = "{tmp_path}/mixed/transformer"\n'
    train("parts", parts + '[transformer]\npart_attention = true\npart_attention_empty = "excluded"\n')
    before, after = weights("mixed"), weights("parts")
    moved = [after[name] for name in after.keys() - before.keys() if "to_out.0.weight" in name]
    assert moved and all(weight.abs().max() > 0 for weight in moved), "parts were passed"


def test_what_was_drawn_trains_alike_from_either_layout(tmp_path, vae, capsys):
    words = (
        f"synthesise --clips 2 --size 64 64 --frames 5 --processes 1 --output {tmp_path}/set --layout release"
    )
    assert main(words.split()) == 0 and f"{tmp_path}/set/release" in capsys.readouterr().out
    assert not list((tmp_path / "set").glob("*.part"))
    cpu, settings = torch.device("cpu"), TrainingSettings(part_masks="none", text_dropout=0.0)
    shards, release = (
        ShardBatches(
            LatentCache(tmp_path / "cache", [folder], vae, cpu, None, fit=FIT),
            settings,
            (1, 1, 1),
            no_text(8),
        ).batch(0, 4)
        for folder in (tmp_path / "set", tmp_path / "set" / "release")
    )
    assert torch.equal(shards.clean, release.clean) and torch.equal(shards.pose, release.pose)
    assert shards.clean.std() > 0.1 and shards.pose.std() > 0.1
