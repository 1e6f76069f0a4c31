"""What only a CUDA card can show: it computes what a processor does in float32, wherever the weights lie.

Without a card the tests are skipped by name. With POSEANYTHING_REHEARSAL set they run on the processor
instead, so that they are known to be sound before a card is at hand.
"""

from __future__ import annotations

import dataclasses
import gc
import weakref
from unittest import mock

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from inference_server.poseanything.models import part_aware_attention  # noqa: E402
from inference_server.poseanything.models.part_tokens import PartTokens  # noqa: E402
from inference_server.poseanything.models.streaming_vae import Images, decode_frames, encode_frames  # noqa: E402
from inference_server.poseanything.models.transformer import (  # noqa: E402
    FirstFrameAttention,
    PoseAnythingTransformer3DModel,
)
from inference_server.poseanything.runtime.acceleration import (  # noqa: E402
    compile_blocks,
    set_attention_backend,
)
from inference_server.poseanything.runtime.card import Card  # noqa: E402
from inference_server.poseanything.runtime.placement import MemoryPlan, Rung  # noqa: E402
from inference_server.poseanything.runtime.requirements import Shape  # noqa: E402
from inference_server.poseanything.sampling.decoding import ClipDecoder, Frames  # noqa: E402
from inference_server.poseanything.sampling.options import Settings  # noqa: E402
from tests.benchmarks._random_weights import TOY, filled, random_runner  # noqa: E402
from tests.model.tiny_pipeline import tiny_clip, tiny_pipeline, tiny_vae  # noqa: E402

pytestmark = pytest.mark.gpu

CARD = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
HALF = torch.bfloat16
TEXT_DIM, CHANNELS = 64, 48
GRID = (5, 6, 8)  # latent frames, tokens down and across
SMALL = dataclasses.replace(
    TOY,
    transformer={
        "num_attention_heads": 2,
        "attention_head_dim": 128,
        "ffn_dim": 512,
        "num_layers": 4,
        "text_dim": TEXT_DIM,
    },
)


def relative_error(one: torch.Tensor, other: torch.Tensor) -> float:
    one, other = one.double().cpu(), other.double().cpu()
    return float((one - other).norm() / other.norm())


def random_masks(frames: int, parts: int, height: int, width: int) -> torch.Tensor:
    """bool [F, P, h, w]: overlapping parts, one of a single token, one that frame 0 hides, one that later
    frames do."""
    masks = torch.rand(frames, parts, height, width, generator=torch.Generator().manual_seed(2)) < 0.3
    masks[0, 0] = False
    masks[0, 0, 1, 1] = True
    masks[0, 1] = False
    masks[1:, 2] = False
    return masks


def small_transformer(device, dtype, **options) -> PoseAnythingTransformer3DModel:
    """The same random weights every time, whatever they are kept in."""
    torch.manual_seed(0)
    return filled(SMALL.open_transformer(), device, dtype, torch.device("cpu"), **options)


def predict(model, device=CARD, parts: bool = True, recorder: FirstFrameAttention | None = None):
    frames, height, width = GRID
    generator = torch.Generator().manual_seed(1)
    shape = (2, 1, CHANNELS, frames, 2 * height, 2 * width)
    video, pose = torch.randn(shape, generator=generator).to(device, model.dtype)
    text = torch.randn(1, 32, TEXT_DIM, generator=generator).to(device, model.dtype)
    timestep = torch.full((1, frames), 980.0, device=device, dtype=model.dtype)
    timestep[:, 0] = 0
    masks = random_masks(frames, 4, height, width)
    tokens = PartTokens.from_masks(masks[0], masks[1:]).to(device) if parts else None
    with torch.no_grad():
        return model(video, timestep, text, pose, tokens, recorder, return_dict=False)[0]


def placed(transformer: str, quantization=None):
    """The plan of the card with the transformer kept otherwise."""
    rung = Rung("all" if transformer == "resident" else "none", transformer, quantization, dtype=HALF)
    blocks = TOY.sizes.blocks if transformer == "resident" else 0
    return MemoryPlan(Card.of(CARD), TOY.sizes, Shape(64, 64, 5), rung, resident_blocks=blocks)


@pytest.fixture
def native():
    """diffusers keeps the backend for the whole process."""
    yield
    set_attention_backend(small_transformer("cpu", torch.float32), "native")


@torch.no_grad()
@pytest.mark.parametrize("empty", ["shared", "excluded"])
def test_the_ragged_kernel_gives_what_padded_parts_and_float32_give(empty):
    torch.manual_seed(0)
    attention = part_aware_attention.PartAwareCrossAttention(256, 2, 128, 1e-6, empty)
    masks = random_masks(6, 5, 9, 11)
    hidden_states = torch.randn(2, 6 * 9 * 11, 256)
    parts = PartTokens.from_masks(masks[0], masks[1:], batch_size=2)
    wanted = attention(*parts.gather(hidden_states), parts)

    attention, parts = attention.to(CARD, HALF), parts.to(CARD)
    tokens, first = parts.gather(hidden_states.to(CARD, HALF))
    ragged = attention.processor._has_ragged_kernel(tokens.unflatten(-1, (2, 128)))
    assert ragged == (CARD.type == "cuda" and torch.cuda.get_device_capability(CARD) >= (8, 0))
    one = attention(tokens, first, parts)
    with mock.patch.object(
        part_aware_attention.PartAttnProcessor, "_has_ragged_kernel", lambda self, query: False
    ):
        other = attention(tokens, first, parts)
    for name, given in (("ragged", one), ("padded", other)):
        for found, reference in zip(given, wanted):
            if reference is not None:
                assert relative_error(found, reference) < 1e-2, name


@pytest.mark.parametrize(
    "backend", ["native", "_native_flash", "_native_cudnn", "_native_efficient", "_native_math"]
)
def test_a_bfloat16_model_on_the_card_computes_what_float32_does_on_the_processor(backend, native):
    rows = random_masks(GRID[0], 4, *GRID[1:])[0].any(0).flatten().nonzero().squeeze(1)
    recorders = [FirstFrameAttention(2, rows) for _ in range(2)]
    wanted = predict(small_transformer("cpu", torch.float32), torch.device("cpu"), recorder=recorders[0])
    model = small_transformer(CARD, HALF)
    if CARD.type == "cuda" or backend == "native":
        set_attention_backend(model, backend)
    found = predict(model, recorder=recorders[1])
    assert found.dtype == HALF and found.isfinite().all()
    assert relative_error(found, wanted) < 3e-2
    assert relative_error(recorders[1].weights, recorders[0].weights) < 3e-2
    assert relative_error(predict(model, parts=False), wanted) > 3e-2  # the parts matter


@pytest.mark.parametrize("quantization", [None, "fp8"])
def test_streaming_computes_what_resident_weights_do(quantization):
    plan = placed("streamed", quantization)
    wanted = predict(small_transformer(CARD, HALF, quantization=quantization))
    options = plan.load_options("transformer")
    model = small_transformer(options["device"], HALF, quantization=quantization)
    plan.apply({"transformer": model})
    for _ in range(3):  # the order of blocks is learnt in the first
        assert torch.equal(predict(model), wanted)
    assert torch.equal(predict(model, parts=False), predict(model, parts=False))


def test_float8_stays_near_bfloat16():
    rounded = predict(small_transformer(CARD, HALF, quantization="fp8"))
    assert relative_error(rounded, predict(small_transformer(CARD, HALF))) < 0.1


def test_the_streamed_text_encoder_reads_what_the_resident_one_does():
    ids = torch.tensor([[5, 9, 3, 1]], device=CARD)
    outputs = []
    for place in ("resident", "streamed"):
        plan = placed(place)
        torch.manual_seed(0)
        source = torch.device("cpu")
        encoder = filled(TOY.open_text_encoder(), plan.load_options("text_encoder")["device"], HALF, source)
        plan.apply({"text_encoder": encoder})
        with torch.no_grad():
            outputs += [encoder(ids).last_hidden_state for _ in range(2)]
    assert all(torch.equal(output, outputs[0]) for output in outputs[1:])


@torch.no_grad()
@pytest.mark.parametrize("tiling", [False, True])
def test_the_vae_on_the_card_makes_the_frames_of_the_processor(tiling):
    latents = torch.randn(1, CHANNELS, 2, 6, 7, generator=torch.Generator().manual_seed(3))
    vae = tiny_vae()
    if tiling:
        vae.enable_tiling(64, 64, 48, 48)
    wanted = torch.cat(list(decode_frames(vae, latents)), dim=2)
    video = wanted.clamp(-1, 1)
    encoded = torch.cat(list(encode_frames(vae, video)), dim=2)
    for dtype, tolerance in ((torch.float32, 2e-2), (HALF, 1e-1)):
        vae = vae.to(CARD, dtype)
        found = torch.cat(list(decode_frames(vae, latents.to(CARD))), dim=2)
        assert relative_error(found, wanted) < tolerance, dtype
        frames = np.concatenate([part.images for part in ClipDecoder(vae).decode(latents.to(CARD))], axis=1)
        assert np.array_equal(frames, Images(found).array())
        found = torch.cat(list(encode_frames(vae, video.to(CARD))), dim=2)
        assert relative_error(found, encoded) < tolerance, dtype


def test_compiled_blocks_compute_what_eager_ones_do():
    model = small_transformer(CARD, HALF)
    eager = [predict(model, parts=parts) for parts in (False, True)]
    compile_blocks(model, **{} if CARD.type == "cuda" else {"backend": "eager"})
    for parts, wanted in zip((False, True), eager):
        assert relative_error(predict(model, parts=parts), wanted) < 2e-2


def card_pipeline():
    """Resident on the card, in bfloat16."""
    pipeline = tiny_pipeline(vae=tiny_vae())
    pipeline.transformer.to(HALF)
    pipeline.vae.to(HALF)
    for module in (pipeline.transformer, pipeline.vae, pipeline.text_encoder):
        module.to(CARD)
    return pipeline


def frames(pipeline, clip, **options) -> np.ndarray:
    settings = Settings(num_inference_steps=3)
    events = pipeline.stream(clip, [7], settings=settings, window_frames=9, **options)
    return np.concatenate([event.images for event in events if isinstance(event, Frames)], axis=1)[0]


def test_a_seed_gives_the_same_frames_every_time():
    pipeline, clip = card_pipeline(), tiny_clip(17)
    made = frames(pipeline, clip)
    assert made.shape[0] == 17 and made.std() > 1
    assert np.array_equal(frames(pipeline, clip), made)


class Cancelled(Exception):
    pass


def test_cancelling_ends_a_clip_and_the_next_is_as_if_it_had_not_been():
    pipeline, clip, looks, cancel_at = card_pipeline(), tiny_clip(9), 0, 0

    def check():
        nonlocal looks
        looks += 1
        if looks == cancel_at:
            raise Cancelled

    wanted = frames(pipeline, clip, check=check)
    for share in (0.1, 0.5, 0.9):  # while encoding, denoising and decoding
        cancel_at, looks, all_looks = round(share * looks), 0, looks
        with pytest.raises(Cancelled):
            frames(pipeline, clip, check=check)
        cancel_at, looks = 0, all_looks
        pipeline.register_modules(vae=tiny_vae().to(CARD, HALF))  # whose latents are not kept yet
    assert np.array_equal(frames(pipeline, clip), wanted)


def test_nothing_of_a_model_stays_on_the_card_once_it_is_let_go(tmp_path):
    from tests.benchmarks._card_jobs import job, play

    def held() -> int:
        gc.collect()
        return torch.cuda.memory_allocated() if CARD.type == "cuda" else 0

    before = held()
    with random_runner(TOY, CARD, tmp_path) as runner:
        play(runner, job(64, 64, 5, steps=2))
        transformer = weakref.ref(runner.pipeline.transformer)
        runner._forget()
        assert transformer() is None
    del runner
    assert held() <= before + 2**20
