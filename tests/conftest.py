"""What several test files share: the small CLIP of the golden numbers and a tiny one for whole runs."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, a core each; read when torch is imported

import pytest
import torch
from helpers.goldens import CONFIG, GOLDEN, WEIGHTS, arrays
from helpers.lab import Lab, write_clip
from helpers.predicting import noise
from safetensors.torch import load_file
from torch import Tensor

import CLIP
from decoder import MDecoder

signal.signal(signal.SIGINT, signal.default_int_handler)  # started in the background, all would ignore Ctrl-C


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """After a test there are numbers below 1.2e-38 again, which `pick_device` does away with: Hypothesis wants them."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def clip() -> CLIP.CLIP:
    """The small CLIP with GELU; frozen, so every test may use the same one."""
    return CLIP.load_clip(CONFIG, WEIGHTS)


@pytest.fixture(scope="session")
def images() -> Tensor:
    """Two images, (2, 3, 240, 240) in [0, 1]."""
    return torch.from_numpy(arrays("visual")["image_uint8"]).float() / 255


@pytest.fixture
def golden_decoder(clip: CLIP.CLIP) -> Callable[..., MDecoder]:
    """Builds a decoder of kind "madff" or "mvfa" with that kind's golden adapters."""

    def build(kind: str, **options: object) -> MDecoder:
        decoder = MDecoder(clip, adapter=kind, **options)
        decoder.load_adapters(load_file(GOLDEN / f"adapters_{kind}.safetensors"))
        return decoder

    return build


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The config and the weights of a tiny CLIP."""
    return write_clip(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def lab(tmp_path: Path, tiny: tuple[Path, Path]) -> Lab:
    """An empty folder to run scripts in."""
    return Lab(tmp_path, *tiny)


@pytest.fixture
def folders(lab: Lab) -> Lab:
    """Folders good, bad and new with images of noise, for predict.py without training."""
    for first, label, count in ((0, "good", 4), (100, "bad", 3), (200, "new", 5)):
        for number in range(count):
            noise(lab.root / label / f"{label}{number}.png", seed=first + number)
    return lab


@pytest.fixture(scope="session")
def trained(tiny: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Brain (with masks) and Chest trained on one normal and one abnormal image each, and Brain for transfer."""
    lab = Lab(tmp_path_factory.mktemp("trained"), *tiny)
    lab.medical("Brain")
    lab.medical("Chest", masks=None)
    lab.others()
    for obj in ("Brain", "Chest"):
        lab.done("train_few", "--obj", obj)
    lab.done("train_zero", "--obj", "Brain", "--save_path", lab.root / "zero")
    return lab
