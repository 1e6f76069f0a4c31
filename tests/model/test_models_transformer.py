"""The transformer: the official code's numbers, Wan's where there is no pose, and all that diffusers does to
models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from inference_server.poseanything.models.transformer import (  # noqa: E402
    TRAINED_WITH,
    FirstFrameAttention,
    PoseAnythingTransformer3DModel,
)
from tests.golden import recordings  # noqa: E402
from tests.model.recordings import Recording, relative_error  # noqa: E402
from tests.model.tiny_transformer import CHANNELS, CONFIG, tiny_inputs, tiny_parts, tiny_transformer  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TOKENS = 35  # in a frame


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


# The official code's numbers


@pytest.mark.parametrize("recording", recordings("*_io.npz"), indirect=True)
@pytest.mark.parametrize("part_attention", [False, True], ids=["without", "with"])
def test_recorded_flow(recording: Recording, part_attention: bool):
    recorded = recording["out_ptc" if part_attention else "out_noptc"]
    parts = recording.parts if part_attention else None
    assert relative_error(recording.transformer(**recording.inputs, parts=parts).sample, recorded) < 1e-4


@pytest.mark.parametrize("recording", recordings("*_io.npz"), indirect=True)
@pytest.mark.parametrize(
    ("name", "on"),
    [
        ("attn_last_block_headsum", "own_output"),
        ("attn_last_block_headmean", "own_output"),
        ("attn_last_block_on_block_input_headmean", "input"),
    ],
)
def test_recorded_attention_of_the_first_frame(recording: Recording, name: str, on: str):
    transformer, recorded = recording.transformer, recording[name]
    recorder = FirstFrameAttention(len(transformer.blocks) - 1, on=on)
    transformer(**recording.inputs, attention_recorder=recorder)
    heads = transformer.config.num_attention_heads if name.endswith("mean") else 1
    assert relative_error(recorder.weights / heads, recorded) < 1e-4


# Wan, and what is added to it


def test_without_pose_and_parts_it_is_wan():
    transformer = tiny_transformer(pose_injection="width", in_channels=CHANNELS, part_attention=False)
    wan = diffusers.WanTransformer3DModel(**CONFIG | {"in_channels": CHANNELS})
    wan.load_state_dict(transformer.state_dict())
    inputs = tiny_inputs(batch_size=2)
    inputs["pose_hidden_states"] = None
    ours = transformer(**inputs).sample
    by_token = inputs["timestep"].repeat_interleave(TOKENS, 1)
    theirs = wan(inputs["hidden_states"], by_token, inputs["encoder_hidden_states"]).sample
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_default_is_the_released_model():
    with torch.device("meta"):
        transformer = PoseAnythingTransformer3DModel()
    assert sum(parameter.numel() for parameter in transformer.parameters()) == 6_133_576_896


@pytest.mark.parametrize("injection", ["channel", "mlp", "width"])
def test_the_pose_reaches_the_flow(injection: str):
    channels = 2 * CHANNELS if injection == "channel" else CHANNELS
    transformer, inputs = tiny_transformer(pose_injection=injection, in_channels=channels), tiny_inputs()
    flow = transformer(**inputs).sample
    assert flow.shape == inputs["hidden_states"].shape
    inputs["pose_hidden_states"] = -inputs["pose_hidden_states"]
    assert (transformer(**inputs).sample - flow).abs().max() > 1e-2


def test_pose_by_mlp_is_added_to_the_video():
    transformer, inputs = tiny_transformer(pose_injection="mlp", in_channels=CHANNELS), tiny_inputs()
    weight, bias = transformer.pose_proj.weight, transformer.pose_proj.bias
    pose = inputs.pop("pose_hidden_states")
    projected = torch.einsum("oc,bcfhw->bofhw", weight, pose) + bias[:, None, None, None]
    flow = transformer(**inputs, pose_hidden_states=pose).sample
    inputs["hidden_states"] = inputs["hidden_states"] + projected
    torch.testing.assert_close(flow, transformer(**inputs).sample, rtol=1e-5, atol=1e-5)


def test_pose_by_width_lies_to_the_right_of_the_video():
    transformer, inputs = tiny_transformer(pose_injection="width", in_channels=CHANNELS), tiny_inputs()
    flow = transformer(**inputs).sample
    pose = inputs.pop("pose_hidden_states")
    inputs["hidden_states"] = torch.cat([inputs["hidden_states"], pose], dim=-1)
    torch.testing.assert_close(
        flow, transformer(**inputs).sample[..., : pose.shape[-1]], rtol=1e-5, atol=1e-5
    )


def test_timesteps_for_all_by_frame_or_by_token_are_one():
    transformer, inputs = tiny_transformer(), tiny_inputs(batch_size=2)
    by_frame = inputs.pop("timestep")
    by_token = by_frame.repeat_interleave(TOKENS, 1)
    torch.testing.assert_close(
        transformer(timestep=by_frame, **inputs).sample, transformer(timestep=by_token, **inputs).sample
    )
    for_all = torch.tensor([700.0, 400.0])
    torch.testing.assert_close(
        transformer(timestep=for_all, **inputs).sample,
        transformer(timestep=for_all[:, None].expand(2, 3), **inputs).sample,
    )


def test_guidance_as_one_batch_is_guidance_apart():
    transformer, inputs = tiny_transformer(), tiny_inputs(batch_size=2)
    together = transformer(**inputs, parts=tiny_parts(batch_size=2)).sample
    for sample in range(2):
        apart = transformer(**{name: x[[sample]] for name, x in inputs.items()}, parts=tiny_parts()).sample
        torch.testing.assert_close(together[[sample]], apart, rtol=1e-4, atol=1e-5)


# Attention of the first frame


def test_recording_takes_the_wanted_rows_and_changes_nothing():
    transformer, inputs = tiny_transformer(), tiny_inputs(batch_size=2)
    whole = FirstFrameAttention(block=1)
    flow = transformer(**inputs, attention_recorder=whole).sample
    torch.testing.assert_close(flow, transformer(**inputs).sample, rtol=0, atol=0)
    assert whole.weights.shape == (2, TOKENS, 3 * TOKENS)
    torch.testing.assert_close(whole.weights.sum(-1), torch.full((2, TOKENS), 2.0))  # two heads

    rows = torch.tensor([30, 2, 17])
    some = FirstFrameAttention(block=1, rows=rows)
    transformer(**inputs, attention_recorder=some)
    torch.testing.assert_close(some.weights, whole.weights[:, rows])


def test_recording_something_unknown():
    with pytest.raises(ValueError, match="'own_output'"):
        FirstFrameAttention(block=27, on="output")


# Inputs that don't fit


def test_a_pose_is_needed_where_the_model_concatenates_it():
    inputs = tiny_inputs() | {"pose_hidden_states": None}
    with pytest.raises(ValueError, match="takes latents of 8 channels and got 4"):
        tiny_transformer()(**inputs)


def test_pose_and_video_of_different_length():
    inputs = tiny_inputs(3) | {"pose_hidden_states": tiny_inputs(4)["pose_hidden_states"]}
    with pytest.raises(ValueError, match="differ in shape"):
        tiny_transformer()(**inputs)


def test_parts_of_another_grid():
    with pytest.raises(ValueError, match="made for 1 x 140 tokens and the latents make 1 x 105"):
        tiny_transformer()(**tiny_inputs(3), parts=tiny_parts(frames=4))


def test_parts_for_a_model_without_part_attention():
    with pytest.raises(ValueError, match="no part-aware attention"):
        tiny_transformer(part_attention=False)(**tiny_inputs(), parts=tiny_parts())


def test_timesteps_that_divide_nothing():
    with pytest.raises(ValueError, match="2 timesteps don't divide a sequence of 105 tokens"):
        tiny_transformer()(**tiny_inputs() | {"timestep": torch.zeros(1, 2)})


def test_recording_in_a_block_that_is_not_there():
    with pytest.raises(ValueError, match="no block 27 .* last is 2"):
        tiny_transformer()(**tiny_inputs(), attention_recorder=FirstFrameAttention(block=27))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pose_injection": "prompt"}, "'channel', 'mlp', 'width'"),
        ({"part_attention_empty": "no"}, "'excluded'"),
        ({"init": "film"}, "'noise', 'draft'"),
        ({"prediction_type": "epsilon"}, "'flow_prediction', 'sample'"),
        ({"prediction_base": "draft"}, "predict the sample"),
    ],
)
def test_configurations_that_do_not_exist(config: dict, message: str):
    with pytest.raises(ValueError, match=message):
        PoseAnythingTransformer3DModel(**CONFIG | config)


# What diffusers does to models


def test_saved_and_loaded_it_is_the_same(tmp_path: Path):
    transformer, inputs = (
        tiny_transformer(part_attention_empty="excluded"),
        tiny_inputs() | {"parts": tiny_parts()},
    )
    transformer.save_pretrained(tmp_path)
    loaded = PoseAnythingTransformer3DModel.from_pretrained(tmp_path)
    assert {name: loaded.config[name] for name in CONFIG} == CONFIG
    assert loaded.config.part_attention_empty == "excluded"
    torch.testing.assert_close(loaded(**inputs).sample, transformer(**inputs).sample, rtol=0, atol=0)


TRAINING = {
    "part_attention_threshold": 500.0,
    "max_parts": 10,
    "prediction_type": "sample",
    "prediction_base": "draft",
    "init": "draft",
    "init_noise": 0.1,
    "flow_shift": 3.0,
    "distilled_timesteps": [1000.0, 500.0],
    "num_inference_steps": 2,
    "held_latents": 2,
    "text_conditioning": False,
    "sample_frames": 17,
    "sample_size": 64,
    "pose_canvas": None,
    "pose_look": "bones",
    "between_poses": "interpolated",
    "camera_condition": "with_background",
    "camera_strength": 3.0,
    "subject_strength": 1.2,
}


def test_how_it_was_trained_is_saved_with_it(tmp_path: Path):
    assert TRAINING.keys() == set(TRAINED_WITH)
    tiny_transformer(**TRAINING).save_pretrained(tmp_path)
    loaded = PoseAnythingTransformer3DModel.from_pretrained(tmp_path)
    assert {name: loaded.config[name] for name in TRAINING} == TRAINING


def test_loaded_in_half_precision_the_norms_stay_in_float32(tmp_path: Path):
    transformer = tiny_transformer()
    transformer.save_pretrained(tmp_path)
    half = PoseAnythingTransformer3DModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert half.blocks[0].norm_part.weight.dtype == half.scale_shift_table.dtype == torch.float32
    assert half.blocks[0].part_attn.to_q.weight.dtype == torch.bfloat16
    inputs = tiny_inputs()
    expected = transformer(**inputs, parts=tiny_parts()).sample
    inputs = {name: x if name == "timestep" else x.bfloat16() for name, x in inputs.items()}
    flow = half(**inputs, parts=tiny_parts()).sample
    assert flow.dtype == torch.bfloat16
    assert relative_error(flow, expected) < 0.05


@pytest.mark.parametrize("backend", ["native", "_native_math"])
def test_attention_backends(backend: str):
    transformer, inputs = tiny_transformer(), tiny_inputs() | {"parts": tiny_parts()}
    expected = transformer(**inputs).sample
    try:
        transformer.set_attention_backend(backend)
        assert {p._attention_backend.value for p in transformer.attn_processors.values()} == {backend}
        torch.testing.assert_close(transformer(**inputs).sample, expected, rtol=1e-5, atol=1e-5)
    finally:
        transformer.set_attention_backend("native")


def test_fused_projections_change_nothing():
    transformer, inputs = tiny_transformer(), tiny_inputs() | {"parts": tiny_parts()}
    expected = transformer(**inputs).sample
    transformer.fuse_qkv_projections()
    assert (
        transformer.blocks[0].attn1.fused_projections
        and not transformer.blocks[0].part_attn.fused_projections
    )
    torch.testing.assert_close(transformer(**inputs).sample, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        diffusers.FirstBlockCacheConfig(threshold=1e-3),
        diffusers.MagCacheConfig(num_inference_steps=4, retention_ratio=0.5, mag_ratios=torch.ones(4)),
    ],
    ids=["first block", "mag"],
)
def test_caches_skip_blocks_of_a_step_like_the_last(config):
    transformer = tiny_transformer()
    branches = {
        "conditional": tiny_inputs(),
        "unconditional": tiny_inputs() | {"timestep": torch.tensor([300.0])},
    }
    expected = {name: transformer(**inputs).sample for name, inputs in branches.items()}
    ran = []
    for block in transformer.blocks:
        block.ffn.register_forward_hook(lambda *_: ran.append(1))

    transformer.enable_cache(config)
    for parts in (tiny_parts(), None, None):
        ran.clear()
        for name, inputs in branches.items():
            with transformer.cache_context(name):
                flow = transformer(**inputs, parts=parts).sample
            if parts is None:
                torch.testing.assert_close(flow, expected[name], rtol=1e-4, atol=1e-4)
    assert len(ran) < 2 * len(transformer.blocks)

    transformer.disable_cache()
    ran.clear()
    transformer(**branches["conditional"])
    assert len(ran) == len(transformer.blocks)


@torch.enable_grad()
def test_checkpointing_keeps_the_gradients():
    transformer, inputs = tiny_transformer(), tiny_inputs() | {"parts": tiny_parts()}

    def gradients() -> dict[str, torch.Tensor]:
        transformer.zero_grad()
        transformer(**inputs).sample.square().mean().backward()
        return {name: parameter.grad.clone() for name, parameter in transformer.named_parameters()}

    expected = gradients()
    transformer.enable_gradient_checkpointing()
    calls = []
    transformer.blocks[1].ffn.register_forward_hook(lambda *_: calls.append(1))
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient, expected[name], msg=name)
    assert len(calls) == 2  # once more for the backward pass


def test_lora_reaches_part_attention():
    peft = pytest.importorskip("peft")
    transformer, inputs = tiny_transformer(), tiny_inputs()
    plain, with_parts = transformer(**inputs).sample, transformer(**inputs, parts=tiny_parts()).sample
    targets = r"blocks\.\d+\.part_attn\.(to_q|to_k|to_v|to_out\.0)"
    transformer.add_adapter(peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    torch.testing.assert_close(transformer(**inputs).sample, plain)
    assert relative_error(transformer(**inputs, parts=tiny_parts()).sample, with_parts) > 1e-2
    unscaled = transformer(**inputs, parts=tiny_parts(), attention_kwargs={"scale": 0.0}).sample
    torch.testing.assert_close(unscaled, with_parts, rtol=1e-5, atol=1e-5)


def test_layerwise_casting_and_group_offload():
    transformer, inputs = tiny_transformer().bfloat16(), tiny_inputs()
    inputs = {name: x if name == "timestep" else x.bfloat16() for name, x in inputs.items()}
    expected = transformer(**inputs, parts=tiny_parts()).sample
    transformer.enable_layerwise_casting(torch.float8_e4m3fn, torch.bfloat16)
    transformer.enable_group_offload(torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1)
    assert transformer.blocks[0].part_attn.to_q.weight.dtype == torch.float8_e4m3fn
    assert transformer.blocks[0].norm_part.weight.dtype == torch.bfloat16
    recorder = FirstFrameAttention(block=1, on="own_output")
    flow = transformer(**inputs, parts=tiny_parts(), attention_recorder=recorder).sample
    assert relative_error(flow, expected) < 0.3
    assert recorder.weights.isfinite().all()


def test_compiles_its_halves_around_part_attention_once_for_all_clips():
    transformer, inputs = tiny_transformer(), tiny_inputs()
    clips = [tiny_parts(num_parts) for num_parts in (3, 2, 5, 4, 7)]
    expected = [transformer(**inputs, parts=parts).sample for parts in clips]
    torch._dynamo.reset()  # graphs of other tests' models count too
    transformer.compile_repeated_blocks(backend="eager")
    with torch._dynamo.config.patch(recompile_limit=3, fail_on_recompile_limit_hit=True):
        for parts, flow in zip(clips, expected):
            torch.testing.assert_close(transformer(**inputs, parts=parts).sample, flow, rtol=1e-5, atol=1e-5)


def test_compiled_it_records_attention():
    transformer, inputs = tiny_transformer(num_layers=1), tiny_inputs()
    eager, compiled = FirstFrameAttention(block=0), FirstFrameAttention(block=0)
    transformer(**inputs, attention_recorder=eager)
    transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
    transformer(**inputs, attention_recorder=compiled)
    torch.testing.assert_close(compiled.weights, eager.weights)


def test_two_processes_share_the_sequence():
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*command, "-m", "tests.model.context_parallel"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
