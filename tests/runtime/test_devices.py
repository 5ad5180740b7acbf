"""What is done for CUDA alone, on mocks of it, and what leaves a device in one copy. tests/pretend/ has the rest."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from runtime import devices, distributed, environment, memory

CUDA, CPU, MPS = torch.device("cuda", 1), torch.device("cpu"), torch.device("mps")


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Copies that would be made: how, and whether from pinned memory; nothing moves."""
    made, pinned = [], set()

    def pin(self: Tensor) -> Tensor:
        copy = self.clone()
        pinned.add(copy.data_ptr())
        return copy

    def to(self: Tensor, *given: object, **how: object) -> Tensor:
        made.append((given[0], how, self.data_ptr() in pinned))
        return self

    def empty(*shape: object, pin_memory: bool = False, **how: object) -> Tensor:
        found = torch.zeros(*shape, **how)
        if pin_memory:
            pinned.add(found.data_ptr())
        return found

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    monkeypatch.setattr(Tensor, "to", to)
    monkeypatch.setattr(torch, "empty", empty)
    return made


@pytest.mark.parametrize(("device", "how", "pinned"), [(CUDA, {"non_blocking": True}, True), (MPS, {}, False)])
def test_copies_to_cuda_are_from_pinned_memory_and_go_on_meanwhile(moves, device, how, pinned):
    values = torch.arange(6.0).view(2, 3)
    assert devices.to_device(values, device).equal(values)
    assert devices.stack_on([values, 2 * values], device).equal(torch.stack([values, 2 * values]))
    assert moves == [(device, how, pinned)] * 2


def test_on_a_cpu_nothing_moves():
    values = torch.rand(3)
    assert devices.to_device(values, CPU) is values
    (same,) = devices.to_cpu([values])
    assert same is values and devices.to_cpu([]) == []


def test_the_clock_waits_for_the_device_that_is_timed(monkeypatch):
    """Which may not be the current one; the least of several times counts."""
    waited, clock = [], iter([0.0, 5.0, 10.0, 12.0, 20.0, 23.0])
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(devices.time, "perf_counter", lambda: next(clock))
    called = []
    assert devices.timed(lambda: called.append(len(waited)), CUDA, times=3) == 2
    assert waited == [CUDA] * 6 and called == [1, 3, 5]


def test_several_tensors_leave_a_device_as_one(monkeypatch):
    """Which device it is does not matter here: tensors on "meta" have no numbers, so `cpu` gives some."""
    left = []

    def cpu(self: Tensor) -> Tensor:
        left.append(tuple(self.shape))
        return torch.arange(float(self.numel()))

    monkeypatch.setattr(Tensor, "cpu", cpu)
    first, second = devices.to_cpu([torch.empty(2, 3, device="meta"), torch.empty(1, 2, 1, device="meta")])
    assert left == [(8,)]
    assert first.tolist() == [[0, 1, 2], [3, 4, 5]] and second.tolist() == [[[6], [7]]]


def test_a_gpus_name_and_memory_are_in_the_record(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU, number {device.index}")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1_234_567_890 + device.index)
    assert environment.environment(CUDA)["device"] == "a GPU, number 1"
    assert environment.environment(CPU)["device"] == "cpu"
    assert memory.peak_mb(CUDA) == 1234.6
    assert memory.peak_mb(CPU) != 1234.6


@pytest.mark.parametrize("there", [True, False])
def test_a_gpus_peak_is_forgotten_with_the_processs(monkeypatch, tmp_path, there):
    asked = []
    monkeypatch.setattr(memory, "FORGET", tmp_path / "clear_refs")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: asked.append("peak"))
    memory.forget_peak()
    assert asked == ["peak"] * there and (tmp_path / "clear_refs").read_text() == "5"


@pytest.mark.parametrize(("there", "backend"), [(True, "nccl"), (False, "gloo")])
def test_processes_of_torchrun_take_a_gpu_each(monkeypatch, there, backend):
    begun = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "set_device", begun.append)
    monkeypatch.setattr(dist, "init_process_group", begun.append)
    distributed.join()
    assert begun == [1] * there + [backend]


@pytest.mark.parametrize(("backend", "device"), [("nccl", "cuda"), ("gloo", "cpu")])
def test_processes_ask_each_other_where_their_backend_can(monkeypatch, backend, device):
    made, tensor = [], torch.tensor

    def noted(value: int, device: str) -> Tensor:
        made.append(device)
        return tensor(value)

    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_backend", lambda: backend)
    monkeypatch.setattr(dist, "all_reduce", lambda flag: flag.add_(1))
    monkeypatch.setattr(torch, "tensor", noted)
    assert distributed.anywhere(False) and made == [device]
