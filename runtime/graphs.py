"""Calls on CUDA that are recorded once and then started whole: the host waits for no kernel, and starts one thing
instead of thousands."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

WARM = 3  # calls that run kernel by kernel first, while libraries set themselves up
TOLD_TWICE = ".*capturable=True.*"  # what PyTorch warns of while an optimizer that will be recorded is not yet


class Recorded:
    """A call of tensors of the same shapes on one device, which must read and write the same memory every time but for
    what it is given, make nobody wait, and draw nothing at random; it gives one tensor.

    What it is given is copied to where it lay when the call was recorded. pool: the memory that recordings share which
    are never started at the same time (`torch.cuda.graph_pool_handle`).
    """

    def __init__(self, device: torch.device, pool: tuple[int, int]) -> None:
        self.device, self.pool, self.calls = device, pool, 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.stream = torch.cuda.Stream(device)

    def __call__(self, call: Callable[..., Tensor], *given: Tensor | None) -> Tensor:
        """What `call`, always the same one, gives for these tensors."""
        self.calls += 1
        if self.calls <= WARM:
            return self._beside(call, given)
        if self.graph is None:
            self._record(call, given)
        for place, value in zip(self.places, given, strict=True):
            if place is not None:
                place.copy_(value, non_blocking=True)
        self.graph.replay()
        return self.found.clone()

    def _beside(self, call: Callable[..., Tensor], given: tuple[Tensor | None, ...]) -> Tensor:
        """The call on another stream than the usual one, as PyTorch wants it before a recording."""
        usual = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(usual)
        with torch.cuda.stream(self.stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", TOLD_TWICE)
            found = call(*given)
        usual.wait_stream(self.stream)
        found.record_stream(usual)
        return found

    def _record(self, call: Callable[..., Tensor], given: tuple[Tensor | None, ...]) -> None:
        self.places = tuple(None if value is None else torch.empty_like(value) for value in given)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device), torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            self.found = call(*self.places)
        self.graph = graph  # now that it is whole
