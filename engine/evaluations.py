"""When training scores the test set."""

import math
from dataclasses import dataclass

ROUNDING = 1e-9  # of fractions of an epoch


@dataclass(frozen=True)
class Evaluations:
    """When training scores the test set to choose `best`, as the published script of either protocol has it.

    every: epochs, or a fraction of one; 0: never.
    ahead: before the steps of each such part of training, the first time before any step; else after them.
    later: of equal scores the later one is kept; else the first.
    """

    every: float
    ahead: bool = False
    later: bool = False

    def plan(self, epochs: int, steps: int) -> dict[int, float]:
        """Steps done -> epochs done, of every evaluation of `epochs` epochs of `steps` steps each.

        Evaluations less than a step apart fall together, on the earliest of them.
        """
        if not self.every:
            return {}
        parts = math.ceil(epochs / self.every - ROUNDING) if self.ahead else math.floor(epochs / self.every + ROUNDING)
        times = [round((part + (not self.ahead)) * self.every, 6) for part in range(parts)]
        return {math.floor(time * steps + ROUNDING): time for time in reversed(times)}
