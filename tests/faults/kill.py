"""Kill a training at random moments and see that nothing is lost: python -m tests.faults.kill --kills 200

A small run is trained once without disturbance. Then it is started again and again and stopped by SIGKILL, SIGTERM or
SIGINT at a random moment, until as many kills as asked for were made; each run that survives must have left the bits
of the undisturbed one: the checkpoint's tensors and calibration, and every figure and score.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from helpers.lab import ROOT, Lab, write_clip
from torch import Tensor

from engine.run_folder import UNFINISHED
from runtime.files import DRAFT

EPOCHS = 15  # some seconds, of which most are starting and evaluating
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
NAMES = {"train_few": "Brain_1-shot", "train_zero": "Brain"}


class Kills:
    """A lab, an undisturbed run in it, and runs that are killed; `counts` says what became of the kills."""

    def __init__(self, folder: Path, script: str, seed: int) -> None:
        self.lab, self.script, self.random = Lab(folder, *write_clip(folder)), script, random.Random(seed)
        self.lab.medical(test=(4, 4))
        if script == "train_zero":
            self.lab.others()
        self.counts: Counter[str] = Counter()
        began = time.monotonic()
        process = self._start("whole")
        said = process.communicate()[1]
        assert process.returncode == 0, said.decode()
        self.seconds = time.monotonic() - began
        self.whole = self.content("whole")

    def _start(self, place: str) -> subprocess.Popen:
        """The script in a process of its own; what it writes goes below `place`, but for what all may share."""
        root = self.lab.root / place
        flags = [*self.lab.flags(self.script), "--epoch", EPOCHS, "--save_every", 1e-4]
        flags += ["--save_path", root / "ckpt", "--results_path", root / "results", "--log_dir", root / "curves"]
        return subprocess.Popen(
            [sys.executable, str(ROOT / f"{self.script}.py"), *map(str, flags)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def content(self, place: str) -> tuple[dict[str, Tensor], str, str]:
        """What must not differ: the checkpoint's tensors and calibrations, results.csv, scores.csv."""
        name, root = NAMES[self.script], self.lab.root / place
        found = torch.load(root / "ckpt" / f"{name}.pth", weights_only=True)
        kept = dict(_flat({key: part for key, part in found.items() if key not in ("record", "sha256")}))
        folder = root / "results" / self.script / name
        return kept, *((folder / f"{kind}.csv").read_text() for kind in ("results", "scores"))

    def saved(self, place: str) -> int:
        """Steps that the unfinished run has kept; 0 if there is none. Reading it also shows that it is whole."""
        files = list((self.lab.root / place / "results").rglob(UNFINISHED))
        assert len(files) <= 1, files
        return torch.load(files[0], weights_only=True)["steps"] if files else 0

    def run(self, kills: int) -> None:
        """Start runs and kill them until `kills` are made and the last run is finished."""
        place, before, number, history = "killed", 0, 0, []
        while True:
            process, how = self._start(place), self.random.choice(SIGNALS)
            try:
                wait = self.random.uniform(0.3, self.seconds) if self.counts["kills"] < kills else None
                said = process.communicate(timeout=wait)[1].decode(errors="replace")
                assert process.returncode == 0, said
                differing = _differing(self.content(place), self.whole)
                assert not differing, f"run {number}, killed {history}, differs from the undisturbed one: {differing}"
                self.counts["finished runs, same bits"] += 1
                left = [path for path in (self.lab.root / place).rglob(".*") if DRAFT.fullmatch(path.name)]
                assert not [path for path in left if path.parent.name != "ckpt"], left
                shutil.rmtree(self.lab.root / place)
                before, number, history = 0, number + 1, []
                if self.counts["kills"] >= kills:
                    return
            except subprocess.TimeoutExpired:
                process.send_signal(how)
                said = process.communicate(timeout=120)[1].decode(errors="replace")
                assert "Traceback" not in said, said
                after = self.saved(place) if (self.lab.root / place / "results").exists() else 0
                finished = (self.lab.root / place / "results" / self.script / NAMES[self.script]).exists() and any(
                    (self.lab.root / place / "results").rglob("results.json")
                )
                assert finished or after >= before, f"{before} steps were saved, and after {how.name} {after} are"
                before = 0 if finished else after
                history.append(f"{how.name} after {after} steps")
                self.counts["kills"] += 1
                self.counts[f"by {how.name}"] += 1
                self.counts["kills with something saved"] += after > 0


def _flat(part: object, name: str = "") -> list[tuple[str, object]]:
    if isinstance(part, dict):
        return [pair for key, one in part.items() for pair in _flat(one, f"{name}/{key}")]
    return [(name, part)]


def _differing(one: tuple, other: tuple) -> list[str]:
    """The names of what is not equal to the last bit."""
    (first, *tables), (second, *others) = one, other
    same = {
        name: part.equal(second[name]) if isinstance(part, Tensor) else part == second[name]
        for name, part in first.items()
        if name in second
    }
    names = [name for name in first.keys() | second.keys() if not same.get(name)]
    return names + [table.partition("\n")[0] for table, theirs in zip(tables, others, strict=True) if table != theirs]


def main() -> None:
    """Kill and count."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kill", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=111)
    args = parser.parse_args()
    for script in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            kills = Kills(Path(folder), script, args.seed)
            kills.run(args.kills // len(NAMES))
            print(script, *(f"{name}: {count}" for name, count in sorted(kills.counts.items())), sep="\n  ")


if __name__ == "__main__":
    main()
