"""The masks of parts that training gets where the model matches them itself."""

import itertools

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("webdataset")
pytest.importorskip("accelerate")

from inference_server.datasets.dataset import DatasetWriter  # noqa: E402
from inference_server.poseanything.checkpoints import load_transformer, load_vae  # noqa: E402
from inference_server.training.objective import with_matched_parts  # noqa: E402
from inference_server.training.settings import TrainingSettings  # noqa: E402
from inference_server.training.shard_batches import LatentCache, ShardBatches, no_text  # noqa: E402
from tests.benchmarks._small_model import drawn_clips, leaves_no_time_out  # noqa: E402
from tests.training.mini_clips import FROM_NOISE  # noqa: E402

CLIPS, FIRST_SEED = 8, 995_000


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Clips of the benchmark `matching`, which no training has seen."""
    folder = tmp_path_factory.mktemp("matching")
    with DatasetWriter(folder / "set", "drawn") as writer:
        for clip in itertools.islice(filter(leaves_no_time_out, drawn_clips(FIRST_SEED)), CLIPS):
            writer.add(clip)
    vae = load_vae(FROM_NOISE / "vae", torch_dtype=torch.float32)
    return LatentCache(folder / "cache", [folder / "set"], vae, torch.device("cpu"), None)


def test_most_parts_are_matched_to_their_own_strokes(cache):
    transformer = load_transformer(FROM_NOISE / "transformer", torch_dtype=torch.float32)
    batch, drawn = (
        ShardBatches(
            cache, TrainingSettings(part_masks=masks, part_dropout=0.0), (1, 1, 1), no_text(32)
        ).batch(0, CLIPS)
        for masks in ("attention", "drawn")
    )
    assert batch.parts is None
    truth = drawn.parts
    found = with_matched_parts(transformer, batch, torch.Generator().manual_seed(0)).parts
    assert torch.equal(found.first_masks, truth.first_masks)
    by_frame = (*truth.later_masks.shape[:2], batch.clean.shape[2] - 1, -1)
    wanted, found = truth.later_masks.view(by_frame), found.later_masks.view(by_frame)
    right = (wanted == found).all(-1)[wanted.any(-1)]
    assert right.float().mean() > 0.8, right.float().mean()
