"""Runs on the pretend device beside the same runs on the CPU."""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from helpers.lab import Lab, Run, same
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from decoder import LOGIT_SCALE
from engine import text
from engine.system import System
from engine.training import Trainer
from runtime import linear
from scoring.raw_scores import RawScores
from utils import pick_device

NUMBER = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)")
NEAR = 2e-6  # cosines, of images together and one by one
REAL = 1e-3  # whatever comes out on a real device: it adds in another order, and Adam makes whole steps of that


@contextmanager
def on(device: torch.device) -> Iterator[None]:
    """Whatever --device says, models are built on this one, with products and attention by kernels that both have."""

    def picked(name: str = "auto", deterministic: bool = False) -> torch.device:
        pick_device(device.type if real(device) else "cpu", deterministic)  # for what it does beside
        return device

    with ExitStack() as stack:
        for place in ("engine.build", "apps.promptlab.session"):
            stack.enter_context(patch(f"{place}.pick_device", picked))
        if not real(device):
            stack.enter_context(linear.plain())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def real(device: torch.device) -> bool:
    """Whether it is a device that PyTorch has, and not the pretend one."""
    return device.type in ("cuda", "mps")


@contextmanager
def one_by_one() -> Iterator[None]:
    """Images and sentences go through the model one by one, as on a CPU, so that all must come out to the last bit."""
    alone = patch.object(System, "_apart", lambda self, batch: batch.split(1))
    with alone, patch.object(text, "ON_DEVICE", 1):
        yield


@contextmanager
def noted() -> Iterator[list[Tensor]]:
    """The losses of all steps meanwhile, where they are."""
    losses, step = [], Trainer.step

    def noting(self: Trainer, *given: object) -> Tensor:
        losses.append(step(self, *given))
        return losses[-1]

    with patch.object(Trainer, "step", noting):
        yield losses


@dataclass(frozen=True)
class Pair:
    """Two labs with the same data and weights: what is done in one on the CPU is done in the other on the device."""

    cpu: Lab
    other: Lab
    device: torch.device

    @staticmethod
    def of(folder: Path, tiny: tuple[Path, Path], device: torch.device) -> "Pair":
        """Both in a folder, with Brain and what it is trained on in transfer."""
        labs = []
        for name in ("cpu", "device"):
            (folder / name).mkdir(parents=True)
            lab = Lab(folder / name, *tiny)
            lab.medical(test=(3, 2))
            lab.others()
            labs.append(lab)
        return Pair(*labs, device)

    @property
    def both(self) -> Iterator[Lab]:
        """Each while its own device is used."""
        for lab, device in ((self.cpu, torch.device("cpu")), (self.other, self.device)):
            with on(device), one_by_one():
                yield lab

    def done(self, script: str, *flags: object) -> None:
        """A script in both; it went well, and losses and scores are the same to the last bit."""
        runs, losses = [], []
        for lab in self.both:
            with noted() as seen:
                runs.append(lab.done(script, *flags))
            losses.append(seen)
        assert all(one.device == self.device for one in losses[1])
        found = [[one.item() for one in seen] for seen in losses]
        limit = REAL if real(self.device) else 0
        away = max((abs(one - other) for one, other in zip(*found, strict=True)), default=0)
        cosines = apart(*(run.seen for run in runs))
        print(f"{script}: losses {away:.1e} apart, cosines {cosines:.1e}")
        assert away <= limit and runs[0].seen and cosines <= limit
        assert limit or same(runs[0].seen, runs[1].seen)

    def near(self, script: str, *flags: object) -> None:
        """A script in both, images together on the device; scores are the same to rounding."""
        runs: list[Run] = []
        for lab, device in ((self.cpu, torch.device("cpu")), (self.other, self.device)):
            with ExitStack() as stack:
                stack.enter_context(on(device))
                runs.append(lab.done(script, *flags))
        assert 0 < apart(*(run.seen for run in runs)) < NEAR


def alike(found: object, expected: object, device: torch.device) -> bool:
    """Whether what came out is the same, on a real device but for rounding; numbers in texts count as numbers."""
    if not real(device):
        return found == expected
    if isinstance(expected, str):
        parts = [NUMBER.split(one) for one in (found, expected)]
        return parts[0][::2] == parts[1][::2] and alike(*([float(one) for one in each[1::2]] for each in parts), device)
    if isinstance(expected, Mapping):
        return found.keys() == expected.keys() and all(alike(found[name], expected[name], device) for name in expected)
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(alike, found, expected, [device] * len(expected)))
    if is_dataclass(expected):
        return type(found) is type(expected) and alike(vars(found), vars(expected), device)
    if isinstance(expected, (float, Tensor, np.ndarray)):
        same = np.shape(found) == np.shape(expected)
        return same and bool(np.allclose(found, expected, rtol=0, atol=REAL, equal_nan=True))
    return found == expected


def apart(found: list[RawScores], expected: list[RawScores]) -> float:
    """How far cosines are apart at most."""
    pairs = []
    for one, other in zip(found, expected, strict=True):
        pairs += zip(values(one), values(other), strict=True)
    assert pairs and all((one is None) == (other is None) for one, other in pairs)
    return max(float((one - other).abs().max()) for one, other in pairs if other is not None)


def values(raw: RawScores) -> list[Tensor | None]:
    """All there are, logits as cosines."""
    grids = (raw.map_patches, raw.mean_patches or raw.map_patches)
    zero = [one.zero if one.zero is None else one.zero / LOGIT_SCALE for one in grids]
    return [*zero, *(one.few for one in grids), None if raw.cues is None else raw.cues.values]
