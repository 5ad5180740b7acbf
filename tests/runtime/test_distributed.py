"""What one process does alone, and what is refused of several; two at work are in tests/engine/test_distributed.py."""

import pytest
import torch
from helpers.lab import files
from torch.nn import Parameter

from runtime import distributed
from runtime.errors import InputError


def test_alone_everything_is_ones_own():
    assert (distributed.rank(), distributed.world_size(), distributed.main_process()) == (0, 1, True)
    assert distributed.shard([3, 1, 2]) == [3, 1, 2]
    rows = torch.rand(3, 2)
    assert distributed.gather(rows, 3) is rows and distributed.gather(None, 3) is None
    parameter = Parameter(torch.ones(2))
    parameter.grad = torch.full((2,), 3.0)
    loss = torch.tensor(0.5)
    assert distributed.all_reduce([parameter], loss) is loss and parameter.grad.tolist() == [3, 3]
    with distributed.main_first():
        pass


@pytest.mark.parametrize("count", [None, "1"])
def test_one_process_is_not_refused(monkeypatch, count):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if count:
        monkeypatch.setenv("WORLD_SIZE", count)
    distributed.refuse("train_few.py")
    distributed.join()
    assert not torch.distributed.is_initialized()


def test_several_are_refused_in_one_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"^train_few\.py works as one process: start it with python, not with torch"):
        distributed.refuse("train_few.py")


def test_few_shot_training_under_torchrun_stops_before_it_begins(lab, monkeypatch):
    """Every process would write the same files."""
    lab.medical()
    before = files(lab.root)
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    refused = lab.run("train_few")
    assert refused.code == 2 and refused.out == ""
    assert refused.complaints == ["error: train_few.py works as one process: start it with python, not with torchrun"]
    assert files(lab.root) == before
