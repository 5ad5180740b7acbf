"""What the pretend device computes, refuses and counts, and that faults in the system are caught by it. Started by
test_pretend.py."""

import copy
import io
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from helpers.parts import bank_of
from pretend.device import WAITING, PretendTensor, counting
from torch import Tensor

from decoder import MDecoder
from engine.system import System
from engine.training import Trainer
from loss import adapter_loss
from scoring.baselines import linear
from scoring.memory_bank import BankLimit, MemoryBank, greedy_coreset

SIZE = 56  # sixteen patches


@pytest.fixture
def system(clip, device) -> System:
    torch.manual_seed(0)
    decoder = MDecoder(copy.deepcopy(clip), adapter="mvfa").to(device)
    return System(decoder, device, SIZE, normalisation=((0.5, 0.5, 0.5), (0.2, 0.2, 0.2)))


@pytest.fixture
def text(device) -> Tensor:
    return F.normalize(torch.randn(48, 2, generator=torch.manual_seed(0)), dim=0).to(device)


@pytest.fixture
def prefixes(system) -> Tensor:
    return system.prefix(torch.rand(2, 3, SIZE, SIZE, generator=torch.manual_seed(1)))


def test_a_tensor_goes_there_and_back(device):
    values = torch.rand(3, 4)
    there = values.to(device)
    assert isinstance(there, PretendTensor) and there.device == device and there.cpu().equal(values)
    assert (there.T @ there).cpu().equal(values.T @ values)
    values.zero_()  # a copy, and no second name for the same memory
    assert there.cpu().any()
    with torch.inference_mode():
        first, rest = there.split([1, 2])
        assert torch.cat([first, rest]).cpu().equal(there.cpu()) and not first.is_inference()


def test_views_share_memory(device):
    there = torch.zeros(3, 4, device=device)
    there[1].fill_(2)
    there[:, :1].add_(1)
    assert there.tolist() == [[1, 0, 0, 0], [3, 2, 2, 2], [1, 0, 0, 0]]


def test_it_is_saved_as_a_cpu_tensor(device):
    file = io.BytesIO()
    torch.save({"a": torch.ones(2, device=device)}, file)
    file.seek(0)
    kept = torch.load(file, weights_only=True)["a"]
    assert type(kept) is Tensor and kept.tolist() == [1, 1]


@pytest.mark.parametrize(
    "mixed",
    [
        lambda one, other: one + other,
        lambda one, other: other + one,
        lambda one, other: other @ one,
        lambda one, other: torch.cat([one, other]),
        lambda one, other: one.add_(other),
        lambda one, other: other[one.long()],
        lambda one, other: torch.where(one > 0, other, 0.0),
    ],
)
def test_two_devices_in_one_operation_are_refused(device, mixed):
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        mixed(torch.ones(3, 3, device=device), torch.ones(3, 3))


def test_numbers_and_indices_of_the_cpu_are_taken(device):
    there = torch.arange(6.0, device=device)
    assert (there * torch.tensor(2.0)).tolist() == [0, 2, 4, 6, 8, 10]
    with counting() as counts:
        assert isinstance(there[torch.tensor([4, 1])], PretendTensor)
    assert counts["copies_in"] == 1 and counts["bytes_in"] == 16 and not counts["waits"]


@pytest.mark.parametrize(
    "make",
    [
        lambda device: torch.ones(2, device=device).double(),
        lambda device: torch.zeros(2, dtype=torch.float64, device=device),
        lambda device: torch.zeros(2, dtype=torch.float64).to(device),
    ],
)
def test_doubles_are_refused(device, make):
    with pytest.raises(TypeError, match=r"has no torch\.float64"):
        make(device)


def test_cpu_generators_are_refused(device):
    with pytest.raises(RuntimeError, match="device type for generator but found 'cpu'"):
        torch.randn(2, generator=torch.Generator(), device=device)


@pytest.mark.parametrize(
    ("waiting", "name"),
    [
        (lambda there: there.sum().item(), "item"),
        (lambda there: bool(there.any()), "item"),
        (lambda there: there.cpu(), "copy to the CPU"),
        (lambda there: there.tolist(), "copy to the CPU"),
        (lambda there: torch.empty(4).copy_(there), "copy to the CPU"),
        (lambda there: there[there > 1], "boolean indexing"),
        (lambda there: there.nonzero(), "aten::nonzero"),
        (lambda there: there.unique(), "aten::_unique2"),
    ],
)
def test_what_the_host_waits_for_is_counted(device, waiting, name):
    there = torch.arange(4.0).to(device)
    with counting() as counts:
        there[there > 1] = 0.0  # a filled mask makes nobody wait
        (there * 2).relu_().sum()
        assert not counts["waits"]
        waiting(there)
    assert counts["waits"] == 1 and dict(WAITING) == {name: 1}


def test_bytes_are_counted(device):
    with counting() as counts:
        there = torch.ones(5, 2).to(device)
        there.half().cpu()
    assert dict(counts) == {"copies_in": 1, "bytes_in": 40, "copies_out": 1, "bytes_out": 20, "waits": 1}


@pytest.mark.parametrize("left", ["text", "bank", "tokens"])
def test_a_cpu_tensor_left_in_the_scoring_is_caught(system, text, prefixes, left):
    """The same call without the fault scores."""
    banks = {"seg": bank_of(system.levels([prefixes], "seg"))}
    assert system.score(prefixes, ("seg",), text, banks)["seg"].few.shape == (2, 4, 4, 4)
    if left == "text":
        text = text.cpu()
    elif left == "bank":
        banks = {"seg": MemoryBank([level.cpu() for level in banks["seg"].levels])}
    else:
        prefixes = prefixes.cpu()
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        system.score(prefixes, ("seg",), text, banks)


def test_doubles_left_on_the_device_are_caught(system, prefixes):
    levels = system.levels([prefixes], "seg")
    assert linear.features(levels).dtype == torch.float64
    left = patch.object(linear, "_patches", lambda levels: torch.stack(levels, dim=1)[:, :, 1:].double())
    with left, pytest.raises(TypeError, match=r"has no torch\.float64"):
        linear.features(levels)


def test_a_cpu_generator_left_in_the_coreset_is_caught(device):
    points, limit = torch.rand(20, 200, generator=torch.manual_seed(2)), BankLimit(5, coreset=True)
    build = ([([points[None].to(device)], 0)], 1, limit, 0)
    assert len(MemoryBank.build(*build).levels[0]) == 5
    drawn = greedy_coreset(points, 5, torch.Generator().manual_seed(3))
    assert greedy_coreset(points.to(device), 5, torch.Generator().manual_seed(3)).cpu().equal(drawn)
    randn = torch.randn

    def on_device(*shape: int, **given: object) -> Tensor:
        return randn(*shape, **given, device=device)

    with patch("torch.randn", on_device), pytest.raises(RuntimeError, match="generator but found 'cpu'"):
        MemoryBank.build(*build)


def test_a_wait_left_in_the_step_is_counted(system, text, prefixes):
    """What on_counts.py holds at none would not be."""
    labels, masks = torch.ones(2).to(system.device), torch.ones(2, 1, SIZE, SIZE).to(system.device)
    trainer = Trainer(system, 1e-3)
    right = adapter_loss

    def wrong(*given: object) -> Tensor:
        loss = right(*given)
        assert float(loss.detach()) > 0
        return loss

    with patch("engine.training.adapter_loss", wrong), counting() as counts:
        trainer.step(prefixes, labels, masks, text)
    assert counts["waits"] == 1
