"""Linear layers in 16 bits: what is held so, that features keep their direction, and that gradients pass."""

import pytest
import torch
import torch.nn.functional as F
from helpers.goldens import CONFIG, WEIGHTS

import CLIP
from CLIP.model import PRODUCTS


@pytest.mark.parametrize("weights", [WEIGHTS, None])
@pytest.mark.parametrize("precision", CLIP.HALVES)
def test_linear_layers_of_the_image_towers_blocks_are_held_so_and_nothing_else(precision, weights):
    clip = CLIP.load_clip(CONFIG, weights, precision=precision)
    for name, tensor in clip.state_dict().items():
        half = name.startswith("visual.transformer.") and name.endswith(PRODUCTS)
        assert tensor.dtype == (CLIP.HALVES[precision] if half else torch.float32), name


@pytest.mark.parametrize(("precision", "least"), [("bf16", 0.999), ("fp16", 0.99999)])
def test_features_keep_their_direction(precision, least):
    torch.manual_seed(0)
    images = torch.rand(3, 3, 240, 240)
    exact, half = CLIP.load_clip(CONFIG, WEIGHTS), CLIP.load_clip(CONFIG, WEIGHTS, precision=precision)
    found, expected = half.encode_image(images), exact.encode_image(images)
    assert found.dtype == torch.float32 and not found.equal(expected)
    assert (F.cosine_similarity(found, expected) > least).all()


def test_gradients_pass_through_a_block():
    torch.manual_seed(0)
    x = torch.randn(1, 9, CLIP.config(CONFIG)[1].width)
    gradients = []
    for precision in ("fp32", "bf16"):
        block = CLIP.load_clip(CONFIG, WEIGHTS, precision=precision).visual.transformer.resblocks[0]
        own = x.clone().requires_grad_()
        block(own).square().sum().backward()
        gradients.append(own.grad)
    assert gradients[1].dtype == torch.float32
    assert F.cosine_similarity(*(one.flatten() for one in gradients), dim=0) > 0.999
