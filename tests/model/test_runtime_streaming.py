"""Blocks that stream: what they compute, what of the host and the device they hold, and how they recover."""

from __future__ import annotations

import pytest
import torch
from diffusers import FirstBlockCacheConfig
from torch import nn

from inference_server.poseanything.compat.diffusers import replace_forward
from inference_server.poseanything.runtime.acceleration import compile_blocks
from inference_server.poseanything.runtime.streaming import PINNED_SLOTS, BlockStream
from inference_server.poseanything.sampling.caching import cached
from tests.model.tiny_transformer import CONFIG, tiny_inputs, tiny_parts, tiny_transformer

CPU = torch.device("cpu")


class Layers(nn.Module):
    """Layers of different sizes, one of which is run twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(8, 8, bias=index != 1) for index in range(4))
        self.layers[2].register_buffer("offset", torch.randn(8))
        self.runs = (0, 1, 2, 3, 1)

    def forward(self, hidden_states):
        for index in self.runs:
            hidden_states = self.layers[index](hidden_states)
        return hidden_states


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def on_device(stream: BlockStream) -> int:
    return sum(slot.memory.nbytes for slot in stream._slots)


@torch.no_grad()
@pytest.mark.parametrize("pin", [True, False])
@pytest.mark.parametrize("runs", [(0, 1, 2, 3), (0, 1, 2, 3, 1), (3, 0, 0, 2), (1,)])
def test_any_order_computes_what_resident_layers_do(pin, runs):
    model, resident, inputs = Layers(), Layers(), torch.randn(5, 8)
    model.runs = resident.runs = runs
    kept = weights(model)
    stream = BlockStream(model.layers, CPU, pin)
    for _ in range(3):
        assert torch.equal(model(inputs), resident(inputs))
        assert len(stream._slots) <= (PINNED_SLOTS if pin else 1)
        assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())
    stream.park()
    assert on_device(stream) == 0
    assert torch.equal(model(inputs), resident(inputs))


def test_the_host_holds_the_blocks_once_and_hardly_a_byte_more():
    model = tiny_transformer()
    wanted = sum(tensor.nbytes for tensor in [*model.blocks.parameters(), *model.blocks.buffers()])
    tensors = len([*model.blocks.parameters(), *model.blocks.buffers()])
    stream = BlockStream(model.blocks, CPU, pin=True)
    assert wanted <= stream.host_bytes <= wanted + 256 * tensors
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in model.blocks.parameters()
    }
    assert len(storages) == len(model.blocks)
    assert sum(storage.nbytes() for storage in storages.values()) == stream.host_bytes


@torch.no_grad()
def test_a_file_mapped_into_memory_is_not_read_into_it():
    model = Layers()
    homes = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    stream = BlockStream(model.layers, CPU, pin=False)
    model.runs = (0, 1, 2, 3)
    model(torch.randn(1, 8))
    assert homes == {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    assert stream.host_bytes == 0 and on_device(stream) == 0  # given back with the last block


@torch.no_grad()
@pytest.mark.parametrize("pin", [True, False])
def test_a_forward_that_ends_in_its_middle_leaves_the_weights_as_they_were(pin):
    model, resident, inputs = Layers(), Layers(), torch.randn(5, 8)
    kept = weights(model)
    stream = BlockStream(model.layers, CPU, pin)
    real = []

    def fail(hidden_states):
        raise KeyboardInterrupt

    replace_forward(model.layers[2], lambda forward: real.append(forward) or fail)
    with pytest.raises(KeyboardInterrupt):
        model(inputs)
    replace_forward(model.layers[2], lambda forward: real[0])
    assert torch.equal(model(inputs), resident(inputs))  # another begins at once
    stream.park()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())


@torch.no_grad()
def test_blocks_that_a_cache_leaves_out_are_not_sent_for():
    model = tiny_transformer()
    stream = BlockStream(model.blocks, CPU, pin=True)
    sent = []
    send = stream._send
    stream._send = lambda index: sent.append(index) or send(index)
    inputs = tiny_inputs()
    with cached(model, FirstBlockCacheConfig(threshold=1e9)), model.cache_context("subject"):
        first = model(**inputs).sample
        assert sent[: CONFIG["num_layers"]] == list(range(CONFIG["num_layers"]))
        sent.clear()
        again = model(**inputs).sample
    assert len(sent) <= 2 and again.shape == first.shape  # the first block, and at most its follower


@torch.no_grad()
def test_compiled_blocks_stream():
    model, resident = tiny_transformer(), tiny_transformer()
    BlockStream(model.blocks, CPU, pin=True)
    compile_blocks(model, backend="eager", fullgraph=True)  # streaming within would break the graph
    for parts in (None, tiny_parts()):
        inputs = tiny_inputs() | {"parts": parts}
        torch.testing.assert_close(model(**inputs).sample, resident(**inputs).sample)
