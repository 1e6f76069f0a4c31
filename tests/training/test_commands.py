"""The commands as a user types them: a data set, then the paper's three stages on it, one killed on the
way."""

import argparse
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from contextlib import ExitStack, suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("webdataset")
torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")
pytest.importorskip("tensorboardX")

from diffusers import WanTransformer3DModel  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from tensorboardX.proto.event_pb2 import Event  # noqa: E402

from inference_server.cli import main, train  # noqa: E402
from inference_server.datasets.dataset import DatasetWriter  # noqa: E402
from inference_server.poseanything.checkpoints import (  # noqa: E402
    load_lora,
    load_transformer,
    load_vae,
    unload_loras,
)
from inference_server.poseanything.models.linear_vae import AutoencoderLinear  # noqa: E402
from inference_server.poseanything.models.transformer import PoseAnythingTransformer3DModel  # noqa: E402
from inference_server.synthesis.clips import ClipSettings, make_clip  # noqa: E402
from inference_server.training.beginning import outline  # noqa: E402
from inference_server.training.extension import extend_wan  # noqa: E402
from inference_server.training.settings import TrainingSettings  # noqa: E402
from inference_server.training.shard_batches import LatentCache, ShardBatches, no_text  # noqa: E402
from shared.request_file import write_request  # noqa: E402
from tests.server.processes import PATIENCE, descendants, wait_for_end  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
FSDP2 = ROOT / "inference_server" / "training" / "recipes" / "fsdp2.yaml"
MODEL = """
[transformer]
patch_size = [1, 1, 1]
num_attention_heads = 1
attention_head_dim = 32
in_channels = 48
out_channels = 24
text_dim = 8
ffn_dim = 64
num_layers = 2
rope_max_seq_len = 32
text_conditioning = false
part_attention_empty = "excluded"
"""
RUN = """
steps = 4
warmup_steps = 1
log_steps = 1
mixed_precision = "no"
learning_rate = 0.003
batch_size = 2
checkpoint_seconds = 0.0
"""


@pytest.fixture(autouse=True)
def one_thread(fresh_accelerate):
    """As of the processes that are started: sums depend on it."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with a data set and a VAE."""
    folder = tmp_path_factory.mktemp("workshop")
    command = "synthesise --clips 24 --size 64 64 --frames 5 --processes 1 --output"
    sheet = ["--sheet", str(folder / "sheet.png")]
    assert main([*command.split(), str(folder / "set"), *sheet]) == 0
    assert (folder / "sheet.png").stat().st_size > 10_000
    torch.manual_seed(0)
    vae = AutoencoderLinear(z_dim=24)
    vae.set_basis(torch.linalg.qr(torch.randn(768, 24))[0].T, torch.zeros(768))
    vae.save_pretrained(folder / "vae")
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="reads the processes from /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_whoever_draws_examples_ends_with_the_command(tmp_path, number):
    words = "synthesise --clips 100000 --size 64 64 --frames 5 --processes 2 --output"
    command = [sys.executable, "-m", "inference_server", *words.split(), str(tmp_path / "set")]
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as started:
        try:
            end = time.monotonic() + PATIENCE
            while not list(tmp_path.glob("set/*.tar*")):  # examples come from the processes
                assert time.monotonic() < end
                time.sleep(0.1)
            family = descendants(started.pid)
            assert len(family) > 2
            started.send_signal(number)
            for process in family:
                wait_for_end(process)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)


def command(workshop, name, settings, *more):
    file = workshop / f"{name}.toml"
    file.write_text(settings)
    words = ["train", str(file), "--data", str(workshop / "set"), "--vae", str(workshop / "vae")]
    return [*words, "--output", str(workshop / name), "--cache", str(workshop / "cache"), "--cpu", *more]


def weights(folder):
    return load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")


def logged(folder):
    """What TensorBoard is shown: steps with a loss, and by step a picture, uint8 [H, W, 3]."""
    losses, sheets = [], {}
    for file in folder.rglob("events.*"):
        content, place = file.read_bytes(), 0
        while place < len(content):  # a length of 8 bytes, its checksum of 4, the event, its checksum of 4
            length = int.from_bytes(content[place : place + 8], "little")
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += 16 + length
            for value in event.summary.value:
                if value.tag == "loss":
                    losses.append(event.step)
                elif value.tag == "samples":
                    picture = np.frombuffer(value.image.encoded_image_string, np.uint8)
                    sheets[event.step] = cv2.imdecode(picture, cv2.IMREAD_COLOR)[..., ::-1]
    return losses, sheets


def test_the_three_stages_follow_one_another(workshop, capsys):
    base = (
        'stage = "base"\ntensorboard = true' + RUN + MODEL + "num_inference_steps = 2\npart_attention = false"
    )
    assert main(command(workshop, "base", base)) == 0
    assert "examples/s" in capsys.readouterr().err
    losses, sheets = logged(workshop / "base" / "training")
    assert losses == [1, 2, 3, 4] and list(sheets) == [1, 2, 3, 4]
    truth, poses, made = np.split(sheets[4], 3)  # 64 x 64 each, of four frames
    assert sheets[4].shape == (3 * 64, 2 * 4 * 64, 3) and np.array_equal(truth, np.split(sheets[1], 3)[0])
    assert np.ptp(poses) > 100 and np.abs(made.astype(float) - truth)[:, :64].mean() < 3, "it keeps frame 0"
    assert not np.array_equal(made, np.split(sheets[1], 3)[2]), "the weights have moved"
    mixed = 'stage = "mixed"' + RUN + f'checkpoint = "{workshop}/base/transformer"'
    assert main(command(workshop, "mixed", mixed)) == 0
    for masks in ("known", "attention"):
        parts = f'stage = "parts"\npart_masks = "{masks}"' + RUN
        parts += f'checkpoint = "{workshop}/mixed/transformer"\n'
        parts += '[transformer]\npart_attention = true\npart_attention_empty = "excluded"'
        assert main(command(workshop, masks, parts)) == 0

        before, after = weights(workshop / "mixed"), weights(workshop / masks)
        added = after.keys() - before.keys()
        assert added and all("part_attn" in name or "norm_part" in name for name in added)
        assert all(torch.equal(before[name], after[name]) for name in before)  # all else is frozen
        moved = [name for name in added if "to_out.0.weight" in name]
        assert all(after[name].abs().max() > 0 for name in moved)  # masks were passed
        assert load_transformer(workshop / masks / "transformer").config.part_attention


def test_a_bridge_from_drafts_that_is_killed_goes_on_bit_for_bit(workshop, tmp_path, capsys):
    """A LoRA by configuration alone: the command draws the drafts that the data set lacks, and the file says
    where its flow starts."""
    torch.manual_seed(0)
    base = PoseAnythingTransformer3DModel(**tomllib.loads(MODEL)["transformer"])
    base.save_pretrained(tmp_path / "base")
    settings = 'stage = "bridge"\nlora_rank = 2' + RUN.replace("steps = 4", "steps = 12")
    settings += f'checkpoint = "{tmp_path}/base"\n[transformer]\nnum_inference_steps = 2'
    assert main(command(workshop, "whole", settings, "--plan")) == 0
    assert "2 examples of 64 x 64 and 5 frames" in capsys.readouterr().out
    assert main(command(workshop, "whole", settings)) == 0
    coded, drafts = (list((workshop / "cache").rglob(f"*{suffix}")) for suffix in (".safetensors", ".draft"))
    assert len(drafts) == len(coded) > 10
    words = [sys.executable, "-m", "inference_server", *command(workshop, "killed", settings)]
    process = subprocess.Popen(
        words, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL
    )
    checkpoints = workshop / "killed" / "checkpoints"
    while process.poll() is None and not list(checkpoints.glob("step-*/state.json")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert main(command(workshop, "killed", settings)) == 0
    made = [workshop / name / "lora.safetensors" for name in ("whole", "killed")]
    whole, killed = map(load_file, made)
    assert whole.keys() == killed.keys() and all(torch.equal(whole[name], killed[name]) for name in whole)
    lines = (workshop / "killed" / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 12

    loaded = load_transformer(tmp_path / "base")
    load_lora(loaded, made[0])
    assert (loaded.config.init, loaded.config.num_inference_steps) == ("draft", 2)
    unload_loras(loaded)
    assert (loaded.config.init, loaded.config.num_inference_steps) == ("noise", 50)


def test_a_character_is_learned_from_takes_into_a_lora(workshop, tmp_path, capsys):
    for number in range(2):
        clip, take = make_clip(number, ClipSettings(64, 64, 5)), tmp_path / "takes" / f"shot_{number:03d}"
        take.mkdir(parents=True)
        write_request(take / "request.poserequest", clip.request)
        (take / "first_frame.png").write_bytes(clip.request.first_frame)
        for index, frame in enumerate(clip.frames, 1):
            cv2.imwrite(str(take / f"shot_{index:04d}.png"), frame[..., ::-1])
    packing = ["synthesise", "--takes", str(tmp_path / "takes"), "--output", str(tmp_path / "set")]
    assert main(packing) == 0
    torch.manual_seed(0)
    config = tomllib.loads(MODEL)["transformer"] | {"patch_size": (1, 1, 1)}
    PoseAnythingTransformer3DModel(**config).save_pretrained(tmp_path / "base")

    half = RUN.replace('"no"', '"bf16"')
    settings = 'stage = "lora"\nlora_rank = 2\n' + half + f'checkpoint = "{tmp_path}/base"'
    words = command(workshop, "lora", settings, "--split", "all")
    words[words.index(str(workshop / "set"))] = str(tmp_path / "set")
    assert main(words) == 0
    transformer = load_transformer(tmp_path / "base")
    load_lora(transformer, workshop / "lora" / "lora.safetensors")
    assert transformer.peft_config

    (tmp_path / "takes" / "shot_001" / "shot_0003.png").unlink()
    assert main(packing) == 1
    assert "has 4 numbered pictures and the shot 5 frames" in capsys.readouterr().err


def free_ports(count):
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [str(each.getsockname()[1]) for each in taken]


def run_two(port, *words):
    """A command in two processes that find each other at a port, as `accelerate launch` starts them."""
    environ = os.environ | {"OMP_NUM_THREADS": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    both = [
        subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env=environ | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=300)[1].decode()[-2000:] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], errors


def losses(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines}


def test_two_processes_train_one_model_whole_or_sharded(workshop):
    """Over gloo: data parallel, with each its share of the examples; and FSDP2, where the model itself is
    divided, which takes the same steps and goes on from a checkpoint bit for bit."""
    settings = 'stage = "base"\npart_masks = "attention"\npart_dropout = 0.5' + RUN + MODEL
    port, *others = free_ports(3)
    both = [*command(workshop, "pair", settings), "--", *command(workshop, "sharded", settings)]
    run_two(port, "-m", "tests.training.sharded_training", ",".join(others), str(FSDP2), *both)
    assert main(command(workshop, "alone", settings)) == 0
    pair, alone = weights(workshop / "pair"), weights(workshop / "alone")
    moved = [name for name in pair if not torch.equal(pair[name], alone[name])]
    assert moved and all(torch.isfinite(pair[name]).all() for name in pair)  # the other's examples counted

    assert losses(workshop / "sharded") == pytest.approx(losses(workshop / "pair"), rel=1e-3)
    whole, resumed = weights(workshop / "sharded" / "first"), weights(workshop / "sharded")
    assert whole.keys() == pair.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_plain_wan_is_extended_and_gives_the_same_flow_at_first(workshop, tmp_path, capsys):
    torch.manual_seed(0)
    size = {"num_attention_heads": 1, "attention_head_dim": 32, "ffn_dim": 64, "num_layers": 2, "text_dim": 8}
    wan = WanTransformer3DModel(
        in_channels=24, out_channels=24, freq_dim=32, patch_size=(1, 1, 1), **size
    ).eval()
    extended = extend_wan(wan, part_attention_empty="excluded").eval()
    video, text = torch.randn(1, 24, 2, 4, 4), torch.randn(1, 3, 8)
    timestep = torch.full((1, 2 * 4 * 4), 500.0)
    with torch.no_grad():
        plain = wan(video, timestep, text, return_dict=False)[0]
        ours = extended(video, timestep, text, torch.randn(1, 24, 2, 4, 4), return_dict=False)[0]
    assert ours == pytest.approx(plain, abs=1e-5)

    wan.save_pretrained(tmp_path / "wan")
    settings = (
        'stage = "base"' + RUN + f'checkpoint = "{tmp_path}/wan"\n[transformer]\ntext_conditioning = false'
    )
    assert main(command(workshop, "extended", settings, "--plan")) == 0
    assert "gradients, optimizer, average" in capsys.readouterr().out
    changes = {"part_attention_empty": "excluded"}
    planned = outline(TrainingSettings.of("base", checkpoint=str(tmp_path / "wan"), transformer=changes))
    shapes = [{name: p.shape for name, p in model.named_parameters()} for model in (planned, extended)]
    assert shapes[0] == shapes[1] and planned.device.type == "meta"
    assert main(command(workshop, "extended", settings)) == 0
    assert load_transformer(workshop / "extended" / "transformer").config.in_channels == 48


@pytest.mark.parametrize(
    "settings, sentence",
    [
        (MODEL.replace('"excluded"', '"no"'), "transformer can't be made"),
        (MODEL.replace("text_conditioning = false", ""), "name its text encoder by --text-encoder"),
        (MODEL + 'init = "draft"\nin_chanels = 3', "transformer can't be made"),
        ("steps = 0", "must be 1 or more"),
        ("learning_rate = -1.0", "must be more than 0"),
        ("pose_dropout = 7.0", "must be between 0 and 1"),
        ('stage = "parts"\npart_dropout = 0.1', "set part_dropout to 0"),
        ("ema_decay = 1.0", "must be 0 or more and less than 1"),
        (MODEL + "part_attention = false", 'has no part-aware attention; choose "none"'),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(workshop, settings, sentence, capsys):
    assert main(command(workshop, "wrong", settings)) == 1
    assert sentence in capsys.readouterr().err


def test_a_truncated_shard_ends_training_in_a_sentence(workshop, tmp_path, capsys):
    (tmp_path / "set").mkdir()
    for path in (workshop / "set").iterdir():
        (tmp_path / "set" / path.name).write_bytes(
            path.read_bytes()[: 20_000 if path.suffix == ".tar" else None]
        )
    words = command(workshop, "truncated", MODEL)
    words[words.index(str(workshop / "set"))] = str(tmp_path / "set")
    words[words.index(str(workshop / "cache"))] = str(tmp_path / "cache")
    assert main(words) == 1
    assert "copy it again" in capsys.readouterr().err


def test_a_full_disk_ends_training_in_a_sentence(workshop):
    """A limit on the size of files is met by each of its writers as a full disk is."""
    settings = RUN.replace("steps = 4", "steps = 1") + MODEL
    assert main(command(workshop, "room", settings)) == 0  # the cache is there
    words = command(workshop, "full", settings)
    script = "import resource, sys; from inference_server.cli import main;"
    script += "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "The checkpoint of step 1 can't be written" in done.stderr and "free some space" in done.stderr


def test_what_was_synthesised_is_not_added_again(workshop, tmp_path, capsys, monkeypatch):
    words = "synthesise --clips 2 --size 64 64 --frames 5 --processes 1 --output".split()
    assert main([*words, str(tmp_path / "set")]) == 0
    words[2] = "3"
    assert main([*words, str(tmp_path / "set"), "--sheet", str(tmp_path / "none" / "sheet.png")]) == 1
    said = capsys.readouterr()
    assert "1 examples added, 2 were there" in said.out and "sheet.png can't be written" in said.err
    left = tmp_path / "set" / "shard-000002.tar.part"
    left.write_bytes(b"of a run that was killed")
    with monkeypatch.context() as patched:
        patched.setattr("inference_server.cli.synthesise.ProcessPoolExecutor", None)  # nothing is drawn
        assert main([*words, str(tmp_path / "set"), "--sheet", str(tmp_path / "sheet.png")]) == 0
    assert "0 examples added, 3 were there" in capsys.readouterr().out
    assert not left.exists() and (tmp_path / "sheet.png").exists()
    assert main([*words, str(tmp_path / "set"), "--look", "bones"]) == 0, "of the same seeds, others"
    assert "3 examples added" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*words[:2], "0", *words[3:], str(tmp_path / "set")])
    assert "no whole number of 1 or more" in capsys.readouterr().err
    for quality in ("0", "102", "best"):
        with pytest.raises(SystemExit):
            main([*words, str(tmp_path / "set"), "--quality", quality])
        assert f"{quality} is no quality from 1 to 100, or 101 for lossless" in capsys.readouterr().err


@pytest.fixture
def batches(workshop):
    vae = load_vae(workshop / "vae")
    cache = LatentCache(workshop / "cache", [workshop / "set"], vae, torch.device("cpu"))

    def batches(**changes):
        settings = TrainingSettings(**{"part_dropout": 0.0, "batch_size": 8} | changes)
        return ShardBatches(cache, settings, (1, 1, 1), no_text(8))

    return batches


def test_parts_come_from_where_the_settings_say(batches):
    names = ("known", "drawn", "mixed", "whole")
    known, drawn, mixed, whole = (batches(part_masks=name).batch(3, 8).parts for name in names)
    assert torch.equal(known.first_masks, drawn.first_masks), "the first frame's are the scene's"
    alike = [[torch.equal(m, o) for m, o in zip(mixed.later_masks, of.later_masks)] for of in (known, drawn)]
    assert any(alike[0]) and any(alike[1]) and all(map(any, zip(*alike))) and not all(alike[0])
    assert torch.equal(whole.later_masks[:, 0], drawn.later_masks.any(1)) and whole.first_masks.shape[1] == 1
    untold = batches(part_masks="drawn", pose_dropout=1.0).batch(3, 8).parts
    assert drawn.later_masks.any() and not untold.later_masks.any(), "a frame without a pose shows no part"


def test_of_videos_the_strokes_tell_the_parts(workshop, tmp_path):
    with DatasetWriter(tmp_path / "set", "videos") as writer:
        for seed in range(3):
            clip = make_clip(seed, ClipSettings(64, 64, 5))
            request = dataclasses.replace(clip.request, part_maps=None, first_labels=None)
            writer.add(dataclasses.replace(clip, request=request, labels=None))
    cache = LatentCache(
        tmp_path / "cache", [tmp_path / "set"], load_vae(workshop / "vae"), torch.device("cpu"), None
    )
    settings = TrainingSettings.of("parts", part_masks="known", sparse_poses=0.0)
    parts = ShardBatches(cache, settings, (1, 1, 1), no_text(8)).batch(0, 2).parts
    assert parts.first_masks.shape[1] > 1 and parts.first_masks.any() and parts.later_masks.any()


def test_a_stage_of_parts_goes_on_over_examples_that_show_none(workshop, tmp_path):
    with DatasetWriter(tmp_path / "set", "hidden") as writer:
        for seed in range(2):
            clip = make_clip(seed, ClipSettings(64, 64, 5))
            nothing = {
                name: np.zeros_like(getattr(clip.request, name)) for name in ("part_maps", "first_labels")
            }
            request = dataclasses.replace(clip.request, **nothing)
            writer.add(dataclasses.replace(clip, request=request, labels=np.zeros_like(clip.labels)))
    run = tmp_path / "parts.toml"
    run.write_text('stage = "parts"\n' + RUN + MODEL + "part_attention = true\n")
    words = ["train", str(run), "--data", str(tmp_path / "set"), "--split", "all", "--cpu"]
    assert main([*words, "--vae", str(workshop / "vae"), "--output", str(tmp_path / "parts")]) == 0
    assert len(weights(tmp_path / "parts"))


def test_deepspeed_is_refused_before_anything_is_read(workshop, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")  # as its launcher does
    assert main(command(workshop, "deepspeed", MODEL)) == 1
    assert "launch with inference_server/training/recipes/fsdp2.yaml" in capsys.readouterr().err


def test_data_sets_named_by_several_options_are_all_taken():
    parser = train.add_parser(argparse.ArgumentParser().add_subparsers())
    words = "run.toml --data one --data two three --output model".split()
    assert parser.parse_args(words).data == [Path("one"), Path("two"), Path("three")]
