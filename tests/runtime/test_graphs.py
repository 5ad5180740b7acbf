"""Recorded calls, on a mock of CUDA: a recording that is started again does what the call does, at the same places."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from runtime.graphs import WARM, Recorded


class Stream:
    """One that has nothing to wait for."""

    def wait_stream(self, other: object) -> None:
        assert isinstance(other, Stream)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done with a mock of CUDA: a graph that is replayed calls anew, and writes where the first wrote."""
    done = []

    class Graph:
        recorded: Recorded

        def replay(self) -> None:
            done.append("replayed")
            self.recorded.found.copy_(self.recorded.call(*self.recorded.places))

    class Recording:
        def __init__(self, graph: Graph) -> None:
            done.append("recorded")

        __enter__ = __exit__ = lambda *_: None

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", Recording)
    monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: None)
    return done


def test_it_gives_what_the_call_gives(cuda):
    total = torch.zeros(3)

    class Mocked(Recorded):
        def _record(self, given: tuple) -> None:
            kept = total.clone()
            super()._record(given)
            total.copy_(kept)  # on CUDA nothing is computed while it is recorded
            self.graph.recorded = self

    def call(values: Tensor, nothing: None) -> Tensor:
        assert nothing is None
        return total.add_(values).clone()

    recorded = Mocked(call)
    found = [recorded(torch.full((3,), float(number)), None) for number in range(WARM + 3)]
    assert [one.tolist() for one in found] == [[value] * 3 for value in (0, 1, 3, 6, 10, 15)]
    assert cuda == ["recorded", "replayed", "replayed", "replayed"]


def test_what_was_given_can_be_overwritten(cuda):
    recorded = Recorded(lambda values: values * 2)
    for _ in range(WARM):
        recorded(torch.ones(2))
    given = torch.ones(2)
    recorded._record((given,))
    assert recorded.places[0].data_ptr() != given.data_ptr()
