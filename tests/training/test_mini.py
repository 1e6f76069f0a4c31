"""The small model's one command, at a toy size: it ends in time, and what was killed goes on."""

import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

from accelerate import init_empty_weights  # noqa: E402

from inference_server.poseanything.checkpoints import load_transformer, load_vae  # noqa: E402
from inference_server.poseanything.models.transformer import PoseAnythingTransformer3DModel  # noqa: E402
from inference_server.training import mini  # noqa: E402
from inference_server.training.mini import RECIPES, settings_of  # noqa: E402
from tests.server.processes import descendants, wait_for_end  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TOY = "--workers 1 --clips 8 --drafted-clips 8 --held-out 2 --begin-with 4"
TOY += " --size 64 64 --drafted-size 64 64 --drawn-size 96 96 --frames 5"
SMALLER = """
batch_size = 2
checkpoint_seconds = 0.5

[transformer]
num_attention_heads = 1
num_layers = 1
in_channels = 48
out_channels = 24
"""


def toy(folder, road, settings=""):
    """A recipe at a toy size."""
    file = folder / f"{road}.toml"
    file.write_text(f'extends = "{RECIPES / road}.toml"\n{settings}{SMALLER}')
    return str(file)


def start(folder, roads, *words):
    command = [sys.executable, "-m", "inference_server.training.mini", "--output", str(folder / "out")]
    command += ["--scratch", str(folder / "scratch"), *TOY.split(), "--roads", ",".join(roads), *words]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environ, start_new_session=True)


def test_roads_give_checkpoints_and_figures(tmp_path):
    roads = {"bridge": {"draft", "1 step", "wrong pose"}, "noise": {"no parts", "whole subject", "8 steps"}}
    recipes = [toy(tmp_path, road, "steps = 3") for road in roads]
    assert start(tmp_path, recipes, "--minutes", "10").wait(300) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    for road, names in roads.items():
        figures = results[road]["history"][-1]
        assert figures["step"] == 3 and figures["psnr"]["first frame repeated"]["subject"]["clips"] == 2
        assert names < figures["psnr"].keys() and len(figures["clips"]["first frame repeated"]) == 2
        with tarfile.open(tmp_path / "out" / f"{road}.tar.gz") as tar:
            tar.extractall(tmp_path / road, filter="data")
        transformer = load_transformer(tmp_path / road / "transformer")
        assert transformer.config.init == ("draft" if road == "bridge" else "noise")
        assert load_vae(tmp_path / road / "vae").config.z_dim == 24
    with tarfile.open(tmp_path / "out" / "pictures.tar.gz") as tar:
        assert {"bridge/truth/00.webp", "noise/wrong-pose/01.webp"} < set(tar.getnames())


def test_it_goes_on_after_a_kill_and_ends_in_time(tmp_path):
    recipes = [toy(tmp_path, "bridge")]
    process = start(tmp_path, recipes, "--minutes", "10")
    packed = tmp_path / "out" / "bridge.tar.gz"
    while process.poll() is None and not packed.exists():
        time.sleep(0.1)
    family = descendants(process.pid) if sys.platform == "linux" else []
    process.kill()
    process.wait()
    for child in family:  # its trainers and those who draw, who know of its end by themselves
        wait_for_end(child)
    steps = [path.name for path in (tmp_path / "scratch" / "bridge" / "checkpoints").glob("step-*")]
    reached = max(int(name.removeprefix("step-")) for name in steps)

    assert start(tmp_path, recipes, "--minutes", "0.4").wait(300) == 0  # no step is its last; time is
    result = json.loads((tmp_path / "out" / "results.json").read_text())["bridge"]
    logged = [line["step"] for line in result["log"]]
    assert result["history"][-1]["step"] >= reached
    assert logged[0] == 1 and logged == sorted(set(logged))  # begun by the run that was killed, once


def test_a_road_that_is_not_there_is_named(tmp_path, capsys):
    assert mini.main(["--output", str(tmp_path), "--roads", "noise,nowhere"]) == 1
    assert "The settings nowhere can't be read" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_a_recipe_says_a_model_and_what_it_begins_with(recipe):
    settings = settings_of(recipe.stem)
    if settings.checkpoint:
        config = json.loads((ROOT / settings.checkpoint / "config.json").read_text())
        assert config | settings.transformer | {"held_latents": 0} == config | {"held_latents": 0}
    else:
        with init_empty_weights():
            PoseAnythingTransformer3DModel(**settings.transformer)
