"""How far a training has come, in a file that it goes on from to the same bits."""

import io
import pickle
import random
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch

from CLIP.weights import DAMAGE
from decoder import MDecoder
from engine.checkpoint import Snapshot
from engine.weight_average import WeightAverage
from runtime.errors import InputError, naming
from runtime.files import atomic_write
from runtime.tensors import digest
from runtime.tensors import load as read_tensors
from scoring.raw_scores import RawScores

FORMAT = 2


@dataclass
class TrainingHistory:
    """What training has come to: the last epoch's snapshot, and the best one by the test set."""

    last: Snapshot
    last_scores: RawScores | None = None  # None: the last epoch was not evaluated, or before this process began
    best: Snapshot | None = None
    best_scores: RawScores | None = None
    best_value: float = float("-inf")

    @staticmethod
    def untrained(decoder: MDecoder) -> "TrainingHistory":
        """Where training begins, and ends if there is nothing to train."""
        return TrainingHistory(Snapshot(0, decoder.adapter_state(), None))

    def offer(self, snapshot: Snapshot, raw: RawScores, value: float, later: bool = False) -> None:
        """Keep the snapshot if it scores higher on the test set than all before it; `later`: also if as high."""
        if value > self.best_value or (later and value == self.best_value):
            self.best, self.best_scores, self.best_value = snapshot, raw, value


@dataclass
class Progress:
    """Steps taken and what they led to. Orders are drawn when an epoch begins, and nothing else is drawn in it.

    losses: of this epoch's steps so far. evaluated: whether the evaluation that is due after `steps`, if one is, is
    done. seconds: that the run had taken when it was saved. draws: the random states as this epoch began. average: of
    the last epochs' weights.
    """

    history: TrainingHistory
    draws: dict[str, Any]
    average: WeightAverage
    steps: int = 0
    losses: list[float] = field(default_factory=list)
    evaluated: bool = False
    seconds: float = 0.0

    def end_epoch(self, order: torch.Generator, decoder: MDecoder) -> None:
        """Forget this epoch's losses; the next one draws from the random states of now."""
        self.losses, self.draws = [], random_states(order)
        if self.average.count > 1:
            self.average.add(decoder.adapter_state())


def save(path: Path, progress: Progress, decoder: MDecoder, optimizers: dict[str, torch.optim.Adam]) -> None:
    """Write how far training has come."""
    history, same = progress.history, progress.history.best is progress.history.last
    content: dict[str, Any] = {
        "format": FORMAT,
        "steps": progress.steps,
        "losses": progress.losses,
        "evaluated": progress.evaluated,
        "seconds": progress.seconds,
        "draws": progress.draws,
        "adapters": decoder.adapter_state(),
        "optimizers": {head: optimizer.state_dict() for head, optimizer in optimizers.items()},
        "last": (history.last.epoch, history.last.adapters),
        "best": None if history.best is None or same else (history.best.epoch, history.best.adapters),
        "best_is_last": same,
        "averaged": progress.average.states,
        "best_value": history.best_value,
    }
    buffer = io.BytesIO()
    torch.save(content | {"sha256": digest(content)}, buffer)
    with atomic_write(path) as draft:
        draft.write_bytes(buffer.getbuffer())


def load(path: Path, decoder: MDecoder, optimizers: dict[str, torch.optim.Adam], order: torch.Generator) -> Progress:
    """Put adapters, optimisers and random states back as they were, and give how far training had come.

    Raises InputError for a file that is damaged or of another version.
    """
    with naming(f"{path} (--restart begins anew)"):
        try:
            content = read_tensors(path)
            known = content.pop("sha256")
            if content["format"] != FORMAT or digest(content) != known:
                raise ValueError("it is not what was written")
            decoder.load_adapters(content["adapters"])
            for head, optimizer in optimizers.items():
                own = optimizer.param_groups[0]["capturable"]  # of this device, and not of the one that it was saved on
                optimizer.load_state_dict(content["optimizers"][head])
                optimizer.param_groups[0]["capturable"] = own
            _restore(content["draws"], order)
            return _progress(content)
        except (pickle.UnpicklingError, *DAMAGE) as fault:
            raise InputError("the unfinished training in it is damaged or of another version") from fault


def _progress(content: dict[str, Any]) -> Progress:
    """How far the training in a file had come; ValueError, TypeError or LookupError for what none ever was."""
    last, best = (part and Snapshot(*part, None) for part in (content["last"], content["best"]))
    told = {name: content[name] for name in ("steps", "losses", "evaluated", "seconds", "draws")}
    counted = type(told["steps"]) is int and told["steps"] >= 0 and 0 <= told["seconds"] < inf
    if not counted or not isinstance(last, Snapshot) or not all(map(isfinite, told["losses"])):
        raise ValueError("its numbers are not those of a training")
    history = TrainingHistory(last, best=last if content["best_is_last"] else best, best_value=content["best_value"])
    average = WeightAverage(len(content["averaged"]))
    average.states = content["averaged"]
    return Progress(history, average=average, **told)


def random_states(order: torch.Generator) -> dict[str, Any]:
    """All random states, as plain data and tensors."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002  (what `seed_everything` seeds)
    return {
        "order": order.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def _restore(draws: dict[str, Any], order: torch.Generator) -> None:
    order.set_state(draws["order"])
    torch.set_rng_state(draws["torch"])
    if draws["cuda"]:
        torch.cuda.set_rng_state_all(draws["cuda"])
    name, keys, *rest = draws["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(draws["python"])
