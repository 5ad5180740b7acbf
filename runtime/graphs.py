"""Calls on CUDA that are recorded once and then started whole: the host waits for no kernel, and starts one thing
instead of thousands."""

from collections.abc import Callable

import torch
from torch import Tensor

WARM = 3  # calls that run kernel by kernel first, while libraries set themselves up


class Recorded:
    """A call of tensors of the same shapes, which must read and write the same memory every time but for what it is
    given, make nobody wait, and draw nothing at random; it gives one tensor.

    What it is given is copied to where it lay when the call was recorded.
    """

    def __init__(self, call: Callable[..., Tensor]) -> None:
        self.call, self.calls = call, 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.stream = torch.cuda.Stream()

    def __call__(self, *given: Tensor | None) -> Tensor:
        self.calls += 1
        if self.calls <= WARM:
            return self._beside(given)
        if self.graph is None:
            self._record(given)
        for place, value in zip(self.places, given, strict=True):
            if place is not None:
                place.copy_(value, non_blocking=True)
        self.graph.replay()
        return self.found.clone()

    def _beside(self, given: tuple[Tensor | None, ...]) -> Tensor:
        """The call on another stream than the usual one, as PyTorch wants it before a recording."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            found = self.call(*given)
        torch.cuda.current_stream().wait_stream(self.stream)
        found.record_stream(torch.cuda.current_stream())
        return found

    def _record(self, given: tuple[Tensor | None, ...]) -> None:
        self.places = tuple(None if value is None else torch.empty_like(value) for value in given)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.found = self.call(*self.places)
