"""The adapters' weights averaged over the last epochs."""

from typing import TypeAlias

import torch
from torch import Tensor

Adapters: TypeAlias = dict[str, dict[str, Tensor]]  # as `MDecoder.adapter_state` gives them


class WeightAverage:
    """The mean of the weights after the last `count` epochs (Izmailov et al., "Averaging weights leads to wider optima
    and better generalization", UAI 2018); of one epoch there is none to take."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.states: list[Adapters] = []

    def add(self, state: Adapters) -> None:
        """After an epoch."""
        self.states = [*self.states, state][-self.count :] if self.count > 1 else []

    def value(self) -> Adapters | None:
        """The mean; None where nothing is averaged."""
        if not self.states:
            return None
        return {
            head: {name: torch.stack([one[head][name] for one in self.states]).mean(dim=0) for name in adapters}
            for head, adapters in self.states[0].items()
        }
