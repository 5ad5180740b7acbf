"""The trunk with 8-bit linear layers is close to the trunk."""

import pytest
import torch
import torch.nn.functional as F
from helpers.goldens import CONFIG, WEIGHTS
from safetensors.torch import load_file, save_file
from torch import nn

import CLIP
from CLIP import int8
from CLIP.int8 import STEPS, Int8Linear, quantise
from runtime.errors import InputError


def test_rounding_is_half_a_step_of_each_row():
    values = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[1e-3], [1.0], [50.0], [1.0], [0.0]]
    )
    integers, scale = quantise(values)
    assert integers.dtype == torch.int8 and integers.abs().max() == STEPS
    assert ((values - integers * scale).abs() <= 0.5001 * scale).all()


def test_a_linear_layer():
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 32), torch.randn(2, 9, 64)
    found, expected = Int8Linear(layer)(x), layer(x)
    assert found.shape == expected.shape
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_integers_in_float32_give_the_same_sums(monkeypatch):
    torch.manual_seed(0)
    layer, x = Int8Linear(nn.Linear(4096, 32)), torch.randn(9, 4096)
    found = []
    for slow in (False, True):
        monkeypatch.setattr(int8, "SLOW", slow)
        found.append(layer(x))
    assert found[0].equal(found[1])


@pytest.mark.parametrize(("integers", "slow"), [(26.0, True), (0.5, False)])
def test_a_trial_says_which_is_faster(monkeypatch, integers, slow):
    asked = []
    monkeypatch.setattr(int8, "SLOW", None)
    monkeypatch.setattr(int8, "remembered", lambda *_: asked.append(1) or {"integers": integers, "float32": 1.0})
    assert int8.slow() == int8.slow() == slow and len(asked) == 1


def test_a_pytorch_without_products_of_integers(monkeypatch):
    def missing() -> None:
        raise AttributeError("_int_mm")

    monkeypatch.setattr(int8, "SLOW", None)
    monkeypatch.setattr(int8, "_trial", missing)
    assert int8.slow()


@pytest.mark.parametrize("slow", [False, True])
def test_rows_do_not_depend_on_their_company(monkeypatch, slow):
    monkeypatch.setattr(int8, "SLOW", slow)
    torch.manual_seed(0)
    layer, x = Int8Linear(nn.Linear(64, 32)), torch.randn(1, 40, 64)
    assert layer(x)[:, :20].equal(layer(x[:, :20]))


def test_image_features_keep_their_direction():
    torch.manual_seed(0)
    images = torch.rand(3, 3, 240, 240)
    exact, small = CLIP.load_clip(CONFIG, WEIGHTS), CLIP.load_clip(CONFIG, WEIGHTS, towers=("image",), precision="int8")
    cosine = F.cosine_similarity(exact.encode_image(images), small.encode_image(images))
    assert (cosine > 0.995).all() and (cosine < 1).all()
    assert small.visual.transformer.resblocks[0].mlp.c_fc.weight.dtype == torch.int8


@pytest.mark.parametrize("weights", [WEIGHTS, None])
def test_a_tower_that_is_left_out_takes_no_memory(weights):
    torch.manual_seed(0)
    whole = CLIP.load_clip(CONFIG, weights)
    torch.manual_seed(0)
    image, ids = CLIP.load_clip(CONFIG, weights, towers=("image",)), CLIP.tokenize(["a liver"])
    assert {name for name in whole.state_dict() if name.startswith("visual.")} | {"logit_scale"} == set(
        image.state_dict()
    )
    text = CLIP.load_clip(CONFIG, weights, towers=("text",))
    assert not any(name.startswith("visual.") for name in text.state_dict())
    if weights:
        assert text.encode_text(ids).equal(whole.encode_text(ids))
        assert image.encode_image(torch.ones(1, 3, 240, 240)).equal(whole.encode_image(torch.ones(1, 3, 240, 240)))


@pytest.mark.parametrize("shape", [(), (5,), (4, 0), (2, 2, 2, 2)])
def test_weights_of_another_shape_are_named(tmp_path, shape):
    state = load_file(WEIGHTS)
    name = next(name for name in state if name.startswith("visual.") and name.endswith("mlp.c_fc.weight"))
    save_file(state | {name: torch.zeros(shape)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors"):
        CLIP.load_clip(CONFIG, tmp_path / "other.safetensors", precision="int8")


def test_a_scale_in_the_file_is_not_taken(tmp_path):
    state = load_file(WEIGHTS)
    name = next(name for name in state if name.startswith("visual.") and name.endswith("mlp.c_fc.weight"))
    save_file(state | {name.replace("weight", "scale"): torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors"):
        CLIP.load_clip(CONFIG, tmp_path / "other.safetensors", precision="int8")
