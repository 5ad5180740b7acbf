"""What goes wrong through the user's or the machine's fault: exit code 2, one line, and nothing half-written."""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import trees
from helpers.lab import ROOT, Lab, Run, run, write_clip

from CLIP import weights


@pytest.fixture
def lab(lab) -> Lab:
    """With a target, and one more object for transfer."""
    lab.medical("Brain", test=(2, 2))
    lab.medical("Liver", test=(2, 2))
    return lab


def state(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content; TensorBoard's logs and the cache grow as they please."""
    found = (path for path in folder.rglob("*") if path.is_file() and {"runs", "cache"}.isdisjoint(path.parts))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def refused(start: Callable[[], Run], root: Path, *words: object) -> Run:
    """The run ends as a fault should: its line holds all the words, and no file below `root` differs."""
    before = state(root)
    stopped = start()
    assert stopped.code == 2, stopped.err
    (line,) = stopped.complaints
    assert line.startswith("error: ") and all(str(word) in line for word in words), line
    assert state(root) == before
    return stopped


# Options and data


def move(path: Path, name: str) -> None:
    path.rename(path.with_name(name))


def cut(path: Path) -> None:
    """Leave the first half of a file; its header is whole."""
    noise = trees.picture(path, (64, 64)) if path.suffix == ".png" else path
    content = noise.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def garble(path: Path) -> None:
    path.write_bytes(b"this is no image")


BRAIN = "data/Brain_AD"
DATA: dict[str, tuple[Callable[[Path], object], str, tuple[str, ...]]] = {
    # fault: (what is done to the lab's folder, the flags, words of the line)
    "no data folder": (lambda root: None, "--data_path nowhere --obj Chest", ("nowhere",)),
    "no folder of the object": (lambda root: None, "--obj Chest", ("Chest_AD", "--data_path")),
    "unknown object": (lambda root: None, "--obj Brian", ("unknown object Brian", "Did you mean Brain?")),
    "no such class": (lambda root: None, "--obj mvtec/botle", ("unknown object mvtec/botle", "mvtec/bottle?")),
    "no test split": (lambda root: shutil.rmtree(root / BRAIN / "test"), "", ("has no folder test",)),
    "mask of another size": (
        lambda root: trees.mask(root / BRAIN / "test/Ungood/anomaly_mask/test_a0.png", (9, 9)),
        "",
        ("test_a0.png", "9x9", "12x10"),
    ),
    "no mask": (lambda root: (root / BRAIN / "test/Ungood/anomaly_mask/test_a1.png").unlink(), "", ("test_a1.png",)),
    "mask too many": (lambda root: trees.mask(root / BRAIN / "test/Ungood/anomaly_mask/x.png"), "", ("x.png",)),
    "no image": (lambda root: garble(root / BRAIN / "test/good/img/test_n0.png"), "", ("test_n0.png",)),
    "image cut short": (lambda root: cut(root / BRAIN / "test/good/img/test_n1.png"), "", ("test_n1.png",)),
    "image cut short, workers": (
        lambda root: cut(root / BRAIN / "test/good/img/test_n1.png"),
        "--num_workers 2",
        ("test_n1.png", "can't be read"),
    ),
    "prompts missing": (lambda root: None, "--prompts x.json", ("x.json", "--prompts")),
    "prompts of no known kind": (lambda root: None, "--prompts few", ("--prompts few", "base, llm, all")),
    "prompts not JSON": (lambda root: (root / "words.json").write_text("{normal: ["), "", ("words.json", "not JSON")),
    "prompts without a list": (
        lambda root: (root / "words.json").write_text('{"normal": {"prompts": ["a"]}, "abnormal": []}'),
        "",
        ("words.json", 'no list of prompts under "abnormal"'),
    ),
    "block too deep": (lambda root: None, "--features_list 2 5", ("--features_list 2 5", "1 to 4")),
    "blocks out of order": (lambda root: None, "--features_list 4 2", ("--features_list 4 2",)),
    "image smaller than a patch": (lambda root: None, "--img_size 15", ("15", "patch")),
    "no such device": (lambda root: None, "--device gpu", ("--device gpu",)),
    "no such flag": (lambda root: None, "--shots 3", ("unrecognized arguments: --shots 3", "--help")),
    "no such choice": (lambda root: None, "--adapter mlp", ("--adapter", "mlp", "madff")),
    "no such model": (lambda root: None, "--model_name ViT-X", ("unknown model ViT-X",)),
    "no such weights": (lambda root: None, "--clip_path w.pt", ("no weights file w.pt", "--clip_path")),
}
FEW = {
    "k too large": (lambda root: None, "--shot 6", ("6 normal support images", "use --shot 5")),
    "abnormal k too large": (lambda root: None, "--abnormal_shot 6", ("6 abnormal", "--abnormal_shot 5")),
    "nothing to score": (lambda root: None, "--branches zero --abnormal_shot 0", ("--branches zero",)),
    "support cut short": (
        lambda root: [cut(path) for path in (root / BRAIN / "valid/good/img").iterdir()],
        "",
        ("valid_n", "can't be read"),
    ),
    "no such selection": (lambda root: None, "--iterate 0", ("named in", "Brain", "--iterate -1")),
}
ZERO = {
    "nothing to train on": (lambda root: shutil.rmtree(root / "data/Liver_AD"), "", ("no medical object other than",)),
    "training image cut short": (
        lambda root: cut(root / "data/Liver_AD/test/good/img/test_n0.png"),
        "",
        ("Liver_AD", "test_n0.png"),
    ),
    "training image cut short, workers": (
        lambda root: cut(root / "data/Liver_AD/test/good/img/test_n0.png"),
        "--num_workers 2",
        ("Liver_AD", "test_n0.png"),
    ),
}
TRAINING = [("train_few", fault) for fault in DATA | FEW] + [("train_zero", fault) for fault in DATA | ZERO]


@pytest.mark.parametrize(("script", "fault"), TRAINING)
def test_training_refuses(lab, script, fault):
    damage, flags, words = (DATA | FEW | ZERO)[fault]
    damage(lab.root)
    refused(partial(lab.run, script, *flags.split()), lab.root, *words)


TESTED = ("no data folder", "unknown object", "no test split", "mask of another size", "image cut short, workers")


@pytest.mark.parametrize("fault", (*TESTED, "prompts not JSON", "support cut short"))
def test_testing_refuses(lab, fault):
    lab.done("train_few", "--epoch", 0)
    damage, flags, words = (DATA | FEW)[fault]
    damage(lab.root)
    if fault == "unknown object":
        words = ("no checkpoint", "Brian_1-shot.pth", "train first")
    elif fault == "no data folder":
        flags, words = "--data_path nowhere", ("no folder nowhere",)
    refused(partial(lab.run, "test_few", *flags.split()), lab.root, *words)


# Weights


def test_weights_that_can_not_be_had(lab, monkeypatch):
    monkeypatch.setattr(weights.find, "__defaults__", (None, False, lab.root))
    start = partial(run, "train_few", "--data_path", lab.data, "--shot", 1, "--iterate", -1, "--offline")
    refused(start, lab.root, "ViT-L-14-336px.pt is missing and --offline forbids fetching", "https://")


def test_weights_of_another_model(lab):
    _, other = write_clip(lab.root, layers=2)
    refused(partial(lab.run, "train_few", "--clip_path", other), lab.root, other, "does not fit the model")


def test_weights_cut_short(lab):
    other = shutil.copy(lab.weights, lab.root / "w.safetensors")
    other.write_bytes(other.read_bytes()[:-1000])
    refused(partial(lab.run, "train_few", "--clip_path", other), lab.root, other, "cut short or damaged")


# Checkpoints


def other_weights(lab: Lab, path: Path) -> list[object]:
    return ["--clip_path", write_clip(lab.root, seed=1)[1]]


def narrower(lab: Lab, path: Path) -> None:
    """Adapters of a trunk half as wide."""
    content = torch.load(path, weights_only=True)
    del content["sha256"]
    content["seg_adapters"] = {name: part[:8] for name, part in content["seg_adapters"].items()}
    torch.save(content, path)


def rename_support(lab: Lab, path: Path) -> None:
    for image in sorted((lab.data / "Brain_AD" / "valid" / "good" / "img").iterdir()):
        move(image, f"x{image.name}")


CHECKPOINT: dict[str, tuple[Callable[[Lab, Path], object], tuple[str, ...]]] = {
    # fault: (what is done, or the flags; words of the line)
    "missing": (lambda lab, path: path.unlink(), ("no checkpoint", "train first")),
    "cut short": (lambda lab, path: path.write_bytes(path.read_bytes()[:-2000]), ("damaged",)),
    "empty": (lambda lab, path: path.write_bytes(b""), ("damaged",)),
    "text": (lambda lab, path: path.write_text("hello"), ("damaged",)),
    "no adapters": (lambda lab, path: torch.save({"a": torch.zeros(1)}, path), ("holds no adapters",)),
    "of other weights": (other_weights, ("other CLIP weights", "--clip_path")),
    "of a narrower trunk": (narrower, ("do not fit --adapter madff at 4 taps", "is (8, ", "not (")),
    "another size": (lambda lab, path: ["--img_size", 48], ("was trained with --img_size 64, not 48",)),
    "another adapter": (lambda lab, path: ["--adapter", "mvfa"], ("was trained with --adapter madff, not mvfa",)),
}


@pytest.mark.parametrize("kind", ["few", "zero"])
@pytest.mark.parametrize("fault", CHECKPOINT)
def test_a_checkpoint_that_does_not_fit(lab, kind, fault):
    lab.done(f"train_{kind}", "--epoch", 0)
    path = lab.root / "ckpt" / ("Brain_1-shot.pth" if kind == "few" else "Brain.pth")
    damage, words = CHECKPOINT[fault]
    flags = damage(lab, path)
    start = partial(lab.run, f"test_{kind}", *(flags if isinstance(flags, list) else ()))
    refused(start, lab.root, path, *words)


def test_a_checkpoint_of_another_object(lab):
    lab.done("train_few", "--epoch", 0)
    path = lab.root / "ckpt" / "Brain_1-shot.pth"
    start = partial(lab.run, "test_few", "--obj", "Liver", "--ckpt", path)
    refused(start, lab.root, path, "was trained on Brain, not on Liver")


def test_a_checkpoint_that_knows_the_target(lab):
    lab.done("train_zero", "--obj", "Liver", "--epoch", 0)
    start = partial(lab.run, "test_zero", "--obj", "Brain", "--ckpt", lab.root / "ckpt" / "Liver.pth")
    refused(start, lab.root, "Liver.pth", "was trained on Brain itself")


def test_a_checkpoint_that_knows_the_target_by_another_name(lab):
    """ISIC 2019 holds the images of HAM10000."""
    lab.medical("Skin_ISIC2019", masks=None, test=(2, 2))
    lab.done("train_zero", "--obj", "Liver", "--epoch", 0)
    start = partial(lab.run, "test_zero", "--obj", "Skin_HAM10000", "--ckpt", lab.root / "ckpt" / "Liver.pth")
    refused(start, lab.root, "Liver.pth", "was trained on Skin_HAM10000 under the name Skin_ISIC2019")


def test_masks_that_came_after_the_training(lab):
    root = lab.medical("bolts", masks=None)
    lab.done("train_few", "--obj", "bolts", "--epoch", 0)
    shutil.rmtree(root)
    lab.medical("bolts")
    start = partial(lab.run, "test_few", "--obj", "bolts")
    refused(start, lab.root, "bolts_1-shot.pth", "was trained without masks")


def test_training_is_not_lost_when_a_test_image_is(lab):
    """A file whose header alone is whole is found out only when it is scored: after the checkpoint."""
    path = next((lab.data / "Brain_AD" / "test" / "good" / "img").iterdir())
    path.write_bytes(path.read_bytes()[:-40])
    stopped = lab.run("train_few", "--eval_every", 0)
    assert stopped.code == 2 and str(path) in stopped.err
    assert lab.checkpoint().last.epoch == 1


def test_a_support_that_is_no_longer_there(lab):
    lab.done("train_few", "--epoch", 0)
    rename_support(lab, lab.root)
    refused(partial(lab.run, "test_few"), lab.root, "Brain_1-shot.pth has other support images", "valid_n")


def test_a_support_image_that_changed_under_its_name(lab):
    lab.done("train_few", "--epoch", 0)
    for image in (lab.data / "Brain_AD" / "valid" / "good" / "img").iterdir():
        image.write_bytes(image.read_bytes() + b" ")
    refused(partial(lab.run, "test_few"), lab.root, "Brain_1-shot.pth was trained on support images of the same names")


def test_published_adapters_of_another_kind(lab):
    lab.done("train_few", "--epoch", 0, "--adapter", "mvfa")
    path = lab.root / "a.pth"
    torch.save(lab.checkpoint().last.adapters, path)
    start = partial(lab.run, "test_few", "--ckpt", path, "--adapter", "madff", bare=True)
    refused(start, lab.root, path, "do not fit --adapter madff")
    start = partial(lab.run, "test_few", "--ckpt", path, "--features_list", 2, 4, bare=True)
    refused(start, lab.root, path, "do not fit --adapter mvfa at 2 taps")


# Training that goes astray


@pytest.mark.parametrize("kind", ["few", "zero"])
@pytest.mark.parametrize(
    ("flags", "words"), [("--epoch 9 --eval_every 0", "the loss became nan"), ("--batch_size 99", "not finite")]
)
def test_a_learning_rate_that_is_too_high(lab, kind, flags, words):
    """Seen by the next step; after the only step there is, by the scores."""
    flags = ["--learning_rate", 1e30, "--save_every", 0, *flags.split()]
    refused(partial(lab.run, f"train_{kind}", *flags), lab.root, words)


def test_interrupted(lab):
    """Ctrl-C in the midst of the training, with a checkpoint of an earlier run in place."""
    lab.done("train_few")
    before = state(lab.root)
    flags = [*lab.flags("train_few"), "--epoch", 10**6, "--eval_every", 0]
    command = [sys.executable, ROOT / "train_few.py", *map(str, flags)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=lab.root) as process:
        said = b""
        while not re.search(rb" [1-9]\d*/1000000 ", said):
            said += process.stderr.read(1)
        for _ in range(2):  # Python drops an interrupt that comes while a destructor runs
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                said += process.communicate(timeout=60)[1]
                break
    (line,) = Run(process.returncode, "", said.decode(), []).complaints
    assert process.returncode == 2 and re.match(
        r"error: stopped after .* of 1000000 epochs; the same command goes", line
    )
    after = state(lab.root)
    assert before.items() <= after.items()
    assert {Path(name).name for name in after.keys() - before.keys()} == {"run.json", "unfinished.pth"}


def test_a_fault_of_the_program_keeps_its_traceback(lab, monkeypatch):
    monkeypatch.setattr("engine.few_shot.load_support", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        lab.run("train_few")


# Disks

OUTPUTS = {  # flag -> a file that is written there
    "--save_path": "Brain_1-shot.pth",
    "--results_path": "train_few/Brain_1-shot/results.csv",
    "--save_images": "Brain_1-shot/test_good_img_test_n0.png",
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("flag", OUTPUTS)
def test_a_full_disk(lab, monkeypatch, flag):
    """The temporary file that is written first leads to the device that is always full."""
    lab.done("train_few", flag, lab.root / "out")
    monkeypatch.setattr(secrets, "token_hex", lambda _: "x")
    path = lab.root / "out" / OUTPUTS[flag]
    link = path.with_name(f".{path.stem}-x{path.suffix}")
    link.symlink_to("/dev/full")
    others = [part for name in OUTPUTS if name != flag for part in (name, lab.root / "others" / name[2:])]
    stopped = lab.run("train_few", flag, lab.root / "out", *others, "--epoch", 2)
    assert stopped.code == 2
    (line,) = stopped.complaints
    assert line.startswith(f"error: no space left on the device for {path};")
    assert path.is_file() and not os.path.lexists(link)
    assert not list(lab.root.rglob(".*"))


@pytest.mark.parametrize("flag", [*OUTPUTS, "--log_dir"])
@pytest.mark.parametrize("script", ["train_few", "train_zero"])
def test_a_file_where_a_folder_is_wanted_stops_before_the_training(lab, monkeypatch, script, flag):
    monkeypatch.setattr("engine.training.Trainer.step", lambda *_: pytest.fail("trained"))
    (lab.root / "taken").write_text("")
    for place in ("taken", "taken/below"):
        refused(partial(lab.run, script, flag, lab.root / place), lab.root, lab.root / "taken", "is a file where")


@pytest.mark.parametrize("flag", OUTPUTS)
def test_a_folder_that_may_not_be_written_stops_before_the_training(lab, monkeypatch, flag):
    monkeypatch.setattr("engine.training.Trainer.step", lambda *_: pytest.fail("trained"))
    make = Path.mkdir

    def mkdir(self: Path, *options: object, **named: object) -> None:
        if self.name == "mine":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        make(self, *options, **named)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    refused(partial(lab.run, "train_few", flag, lab.root / "mine"), lab.root, "no permission for", lab.root / "mine")


@pytest.mark.parametrize("flag", ["--results_path", "--save_images"])
def test_testing_where_no_folder_can_be(lab, flag):
    lab.done("train_few", "--epoch", 0)
    (lab.root / "taken").write_text("")
    refused(partial(lab.run, "test_few", flag, lab.root / "taken"), lab.root, lab.root / "taken", "is a file where")


def test_a_config_that_is_none(lab):
    path = lab.root / "a.json"
    path.write_text(json.dumps({"embed_dim": 16}))
    refused(partial(lab.run, "train_few", "--model_name", path), lab.root, path, "is not a model config")


@pytest.mark.parametrize("script", ["train_few", "train_zero"])
def test_room_is_reckoned_before_the_training(lab, monkeypatch, script):
    monkeypatch.setattr("engine.training.Trainer.step", lambda *_: pytest.fail("trained"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    refused(partial(lab.run, script), lab.root, "no space left on the device", "this run may take", "0 MB are free")


def test_a_disk_that_fills_up_while_training_keeps_what_was_saved(lab, monkeypatch):
    """The save fails, the one before it stays, and the same command goes on from there."""
    flags = ["--epoch", 3, "--save_every", 1e-6]
    lab.done("train_few", *flags, "--save_path", lab.root / "whole")
    write, saves = Path.write_bytes, []

    def full(self: Path, content: bytes) -> int:
        if self.name.startswith(".unfinished"):
            saves.append(self)
            if len(saves) == 3:
                write(self, bytes(content)[:1000])
                raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return write(self, content)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        stopped = lab.run("train_few", *flags, "--restart")
    (line,) = stopped.complaints
    assert stopped.code == 2 and "no space left on the device for" in line and "unfinished.pth" in line
    assert not list((lab.root / "results").rglob(".unfinished*"))
    again = lab.done("train_few", *flags, "--resume")
    assert "going on after 1 of 3 epochs" in again.out
    whole = torch.load(lab.root / "whole" / "Brain_1-shot.pth", weights_only=True)
    for head, part in lab.checkpoint().last.adapters.items():
        assert all(tensor.equal(whole[head][name]) for name, tensor in part.items())
