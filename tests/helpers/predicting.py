"""Runs of predict.py in this process, and what tests of it score."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from helpers.lab import SIZE, Lab, run
from PIL import Image

KINDS = ("maps", "overlays", "masks")


@dataclass(frozen=True)
class Out:
    """What predict.py left."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "scores.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    @property
    def scores(self) -> dict[str, str]:
        """By file name (and slice)."""
        return {Path(row["file"]).name + row["slice"]: row["score"] for row in self.rows}

    @property
    def settings(self) -> dict:
        return json.loads((self.folder / "settings.json").read_text())

    def picture(self, kind: str, name: str) -> np.ndarray:
        """The one picture of a kind whose name ends like this."""
        (path,) = (path for path in (self.folder / kind).iterdir() if path.name.endswith(name))
        return np.asarray(Image.open(path))

    def map(self, name: str) -> np.ndarray:
        return self.picture("maps", name) / 65535 * self.settings["maps"]["65535"]


def predict(lab: Lab, *flags: object, to: str = "out") -> Out:
    """Run predict.py without training, unless flags name a checkpoint."""
    usual = ["--device", "cpu", "--cache_path", lab.root / "cache", "--output", lab.root / to]
    if "--ckpt" not in flags:
        usual += ["--model_name", lab.config, "--clip_path", lab.weights, "--img_size", SIZE, "--prompts", lab.words]
        usual += ["--classname", "thing"]
    done = run("predict", *usual, *flags)
    return Out(done.code, done.out, done.err, lab.root / to)


def noise(path: Path, size: tuple[int, int] = (40, 30), seed: int = 0, deep: bool = False) -> Path:
    """A grey image file of noise, 8 or 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, size[::-1], np.uint8)
    Image.fromarray(values.astype(np.uint16) * 257 if deep else values).save(path)
    return path


def ckpt(lab: Lab, obj: str = "Brain") -> tuple[str, Path]:
    """The flags that name a few-shot checkpoint of `trained`."""
    return "--ckpt", lab.root / "ckpt" / f"{obj}_1-shot.pth"
