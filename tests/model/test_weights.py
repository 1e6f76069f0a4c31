"""The weights command as a user runs it, in a process of its own, against a hub on this machine."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inference_server.poseanything.checkpoints import CheckpointError, default_folder, find_weights
from inference_server.poseanything.checkpoints.folder import CHECKSUMS
from inference_server.poseanything.checkpoints.inspection import inspect_weights
from inference_server.poseanything.checkpoints.weights import check
from tests.model.checkpoint_files import random_tensors, save_release, save_shards, transformer_shapes
from tests.model.hub_server import ROOT, Hub, environment, weights

SHARD = "diffusion_pytorch_model-00002-of-00002.safetensors"
TEXT_ENCODER = "models_t5_umt5-xxl-enc-bf16.pth"  # the largest one here, 25.6 MB
CHUNK = 10 * 2**20  # what huggingface_hub writes at a time


@pytest.fixture(scope="module")
def repositories(tmp_path_factory) -> Path:
    """The two repositories as they are on the hub, tiny, with files that nobody needs."""
    root = tmp_path_factory.mktemp("hub")
    made = save_release(tmp_path_factory.mktemp("release"), vocabulary=800_000)
    (root / "Ryan241005").mkdir()
    (root / "Wan-AI").mkdir()
    (made / "PoseAnything").rename(root / "Ryan241005" / "PoseAnything")
    (made / "Wan2.2-TI2V-5B").rename(root / "Wan-AI" / "Wan2.2-TI2V-5B")
    save_shards(
        random_tensors(transformer_shapes(part_attention=False)),
        root / "Ryan241005" / "PoseAnything" / "tiktok",
        shards=1,
        index=False,
    )
    (root / "Ryan241005" / "PoseAnything" / "README.md").write_text("# PoseAnything\n")
    save_shards(random_tensors(transformer_shapes(in_channels=4)), root / "Wan-AI" / "Wan2.2-TI2V-5B")
    (root / "Wan-AI" / "Wan2.2-TI2V-5B" / "examples.bin").write_bytes(b"\0" * 50_000)
    return root


@pytest.fixture
def hub(repositories):
    hub = Hub(repositories)
    hub.licences = {"Wan-AI/Wan2.2-TI2V-5B": "apache-2.0"}
    with hub.running():
        yield hub


def sentence(result: subprocess.CompletedProcess) -> str:
    """What the command complained of: the last line, a whole sentence."""
    assert result.returncode == 1, result.stdout + result.stderr
    line = result.stderr.strip().splitlines()[-1]
    assert line.endswith("."), result.stderr
    return line


def test_everything_needed_is_got_verified_and_found(hub, tmp_path):
    result = weights(hub, tmp_path / "weights")
    assert result.returncode == 0, result.stderr
    assert "licence: apache-2.0" in result.stdout and "licence: not stated" in result.stdout
    found = find_weights(tmp_path / "weights")
    assert found.transformer == tmp_path / "weights" / "PoseAnything"
    assert found.vae == tmp_path / "weights" / "Wan2.2-TI2V-5B" / "Wan2.2_VAE.pth"
    wan = tmp_path / "weights" / "Wan2.2-TI2V-5B"
    assert not (wan / "examples.bin").exists() and not list(wan.glob("*.safetensors"))
    assert not (found.transformer / "tiktok").exists()
    for folder in (found.transformer, wan):
        for line in (folder / CHECKSUMS).read_text().splitlines():
            digest, name = line.split("  ")
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert not list((tmp_path / "weights").rglob("*.part"))

    hub.requests.clear()
    assert weights(hub, tmp_path / "weights").returncode == 0
    assert all(path.startswith("/api/") for _, path, _ in hub.requests)  # nothing is fetched twice


def test_a_token_goes_to_the_hub_alone(hub, tmp_path):
    hub.token = "hf_secret"
    assert "set HF_TOKEN" in sentence(weights(hub, tmp_path / "weights"))
    assert not (tmp_path / "weights").exists()
    hub.requests.clear()
    assert weights(hub, tmp_path / "weights", HF_TOKEN="hf_secret").returncode == 0
    redirected = [headers for _, path, headers in hub.requests if path.startswith("cdn:")]
    assert redirected and not any("authorization" in headers for headers in redirected)


def test_a_gated_repository_says_where_its_terms_are(hub, tmp_path):
    hub.gated = True
    assert "accept them there" in sentence(weights(hub, tmp_path / "weights"))


def test_a_transfer_that_breaks_off_goes_on_in_the_same_run(hub, tmp_path):
    hub.cut_after[TEXT_ENCODER] = [2 * CHUNK + 1000]
    assert weights(hub, tmp_path / "weights").returncode == 0
    assert hub.ranges(TEXT_ENCODER) == [None, f"bytes={2 * CHUNK}-"]
    arrived = tmp_path / "weights" / "Wan2.2-TI2V-5B" / TEXT_ENCODER
    assert arrived.read_bytes() == (hub.root / "Wan-AI" / "Wan2.2-TI2V-5B" / TEXT_ENCODER).read_bytes()


def test_a_run_that_is_killed_is_taken_up_by_the_next(hub, tmp_path):
    hub.stall_after[TEXT_ENCODER] = 2 * CHUNK + 1000
    folder = tmp_path / "weights" / "Wan2.2-TI2V-5B"
    command = [sys.executable, "-m", "inference_server", "weights", str(tmp_path / "weights")]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(hub), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while sum(part.stat().st_size for part in folder.glob("*.part")) < 2 * CHUNK:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert not (folder / TEXT_ENCODER).exists()
    hub.stall_after.clear()
    hub.requests.clear()
    assert weights(hub, tmp_path / "weights").returncode == 0
    assert hub.ranges(TEXT_ENCODER) == [f"bytes={2 * CHUNK}-"]
    assert (folder / TEXT_ENCODER).read_bytes() == (
        hub.root / "Wan-AI" / folder.name / TEXT_ENCODER
    ).read_bytes()
    assert not list(folder.glob("*.part"))


def test_a_file_that_arrives_damaged_never_takes_its_name(hub, tmp_path):
    hub.spoiled = {"Wan2.2_VAE.pth"}
    assert "Wan2.2_VAE.pth arrived damaged" in sentence(weights(hub, tmp_path / "weights"))
    wan = tmp_path / "weights" / "Wan2.2-TI2V-5B"
    assert not (wan / "Wan2.2_VAE.pth").exists() and not list(wan.rglob("Wan2.2_VAE.pth*.part"))
    hub.spoiled = {"tokenizer_config.json"}  # a small one, known by git's id alone
    assert "tokenizer_config.json arrived damaged" in sentence(weights(hub, tmp_path / "weights"))
    hub.spoiled = set()
    assert weights(hub, tmp_path / "weights").returncode == 0


def test_a_file_of_the_users_own_is_neither_taken_nor_overwritten(hub, tmp_path):
    mine = tmp_path / "weights" / "PoseAnything" / SHARD
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"my own training")
    assert "move it away" in sentence(weights(hub, tmp_path / "weights"))
    assert mine.read_bytes() == b"my own training"


def test_a_whole_file_that_is_there_already_is_verified_and_kept(hub, tmp_path):
    there = tmp_path / "weights" / "PoseAnything" / SHARD
    there.parent.mkdir(parents=True)
    there.write_bytes((hub.root / "Ryan241005" / "PoseAnything" / SHARD).read_bytes())
    assert weights(hub, tmp_path / "weights").returncode == 0
    assert hub.ranges(SHARD) == []


def test_offline_mode_fetches_nothing_and_looks_at_what_is_there(hub, tmp_path):
    assert "There is no folder" in sentence(weights(hub, tmp_path / "weights", HF_HUB_OFFLINE="1"))
    save_release(tmp_path / "weights")
    result = weights(hub, tmp_path / "weights", HF_HUB_OFFLINE="1")
    assert result.returncode == 0 and "are complete" in result.stdout
    assert hub.requests == []


def test_a_hub_that_is_away_is_a_sentence(hub, tmp_path):
    nowhere = weights(hub, tmp_path / "weights", HF_ENDPOINT="http://127.0.0.1:9")
    assert "can't be reached" in sentence(nowhere)


def test_files_that_the_hub_no_longer_has_are_named(hub, tmp_path):
    gone = hub.root / "Wan-AI" / "Wan2.2-TI2V-5B" / "Wan2.2_VAE.pth"
    moved = gone.rename(gone.with_suffix(".elsewhere"))
    try:
        assert "has no Wan2.2_VAE.pth" in sentence(weights(hub, tmp_path / "weights"))
    finally:
        moved.rename(gone)


def test_the_variant_for_dancing_people_is_got_on_request(hub, tmp_path):
    assert weights(hub, tmp_path / "weights", "--tiktok").returncode == 0
    variant = "PoseAnything/tiktok/diffusion_pytorch_model-00001-of-00001.safetensors"
    assert find_weights(tmp_path / "weights", transformer=variant).transformer.is_file()
    assert find_weights(tmp_path / "weights").transformer == tmp_path / "weights" / "PoseAnything"


def test_the_list_says_what_is_looked_for_where_and_what_is_found(hub, tmp_path):
    result = weights(hub, "--list", POSEANYTHING_WEIGHTS=str(tmp_path))
    assert result.returncode == 0 and hub.requests == []
    for word in (
        str(tmp_path),
        "Wan2.2_VAE.pth",
        "models_t5_umt5-xxl-enc-bf16.pth",
        "google/umt5-xxl",
        "lack",
    ):
        assert word in result.stdout
    save_release(tmp_path)
    assert f"transformer: {tmp_path / 'PoseAnything'}" in weights(hub, "--list", tmp_path).stdout


def test_the_check_names_what_has_changed_since_it_came(hub, tmp_path, capsys):
    assert weights(hub, tmp_path).returncode == 0
    check(tmp_path)
    report = capsys.readouterr().out
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != CHECKSUMS]
    assert "with part-aware attention" in report and report.count("checksum right") == len(files)
    shard = tmp_path / "PoseAnything" / SHARD
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{SHARD} is missing or no longer what was fetched"):
        check(tmp_path)
    shard.write_bytes(content[:-7])
    with pytest.raises(CheckpointError, match=f"{SHARD} is damaged or was cut off"):
        check(tmp_path)


def test_listing_and_finding_start_without_the_heavy_libraries(tmp_path):
    script = (
        "import sys; from pathlib import Path;"
        "from inference_server.poseanything.checkpoints import find_weights;"
        "from inference_server.poseanything.checkpoints.weights import describe; describe(Path('.'));"
        "heavy = ('torch', 'diffusers', 'transformers', 'huggingface_hub');"
        "print([name for name in heavy if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True, timeout=240
    )
    assert result.stdout.strip() == "[]"


def test_the_environment_names_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("POSEANYTHING_WEIGHTS", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("POSEANYTHING_WEIGHTS")
    assert default_folder() == Path.home() / ".poseanything" / "weights"


def save_small(folder: Path) -> Path:
    """A checkpoint without prompts, saved with a VAE of its own."""
    from inference_server.poseanything.models.linear_vae import AutoencoderLinear
    from tests.model.tiny_transformer import tiny_transformer

    tiny_transformer(text_conditioning=False).save_pretrained(folder / "transformer")
    AutoencoderLinear(z_dim=4, patch_size=8).save_pretrained(folder / "vae")
    return folder / "transformer"


def test_a_checkpoint_with_its_own_vae_and_without_prompts_needs_nothing_else(tmp_path):
    transformer = save_small(tmp_path / "small")
    found = find_weights(tmp_path)
    assert found.transformer == transformer and found.vae == tmp_path / "small" / "vae"
    assert found.text_encoder is None and found.tokenizer is None
    assert [line.partition(":")[0] for line in inspect_weights(found)] == ["transformer", "VAE"]


def test_beside_the_released_one_each_has_its_own(tmp_path):
    folder = save_release(tmp_path / "weights")
    small = save_small(folder / "small")
    found = find_weights(folder)
    assert set(found.transformers) == {folder / "PoseAnything", small}
    assert found.choose("small/transformer").vae == small.parent / "vae"
    released = found.choose("PoseAnything")
    assert released.vae.name == "Wan2.2_VAE.pth" and released.text_encoder and released.tokenizer
    assert len(inspect_weights(found)) == 6

    released.vae.unlink()
    assert find_weights(folder).transformer == small
    with pytest.raises(CheckpointError, match="lack vae .Wan2.2_VAE.pth"):
        find_weights(folder).choose("PoseAnything")
