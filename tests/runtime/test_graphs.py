"""Recorded calls, on a mock of CUDA: a recording that is started again does what the call does, at the same places."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from runtime.graphs import WARM, Recorded

SECOND, POOL = torch.device("cuda", 1), (0, 3)


class Stream:
    """One that has nothing to wait for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait_stream(self, other: object) -> None:
        assert other.device == self.device


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done with a mock of CUDA: a graph that is replayed calls anew, and writes where the first wrote."""
    done = []

    class Graph:
        recorded: Recorded
        call: Callable[..., Tensor]

        def replay(self) -> None:
            done.append("replayed")
            self.recorded.found.copy_(self.call(*self.recorded.places))

    class Recording:
        def __init__(self, graph: Graph, pool: tuple[int, int], stream: Stream) -> None:
            done.append(f"recorded in {pool} on {stream.device}")

        __enter__ = __exit__ = lambda *_: None

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", Recording)
    monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: None)
    return done


def test_it_gives_what_the_call_gives(cuda):
    total = torch.zeros(3)

    class Mocked(Recorded):
        def _record(self, call: Callable[..., Tensor], given: tuple) -> None:
            kept = total.clone()
            super()._record(call, given)
            total.copy_(kept)  # on CUDA nothing is computed while it is recorded
            self.graph.recorded, self.graph.call = self, call

    def call(values: Tensor, nothing: None) -> Tensor:
        assert nothing is None
        return total.add_(values).clone()

    recorded = Mocked(SECOND, POOL)
    found = [recorded(call, torch.full((3,), float(number)), None) for number in range(WARM + 3)]
    assert [one.tolist() for one in found] == [[value] * 3 for value in (0, 1, 3, 6, 10, 15)]
    assert cuda == ["recorded in (0, 3) on cuda:1", "replayed", "replayed", "replayed"]


def test_what_was_given_can_be_overwritten(cuda):
    recorded, given = Recorded(SECOND, POOL), torch.ones(2)
    recorded._record(lambda values: values * 2, (given,))
    assert recorded.places[0].data_ptr() != given.data_ptr()


def test_a_recording_that_fails_is_none(cuda):
    recorded = Recorded(SECOND, POOL)

    def call(values: Tensor) -> Tensor:
        raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        recorded._record(call, (torch.ones(2),))
    assert recorded.graph is None
