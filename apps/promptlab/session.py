"""What the events of app.py's page do: inputs as the page has them, answers as pieces of HTML and lists of choices."""

import os
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cachetools import LRUCache

import dataset
import prompt
from apps.promptlab import fragments
from apps.promptlab.lab import Lab
from apps.promptlab.open_lab import LabSpec, found_checkpoints, found_objects, open_lab
from apps.promptlab.prompt_set import PromptSet, diff
from dataset import Sample, registry
from dataset.images import image_size
from engine import checkpoint
from engine.build import objects_of
from runtime.errors import InputError, naming
from utils import pick_device

NONE = "none: the bare trunk"
SETS = ("A", "B")
STARTS = {"A": None, "B": "base"}  # what a set starts from, as --prompts; None: what runs use
LABELS = ("normal", "abnormal")
EACH = 8  # images of either label to begin with
OPEN = 2  # labs kept open
MB = 1 << 20
MOST_PIXELS = 50_000_000  # of an upload


@dataclass(frozen=True)
class LabAnswer:
    """What the page shows of two sets of prompts."""

    figures: str
    images: str
    message: str


class LabSession:
    """The labs that are open, and a folder for what the page receives and gives."""

    def __init__(self, asked: Mapping[str, Any], folder: Path) -> None:
        self.asked, self.spec, self.folder = asked, LabSpec.of(asked), folder
        self.objects = found_objects(self.spec, asked)
        self.labs: LRUCache[tuple, Lab] = LRUCache(OPEN)
        self.lock = threading.Lock()

    def check(self) -> None:
        """Raise InputError where nothing could be shown: no such object, data, checkpoint or device."""
        pick_device(self.spec.device, self.spec.deterministic)
        if self.spec.ckpt:
            checkpoint.read(self.spec.ckpt)
        (obj,) = objects_of(replace(self.spec, obj=self.objects[0]))
        registry.locate(dataset.find(obj, self.spec.data_path, self.spec.classname), self.spec.data_path)

    def checkpoints(self, obj: str) -> list[str]:
        """What can be chosen for an object: its checkpoints, then none."""
        return [*found_checkpoints(self.spec, obj), NONE]

    def lab(self, obj: str, name: str) -> Lab:
        """The lab of an object and one of its `checkpoints`. Raises InputError as `open_lab`."""
        with self.lock:
            if obj not in self.objects:
                raise InputError(f"{obj} is not one of the objects to choose from")
            if name not in self.checkpoints(obj):
                raise InputError(f"no checkpoint {name} for {obj}; choose another one")
            path = found_checkpoints(self.spec, obj).get(name)
            key = (obj, name, path and path.stat().st_mtime_ns)
            if key not in self.labs:
                if len(self.labs) == OPEN:
                    self.labs.popitem()  # the longest unused, before another model comes into memory
                self.labs[key] = open_lab(self.asked, obj, path)
            return self.labs[key]

    def names(self, lab: Lab) -> dict[str, Sample]:
        """Test images by their paths below the folder of all of them: Ungood/img/003.png."""
        root = os.path.commonpath([sample.image.parent for sample in lab.test])
        return {sample.image.relative_to(root).as_posix(): sample for sample in lab.test}

    def chosen(self, lab: Lab, each: int) -> list[str]:
        """Names of `each` images of either label."""
        wanted = set(lab.some(max(1, int(each))))
        return [name for name, sample in self.names(lab).items() if sample in wanted]

    def start(self, lab: Lab, prompts: str | None = None) -> tuple[str, ...]:
        """The texts of a set to start from; `prompts` as --prompts."""
        start = lab.start if prompts is None else PromptSet.of(lab.info.name, prompts, lab.info.classname)
        return start.texts()

    def fewer(self, lab: Lab, images: list[str], each: int) -> list[str]:
        """A line, where the chosen images are fewer than the `each` of either label that were asked for."""
        there = {word: sum(sample.label == label for sample in lab.test) for label, word in enumerate(LABELS)}
        if min(there.values()) >= each or set(images) != set(self.chosen(lab, each)):
            return []
        return [
            f"asked for {each} of either label; there are " + " and ".join(f"{n} {word}" for word, n in there.items())
        ]

    def answer(
        self, obj: str, name: str, images: list[str], order: str, texts: tuple[str, ...], each: int = 0
    ) -> LabAnswer:
        """Both sets on the chosen images; `texts` are those of set A, then those of set B; each: as in `fewer`."""
        started = time.perf_counter()
        lab, half = self.lab(obj, name), len(texts) // 2
        known = self.names(lab)
        samples = [known[image] for image in images if image in known]
        if not samples:
            raise InputError("no test images chosen: choose at least one")
        sides = []
        for side, part in zip(SETS, (texts[:half], texts[half:]), strict=True):
            with naming(f"set {side}"):
                result = lab.predict(samples, PromptSet.typed(*part))
            sides.append(fragments.Side(side, result, lab.pulls(result)))
        figures, table = fragments.figures_table(sides), fragments.images_table(sides, order)
        said = [note for side in sides for note in side.result.words.notes]
        seconds = f"{len(samples)} images, both sets: {time.perf_counter() - started:.2f} s"
        lines = [*lab.notes, *self.fewer(lab, images, each), *dict.fromkeys(said), seconds]
        return LabAnswer(figures, table, fragments.message("note", *lines))

    def saved(self, obj: str, name: str, texts: tuple[str, ...], side: str) -> Path:
        """A JSON file of a set's sentences, for --prompts; in a folder that no other visitor's set is written to."""
        lab = self.lab(obj, name)
        path = self.folder / "saved" / secrets.token_hex(8) / f"{obj.replace('/', '_')}_{side}.json"
        prompt.write_json(path, *PromptSet.typed(*texts).sentences(lab.info.classname))
        return path

    def diff(self, obj: str, name: str, texts: tuple[str, ...]) -> str:
        """The set's edits as a diff for prompt.py."""
        lab = self.lab(obj, name)
        start = PromptSet.of(obj, "all", lab.info.classname)
        return diff(start, PromptSet.typed(*texts), obj) or "no edit: these are the words of prompt.py\n"

    def judged(self, obj: str, name: str, upload: str | None, texts: tuple[str, ...] | None, side: str = "A") -> str:
        """The verdict on an uploaded file. Raises InputError for one that is too large or no image.

        texts: of the set; None: the page has not got them yet, so those that set `side` starts from.
        """
        if upload is None:
            return ""
        path = Path(upload)
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise InputError("that file was not uploaded here")
        if not path.is_file():
            raise InputError(f"{path.name} is gone; upload it again")
        try:
            self._check(path)
            lab = self.lab(obj, name)
            texts = self.start(lab, STARTS[side]) if texts is None else texts
            return fragments.judged(lab.judge(path, PromptSet.typed(*texts)), lab.notes)
        except InputError as fault:
            raise InputError(str(fault).replace(str(path), path.name)) from fault

    def _check(self, path: Path) -> None:
        size = path.stat().st_size
        if size > self.spec.upload_mb * MB:
            raise InputError(f"{path.name} has {size / MB:.1f} MB; at most {self.spec.upload_mb:g} MB are taken")
        width, height = image_size(path)
        if width * height > MOST_PIXELS:
            most = f"{MOST_PIXELS / 1e6:g} million"
            raise InputError(f"{path.name} has {width}x{height} pixels; at most {most} are taken: shrink or crop it")
