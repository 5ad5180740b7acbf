"""Seeds, devices, and the eleven variants: golden numbers, their order, and where pixels go."""

import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.goldens import FORWARD, arrays, relative
from kornia.geometry import transform as geometry
from torch import Tensor

from runtime.errors import InputError
from utils import ANGLES, SHIFTS, VARIANTS, augment, pick_device, seed_everything


def test_golden_variants():
    golden = {name: torch.from_numpy(values) for name, values in arrays("augment").items()}
    pairs = [augment(image, mask) for image, mask in zip(golden["image"], golden["mask"], strict=True)]
    images, masks = (torch.stack(part, dim=1).flatten(0, 1) for part in zip(*pairs, strict=True))
    assert relative(images, golden["aug_image"]) < FORWARD  # golden order: all images of one variant together
    assert masks.equal((golden["aug_mask"] > 0.5).float())  # golden masks are from before the threshold


def ramps(size: int = 40) -> Tensor:
    """An image (3, S, S) whose channels are x, y and x·y, each pixel's own, in [0, 1]."""
    axis = (torch.arange(size) + 0.5) / size
    x, y = axis.expand(size, size), axis[:, None].expand(size, size)
    return torch.stack([x, y, x * y])


def test_order_and_where_pixels_go():
    image = ramps()
    variants, masks = augment(image, torch.zeros(1, 40, 40))
    assert variants.shape == (VARIANTS, 3, 40, 40) == (11, 3, 40, 40) and masks.shape == (11, 1, 40, 40)
    assert variants[0].equal(image)
    inner = slice(10, 30)
    for place, (x, y) in enumerate(SHIFTS):  # a tenth of the half-width is 2 of 40 pixels
        dx, dy = round(x * 20), round(y * 20)
        shifted = image[:, 10 + dy : 30 + dy, 10 + dx : 30 + dx]
        assert torch.allclose(variants[5 + place][:, inner, inner], shifted, atol=1e-5)
    assert variants[9].equal(image.flip(2)) and variants[10].equal(image.flip(1))


def test_shifts_and_angles_are_those_of_the_method():
    assert list(SHIFTS) == [(0.1, 0.1), (-0.1, 0.1), (-0.1, -0.1), (0.1, -0.1)]
    assert list(ANGLES) == [part * math.pi / 16 for part in (-2, -1, 1, 2)]


def test_rotations_turn_about_the_centre():
    variants, _ = augment(ramps(), torch.zeros(1, 40, 40))
    centre = variants[1:5, :2, 18:22, 18:22].mean(dim=(2, 3))
    assert torch.allclose(centre, torch.full((4, 2), 0.5), atol=1e-5)
    for place, angle in enumerate(ANGLES):  # ramps: the step to the right pixel tells cosine and sine
        step = (variants[1 + place, :2, 20, 25] - variants[1 + place, :2, 20, 15]) * 40 / 10
        assert torch.allclose(step, torch.tensor([math.cos(angle), math.sin(angle)]), atol=1e-4)


def test_what_comes_in_at_the_edge_is_reflected():
    image = torch.rand(3, 40, 40, generator=torch.manual_seed(0))
    shifted = augment(image, torch.zeros(1, 40, 40))[0][5]  # by 2 pixels up and left
    assert torch.allclose(shifted[:, :38, 38:], image[:, 2:, 38:].flip(2), atol=1e-5)


def test_masks_move_with_their_image_and_stay_masks():
    mask = (torch.rand(1, 8, 8, generator=torch.manual_seed(0)) > 0.5).float()
    mask = mask.repeat_interleave(5, dim=1).repeat_interleave(5, dim=2)
    images, masks = augment(mask.expand(3, 40, 40), mask)
    assert masks.dtype == torch.float32 and set(masks.unique().tolist()) == {0.0, 1.0}
    assert masks.equal((images[:, :1] > 0.5).float())


def test_a_mask_does_not_leak_into_its_image():
    image = ramps()
    assert augment(image, torch.ones(1, 40, 40))[0].equal(augment(image, torch.zeros(1, 40, 40))[0])
    assert augment(image, torch.ones(1, 40, 40))[1].all()


@pytest.fixture
def state() -> Iterator[None]:
    """Puts the global generators and cuDNN's flags back afterwards."""
    kept = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    flags = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    yield
    random.setstate(kept[0])
    np.random.set_state(kept[1])  # noqa: NPY002
    torch.set_rng_state(kept[2])
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = flags


@pytest.mark.usefixtures("state")
def test_a_seed_seeds_everything():
    def draw(seed: int) -> tuple[float, float, float]:
        seed_everything(seed)
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    first, other = draw(1), draw(2)
    assert draw(1) == first
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark


def pretend(monkeypatch: pytest.MonkeyPatch, cuda: int = 0, mps: bool = False) -> None:
    """A machine with so many CUDA devices, and with or without Apple's."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(("cuda", "mps", "taken"), [(0, False, "cpu"), (0, True, "mps"), (1, True, "cuda")])
def test_auto_takes_the_best_there_is(monkeypatch, cuda, mps, taken):
    pretend(monkeypatch, cuda, mps)
    assert pick_device("auto").type == pick_device().type == taken
    assert pick_device("cpu") == torch.device("cpu")


def test_a_device_by_number(monkeypatch):
    pretend(monkeypatch, cuda=2)
    assert pick_device("cuda:1") == torch.device("cuda", 1)


def test_deterministic_kernels_are_cudas_alone(monkeypatch):
    torch.use_deterministic_algorithms(False)  # imports what must not see the pretence
    pretend(monkeypatch, cuda=1, mps=True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is taken away at the end
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    try:
        for name, asked in (("cpu", True), ("cuda", False), ("mps", False)):
            pick_device(name, asked)
            assert not torch.are_deterministic_algorithms_enabled() and "CUBLAS_WORKSPACE_CONFIG" not in os.environ
        pick_device("cuda", deterministic=True)
        assert torch.are_deterministic_algorithms_enabled() and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        pick_device("cpu")  # another run of this process does not take them away from the first
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    with pytest.raises(InputError, match="--deterministic is not to be had on MPS"):
        pick_device("mps", deterministic=True)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "meta", "xpu"])
def test_a_device_that_is_not_there(monkeypatch, name):
    pretend(monkeypatch)
    with pytest.raises(InputError, match=f"--device {name} is (not available on this machine|no device)"):
        pick_device(name)


def test_a_number_beyond_the_devices_there_are(monkeypatch):
    pretend(monkeypatch, cuda=2)
    with pytest.raises(InputError, match="--device cuda:2 is not available on this machine"):
        pick_device("cuda:2")


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CUDA"])
def test_what_is_no_device(name):
    with pytest.raises(InputError, match=f"--device {name} is no device; use auto, cuda") as caught:
        pick_device(name)
    assert "\n" not in str(caught.value)


def test_rotations_and_translations_are_kornias():
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    variants, _ = augment(image, torch.zeros(1, 64, 64))
    for place, angle in enumerate(ANGLES, start=1):
        turned = geometry.rotate(
            image[None], torch.tensor([math.degrees(angle)]), padding_mode="reflection", align_corners=False
        )
        assert torch.allclose(variants[place], turned[0], atol=1e-4)
    for place, shift in enumerate(SHIFTS, start=1 + len(ANGLES)):
        pixels = -32 * torch.tensor([shift])  # a shift of the grid moves the picture the other way
        moved = geometry.translate(image[None], pixels, padding_mode="reflection", align_corners=False)
        assert torch.allclose(variants[place], moved[0], atol=1e-4)


FLUSHED = """
import torch
from utils import pick_device
if {picks}:
    pick_device("cpu")
small = torch.full((1 << 22,), 1e-39)  # large enough for every thread
print((small * 0.5).count_nonzero().item())
"""


@pytest.mark.parametrize(("picks", "left"), [(True, 0), (False, 1 << 22)])
def test_tiny_numbers_count_as_0_in_every_thread(picks, left):
    """In a process of its own: threads take it from the one that starts them."""
    env = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run([sys.executable, "-c", FLUSHED.format(picks=picks)], env=env, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{left}\n", "")
