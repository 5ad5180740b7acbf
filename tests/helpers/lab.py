"""Runs of the four scripts in this process, on a tiny CLIP with random weights and small trees of noise."""

import io
import json
import re
import runpy
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from helpers import trees
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

import CLIP
from engine import checkpoint
from scoring import evaluation
from scoring.raw_scores import RawScores

ROOT = Path(__file__).parents[2]
SIZE = 64
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": SIZE, "layers": 4, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PROMPTS = {
    "normal": {"prompts": ["a flawless {classname}", "a healthy {classname}"]},
    "abnormal": {"prompts": ["a damaged {classname}", "a {classname} with a lesion"]},
}
MASKS = {
    "anomaly_mask",
    "label",
    "val_label",
    "test_label",
    "ground_truth",
    "Masks",
}  # folders whose files `paint` leaves alone
BAR = re.compile(r"(training|epoch|folds|scoring|pictures|demo data|report): ")


def write_clip(folder: Path, seed: int = 0, layers: int = 4) -> tuple[Path, Path]:
    """A tiny model's config JSON and its random weights."""
    config, weights = folder / f"tiny-{layers}.json", folder / f"tiny-{layers}-{seed}.safetensors"
    config.write_text(json.dumps(CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | {"layers": layers}}))
    torch.manual_seed(seed)
    save_file(CLIP.load_clip(config).state_dict(), weights)
    return config, weights


def paint(root: Path) -> Path:
    """Give every image of a tree noise of its own, told by its path below `root`; abnormal ones are brighter."""
    for path in sorted(root.rglob("*.*")):
        inside = path.relative_to(root)
        if path.suffix == ".csv" or MASKS.intersection(inside.parts):
            continue
        with Image.open(path) as image:
            width, height = image.size
        rng = np.random.default_rng(zlib.crc32(inside.as_posix().encode()))
        noise = rng.integers(0, 200, (height, width, 3), np.uint8)
        if not {"good", "ok", "Normal"}.intersection(inside.parts):
            noise[: height // 2, : width // 2] += 55
        Image.fromarray(noise).save(path)
    return root


@dataclass(frozen=True)
class Run:
    """What a run left behind beside its files; `seen` are the test images' raw scores, an item an evaluation."""

    code: int
    out: str
    err: str
    seen: list[RawScores]

    @property
    def complaints(self) -> list[str]:
        """The lines on stderr that are no progress bars."""
        lines = re.split(r"[\r\n]+", self.err.replace("\x1b[A", ""))  # "one line up", of a bar within a bar
        return [line for line in lines if line.strip() and not (BAR.match(line) and "error:" not in line)]


@dataclass(frozen=True)
class Lab:
    """A folder with data, a model and prompts, where scripts are run."""

    root: Path
    config: Path
    weights: Path

    def __post_init__(self) -> None:
        self.words.write_text(json.dumps(PROMPTS))

    @property
    def words(self) -> Path:
        """The file for --prompts."""
        return self.root / "words.json"

    @property
    def data(self) -> Path:
        """The folder for --data_path."""
        return self.root / "data"

    def medical(self, obj: str = "Brain", **options: object) -> Path:
        """An object in the medical layout; options as `trees.medical`."""
        return paint(trees.medical(self.data / f"{obj}_AD", **options))

    def others(self) -> None:
        """Two small objects for transfer, one with masks and one without."""
        self.medical("Liver", test=(2, 2))
        self.medical("Histopathology", masks=None, test=(2, 2))

    def mvtec(self, name: str) -> Path:
        """An object in the layout of MVTec AD."""
        return paint(trees.mvtec(self.data / name))

    def flags(self, script: str, *, bare: bool = False) -> list[object]:
        """What keeps a run small and inside this folder. bare: a test script that recalls nothing needs the model's."""
        flags = ["--device", "cpu", "--save_path", self.root / "ckpt", "--results_path", self.root / "results"]
        flags += ["--cache_path", self.root / "cache"]
        if bare or script.startswith("train"):
            flags += ["--model_name", self.config, "--clip_path", self.weights, "--img_size", SIZE]
            flags += ["--data_path", self.data, "--prompts", self.words]
            flags += ["--shot", 1, "--iterate", -1] * script.endswith("few")
        if script.startswith("train"):
            flags += ["--epoch", 1, "--batch_size", 11, "--log_dir", self.root / "runs"]
            # One training, and not four more on folds, of which tests of their own take care.
            flags += ["--folds", 0, "--threshold_rule", "f1"] * script.endswith("few")
        return flags

    def run(self, script: str, *flags: object, bare: bool = False) -> Run:
        """Run a script with `flags` after (and so over) the usual ones."""
        shot = ["--shot", 1] if script == "test_few" and "--ckpt" not in flags and not bare else []
        return run(script, *self.flags(script, bare=bare), *shot, *flags)

    def done(self, script: str, *flags: object, bare: bool = False) -> Run:
        """Like `run`, and it must have gone well."""
        run = self.run(script, *flags, bare=bare)
        assert run.code == 0 and not run.complaints, run.err
        return run

    def results(self, name: str) -> dict:
        """results.json of a run, named like train_few/Brain_1-shot."""
        return json.loads((self.root / "results" / name / "results.json").read_text())

    def checkpoint(self, name: str = "Brain_1-shot") -> checkpoint.Checkpoint:
        """The checkpoint that training left."""
        return checkpoint.read(self.root / "ckpt" / f"{name}.pth")


def run(script: str, *flags: object) -> Run:
    """Run a script as Python does, but here."""
    out, err, seen = io.StringIO(), io.StringIO(), []
    with ExitStack() as stack:
        stack.enter_context(patch.object(sys, "argv", [f"{script}.py", *map(str, flags)]))
        stack.enter_context(watched(seen))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        stop = stack.enter_context(pytest.raises(SystemExit))
        runpy.run_path(str(ROOT / f"{script}.py"), run_name="__main__")
    return Run(stop.value.code, out.getvalue(), err.getvalue(), seen)


@contextmanager
def watched(seen: list[RawScores]) -> Iterator[None]:
    """Note what is evaluated."""

    def branch_figures(raw: RawScores, *rest: object) -> dict:
        seen.append(raw)
        return evaluation.branch_figures(raw, *rest)

    with patch("engine.run.branch_figures", branch_figures):
        yield


def files(folder: Path) -> set[str]:
    """All files below a folder, hidden ones too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def same(first: list[RawScores], second: list[RawScores]) -> bool:
    """Whether scores are equal to the last bit."""

    def tensors(seen: list[RawScores]) -> list[Tensor | None]:
        return [
            getattr(part, branch)
            for one in seen
            for part in (one.map_patches, one.mean_patches or one.map_patches)
            for branch in ("zero", "few")
        ]

    pairs = list(zip(tensors(first), tensors(second), strict=True))
    return all(a is b if a is None or b is None else a.equal(b) for a, b in pairs)
