"""Rows of a made-up study, as apps.study hands them to its outputs."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from apps.study.outputs.rows import METRICS, StudyInfo

SEEDS = (111, 222, 333, 444, 555)
OBJECTS = ("Brain", "Liver", "Chest")
METHODS = ("MADFF", "MVFA", "memory bank")
GAIN = 0.05  # between a method and the next, of AUROC
NO_MASKS = ("Chest",)


def study(**changes: Any) -> StudyInfo:
    """A study's description, with what a test changes of it."""
    known = {
        "name": "made_up",
        "title": "A made-up study",
        "command": "python study.py made_up",
        "methods": METHODS,
        "reference": "MVFA",
        "objects": OBJECTS,
        "shots": (4,),
        "seeds": SEEDS,
    }
    return StudyInfo(**known | changes)


def rows(
    objects: Sequence[str] = OBJECTS,
    methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = SEEDS,
    shots: Sequence[int | None] = (4,),
    branches: Sequence[str] = ("zero", "few", "fused"),
    selections: Sequence[str] = ("last",),
    group: str = "main",
    spread: float = 0.01,
) -> list[dict[str, Any]]:
    """All runs finished; the first method is the best and those after it are worse by GAIN each.

    A method's figures at a seed share that seed's luck, of deviation `spread`, and have a tenth of it of their own.
    """
    return [
        row
        for shot in shots
        for number, obj in enumerate(objects)
        for place, method in enumerate(methods)
        for seed in seeds
        for row in _run(
            obj, method, seed, shot, 0.9 - 0.02 * (number % 7) - GAIN * place, branches, selections, group, spread
        )
    ]


def _run(
    obj: str, method: str, seed: int, shot: int | None, level: float, branches, selections, group: str, spread: float
) -> Iterator[dict[str, Any]]:
    luck = np.random.default_rng([seed, shot or 0, *obj.encode()]).normal(0, spread)
    rng = np.random.default_rng([seed, shot or 0, *obj.encode(), *method.encode()])
    base = job(obj, method, seed, shot, group) | {
        "seconds": round(float(rng.uniform(20, 40)), 2),
        "peak_memory_mb": 900.0,
    }
    base |= {"cpu": "Intel Xeon", "device": "cpu", "threads": 1, "torch": "2.14.1", "commit": "0123456789abcdef"}
    for selected in selections:
        for branch in branches:
            found = level + luck + rng.normal(0, spread / 10) + 0.02 * np.log2(shot or 1) + 0.01 * (selected == "best")
            found -= 0.03 * (branches.index(branch) < len(branches) - 1)
            metrics = {name: float(np.clip(found - 0.02 * step, 0, 1)) for step, name in enumerate(METRICS)}
            if obj in NO_MASKS:
                metrics |= {name: None for name in METRICS if name.startswith("pixel")}
            main = branch == branches[-1]
            yield base | metrics | {"branch": branch, "selected": selected, "main": main, "epoch": 2.0}


def job(obj: str, method: str, seed: int, shot: int | None, group: str = "main") -> dict[str, Any]:
    """What tells a run apart."""
    name = hashlib.sha256(f"{obj} {method} {seed} {shot} {group}".encode()).hexdigest()[:8]
    return {
        "job": name,
        "script": "train_zero" if shot is None else "train_few",
        "method": method,
        "group": group,
        "obj": obj,
        "shot": shot,
        "seed": seed,
        "features_list": [6, 12, 18, 24],
        "state": "finished",
        "reason": "",
        "folder": f"runs/{name}",
        "maps": None,
    }


def failed(obj: str, method: str, seed: int, shot: int | None = 4, state: str = "failed", reason: str = "no memory"):
    """The one row of a run that gave nothing."""
    nothing = dict.fromkeys((*METRICS, "branch", "selected", "main", "epoch", "seconds", "peak_memory_mb"))
    nothing |= dict.fromkeys(("cpu", "device", "threads", "torch", "commit", "folder"))
    return job(obj, method, seed, shot) | nothing | {"state": state, "reason": reason}
