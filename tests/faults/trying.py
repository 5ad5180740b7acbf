"""A bad input, what it is tried on, and how a script took it."""

import importlib
import io
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from helpers.lab import BAR, ROOT, SIZE, Lab, write_clip
from helpers.predicting import noise

import faults
from runtime.errors import exit_code

SECONDS = 10  # after which a run hangs
KINDS = ("refused", "traceback", "hang", "silent", "unclear")
SCRIPTS = ("train_few", "test_few", "train_zero", "test_zero", "predict", "app")
MODULES = {"prompt": "apps.prompts.command", "apps.export": "apps.export.__main__", "engine.runs": "engine.runs"}
MODULES |= {f"dataset.{name}": f"dataset.{name}.__main__" for name in ("check", "convert", "demo", "download")}
MODULES |= {"apps.demo_clip": "apps.demo_clip.__main__"}
QUIET = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)  # Python shows them to nobody


@dataclass(frozen=True)
class Place:
    """What all cases share and none changes, and an empty folder for one of them."""

    lab: Lab
    here: Path


@dataclass(frozen=True)
class Case:
    """A script, flags after its usual ones, and words that its line must hold.

    @lab and @here in flags and words are the folders of the place. damage: what is done to the place first.
    """

    name: str
    script: str
    flags: tuple[str, ...]
    words: tuple[str, ...] = ()
    damage: Callable[[Place], object] | None = None


@dataclass(frozen=True)
class Taken:
    """How a case was taken: one of KINDS, and what stood on stderr or why it is unclear."""

    kind: str
    said: str


class Hang(BaseException):
    """Raised where a run has had its time."""


def tables() -> dict[str, list[Case]]:
    """The cases of every module that has some, by its name."""
    found = {}
    for one in pkgutil.iter_modules(faults.__path__):
        if not one.name.startswith(("test_", "__")):
            module = importlib.import_module(f"faults.{one.name}")
            if hasattr(module, "cases"):
                found[one.name] = list(module.cases())
    return found


def trained_lab(folder: Path) -> Lab:
    """A folder with small objects, what training left of them, and pictures of one's own."""
    lab = Lab(folder, *write_clip(folder))
    lab.medical("Brain")
    lab.others()
    lab.done("train_few", "--obj", "Brain")
    lab.done("train_zero", "--obj", "Brain", "--save_path", lab.root / "zero")
    for name, first in (("good", 0), ("new", 100)):
        for number in range(2):
            noise(lab.root / name / f"{name}{number}.png", seed=first + number)
    return lab


def usual(script: str) -> list[str]:
    """Flags with which a script runs well at a place; those of a case come after."""
    machine = ["--device", "cpu", "--cache_path", "@lab/cache"]
    model = [
        "--model_name",
        "@config",
        "--clip_path",
        "@weights",
        "--img_size",
        str(SIZE),
        "--prompts",
        "@lab/words.json",
    ]
    support = ["--shot", "1", "--iterate", "-1"]
    few, zero, data = "@lab/ckpt/Brain_1-shot.pth", "@lab/zero/Brain.pth", ["--data_path", "@lab/data"]
    results = ["--results_path", "@here/results"]
    train = [*machine, *model, *data, *results, "--epoch", "1", "--batch_size", "11", "--save_path", "@here/ckpt"]
    return {
        "train_few": [*train, *support],
        "train_zero": train,
        "test_few": [*machine, *results, "--ckpt", few],
        "test_zero": [*machine, *results, "--ckpt", zero],
        "predict": [*machine, "--ckpt", few, "--input", "@lab/new", "--output", "@here/out"],
        "predict bare": [*machine, *model, "--classname", "thing", "--input", "@lab/new", "--output", "@here/out"],
        "app": [*machine, *model, *data, "--save_path", "@lab/ckpt", "--port", "0"],
        "apps.export": [*machine, "--ckpt", few, "--onnx", "@here/out.onnx"],
        "prompt rank": ["rank", *machine, *model, *data, *support],
        "prompt show": ["show", "Brain"],
        "prompt check": ["check", "Brain"],
        "prompt generate": [
            "generate",
            "--obj",
            "Brain",
            "--modality",
            "MRI",
            "--api",
            "http://127.0.0.1:9/v1",
            "--model",
            "none",
        ],
        "engine.runs": ["--results_path", "@lab/results"],
        "dataset.check": ["@lab/data", "--obj", "Brain", "--iterate", "-1", "--workers", "1"],
        "dataset.check here": ["@here", "--obj", "Brain", "--iterate", "-1", "--workers", "1"],
        "dataset.convert": [
            "folders",
            "--source",
            "@here",
            "--csv",
            "@here/x.csv",
            "--obj",
            "Own",
            "--out",
            "@here/to",
        ],
        "dataset.demo": ["--out", "@here/demo"],
        "dataset.download": ["Brain", "--data_path", "@here/data"],
        "apps.demo_clip": ["--out", "@here/clip", "--share", "0", "--workers", "1"],
    }[script]


def told(place: Place, text: str) -> str:
    """A flag or a word with the place's folders in it."""
    names = {"@lab": place.lab.root, "@here": place.here, "@config": place.lab.config, "@weights": place.lab.weights}
    for name, path in names.items():
        text = text.replace(name, str(path))
    return text


def flags_of(case: Case, place: Place) -> list[str]:
    return [told(place, flag) for flag in (*usual(case.script), *case.flags)]


def take(case: Case, lab: Lab) -> Taken:
    """Try a case in this process, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place(lab, Path(folder) / "here")
        place.here.mkdir()
        if case.damage:
            case.damage(place)
        before = state(place)
        code, lines = started(case.script.split()[0], flags_of(case, place), place.here)
        return judge(code, lines, [told(place, word) for word in case.words], changed(before, state(place)))


def take_apart(case: Case, lab: Lab) -> Taken:
    """Try a case as a user would, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place(lab, Path(folder) / "here")
        place.here.mkdir()
        if case.damage:
            case.damage(place)
        before, name = state(place), case.script.split()[0]
        start = [ROOT / f"{name}.py"] if (ROOT / f"{name}.py").is_file() else ["-m", name]
        paths = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                [sys.executable, *start, *flags_of(case, place)],
                cwd=place.here,
                env=os.environ | paths,
                capture_output=True,
                text=True,
                errors="backslashreplace",
                timeout=12 * SECONDS,  # the imports take most of them
            )
        except subprocess.TimeoutExpired:
            return Taken("hang", "")
        code = "traceback" if "Traceback" in done.stderr else done.returncode
        return judge(
            code, complaints(done.stderr), [told(place, word) for word in case.words], changed(before, state(place))
        )


def started(name: str, flags: list[str], folder: Path) -> tuple[int | str, list[str]]:
    """Run a script or a module's main in `folder`: its exit code (or "traceback", "hang") and its lines on stderr."""
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True)
    with (
        patch.object(sys, "argv", [f"{name}.py", *flags]),
        redirect_stdout(io.StringIO()),
        redirect_stderr(err),
        warnings.catch_warnings(record=True) as warned,
        inside(folder),
    ):
        warnings.simplefilter("default")
        for kind in QUIET:
            warnings.simplefilter("ignore", kind)
        try:
            with limited(SECONDS):
                code = _run(name)
        except Hang:
            code = "hang"
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            code = "traceback"
            traceback.print_exc(file=err)
    lines = complaints(err.buffer.getvalue().decode())
    return code, lines + [f"warning: {one.message}" for one in warned]


def _run(name: str) -> int:
    if name in SCRIPTS:
        runpy.run_path(str(ROOT / f"{name}.py"), run_name="__main__")
    module = importlib.import_module(MODULES[name])
    return module.run() if name == "prompt" else exit_code(module.main)


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """With `folder` as the one that relative names start from."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Hang when the time is over."""

    def over(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def complaints(err: str) -> list[str]:
    """The lines on stderr that are no progress bars."""
    lines = err.replace("\x1b[A", "").replace("\r", "\n").split("\n")
    return [line for line in lines if line.strip() and not (BAR.match(line) and "error:" not in line)]


def state(place: Place) -> dict[str, tuple[int, int]]:
    """Every file at the place by size and time; the cache and tensors' notes grow as they please."""
    found = {}
    for root in (place.lab.root, place.here):
        for folder, names, files in os.walk(root):
            names[:] = [name for name in names if name not in ("cache", ".cache")]
            for name in files:
                stat = os.lstat(os.path.join(folder, name))  # noqa: PTH118
                found[f"{folder}/{name}"] = stat.st_size, stat.st_mtime_ns
    return found


def changed(before: dict, after: dict) -> list[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def judge(code: int | str, lines: list[str], words: list[str], written: list[str]) -> Taken:
    """What to think of a run that should have been refused."""
    said = "\n".join(lines)
    if code in ("traceback", "hang"):
        return Taken(code, said)
    if code == 0:
        return Taken("silent", said)
    if code != 2:
        return Taken("unclear", f"exit code {code}: {said}")
    if len(lines) != 1 or not lines[0].startswith("error: "):
        return Taken("unclear", f"not one line: {said}")
    if lacking := [word for word in words if word not in lines[0]]:
        return Taken("unclear", f"no word on {lacking[0]}: {said}")
    if written:
        return Taken("unclear", f"{written[0]} was written or changed: {said}")
    return Taken("refused", said)
