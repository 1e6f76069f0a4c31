"""Cards that can't be used, and errors of CUDA's: a sentence for each, with what to do."""

from __future__ import annotations

import pytest
import torch

from inference_server.poseanything.runtime.card import (
    GIB,
    Card,
    DeviceError,
    container_memory,
    default_device,
    explain,
    is_device_fault,
    require_capability,
)
from inference_server.poseanything.runtime.out_of_memory import is_out_of_memory, where_memory_ran_out

OLD_DRIVER = RuntimeError(
    "The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver by"
    " downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)
NO_DRIVER = RuntimeError("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU")
NO_CARD = RuntimeError("No CUDA GPUs are available")
TAKEN = RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable")


def raises(error: Exception):
    def initialize():
        raise error

    return initialize


@pytest.fixture
def cuda_build(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")


@pytest.mark.parametrize("error", [NO_DRIVER, NO_CARD])
def test_a_machine_without_a_card_computes_on_the_processor(cuda_build, error):
    assert default_device(raises(error)) == torch.device("cpu")


def test_a_card_that_works_is_taken(cuda_build):
    assert default_device(lambda: None) == torch.device("cuda")


def test_a_build_without_cuda_computes_on_the_processor(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert default_device(raises(AssertionError("not asked"))) == torch.device("cpu")


@pytest.mark.parametrize(
    "error, what, remedy",
    [
        (OLD_DRIVER, "driver is older than this PyTorch needs", "update the driver"),
        (TAKEN, "Another program has taken the card", "close it"),
    ],
)
def test_a_card_that_can_not_be_used_is_never_passed_over_in_silence(cuda_build, error, what, remedy):
    """The processor would take hours for what the user expects in seconds."""
    with pytest.raises(DeviceError, match=f"{what}.*{remedy}") as caught:
        default_device(raises(error))
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize(
    "capability, architectures, fits",
    [
        ((9, 0), ["sm_75", "sm_80", "sm_90"], True),
        ((8, 9), ["sm_75", "sm_80", "sm_90"], True),
        ((12, 0), ["sm_75", "sm_90", "compute_90"], True),  # compiled when first used
        ((7, 0), ["sm_75", "sm_80"], False),
        ((6, 1), ["sm_75", "sm_100a", "sm_120"], False),
        ((9, 0), [], True),
    ],
)
def test_a_card_older_than_the_build_is_told(capability, architectures, fits):
    if fits:
        require_capability("a card", capability, architectures)
        return
    with pytest.raises(DeviceError, match=r"too old for this PyTorch, which needs 7\.5 or newer; use"):
        require_capability("a card", capability, architectures)


@pytest.mark.parametrize(
    "said, what",
    [
        ("CUDA error: no kernel image is available for execution on the device", "not built for this card"),
        ("CUDA error: uncorrectable ECC error encountered", "memory is faulty"),
        ("CUDA error: unspecified launch failure\nmore lines", "stopped answering"),
        ("CUDA error: device-side assert triggered", "The card failed"),
    ],
)
def test_an_error_of_cudas_is_one_sentence(said, what):
    sentence = explain(RuntimeError(said))
    assert what in sentence and said.partition("\n")[0] in sentence
    assert "\n" not in sentence and "; " in sentence and sentence.endswith(".")


@pytest.mark.parametrize(
    "error, card_failed, memory",
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True, None),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True, None),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False, None),
        (ValueError("CUDA error, says a file"), False, None),
        (RuntimeError("CUDA error: out of memory"), True, "card"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True, "card"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), False, "card"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), False, "host"),
        (MemoryError(), False, "host"),
    ],
)
def test_faults_of_the_card_and_want_of_memory_are_told_apart(error, card_failed, memory):
    assert is_device_fault(error) == card_failed
    assert is_out_of_memory(error) == (memory is not None)
    if memory is not None:
        assert where_memory_ran_out(error) == memory


def test_what_others_hold_of_a_card_is_what_is_neither_free_nor_ours():
    card = Card("a card", torch.device("cuda"), 10 * GIB, 32 * GIB, True, 24 * GIB)
    assert card.others_bytes == 14 * GIB


def test_a_probe_that_fails_is_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: raises(TAKEN)())
    with pytest.raises(DeviceError, match="Another program has taken the card"):
        Card.of("cuda")


@pytest.mark.parametrize(
    "files, free_and_total",
    [
        (
            {
                "memory.max": "8589934592\n",
                "memory.current": "3221225472\n",
                "memory.stat": "anon 1\ninactive_file 1073741824\n",
            },
            (6 * GIB, 8 * GIB),
        ),
        ({"memory.max": "max\n", "memory.current": "5\n", "memory.stat": ""}, None),
        (
            {
                "memory/memory.limit_in_bytes": "4294967296",
                "memory/memory.usage_in_bytes": "1073741824",
                "memory/memory.stat": "cache 3",
            },
            (3 * GIB, 4 * GIB),
        ),
        ({}, None),
    ],
)
def test_a_containers_limit_is_the_hosts_memory(tmp_path, files, free_and_total, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert container_memory(tmp_path) == free_and_total
    if free_and_total is not None:
        monkeypatch.setattr("inference_server.poseanything.runtime.card.container_memory", lambda: (5, 7))
        assert Card.of("cpu").host_bytes == 5 and Card.of("cpu", held_bytes=100).host_bytes == 7
