"""Linear layers in 16 bits: what is held so, that features keep their direction, and that gradients pass."""

import pytest
import torch
import torch.nn.functional as F
from helpers.goldens import CONFIG, WEIGHTS

import CLIP
from CLIP.model import PRODUCTS
from runtime.linear import packs


@pytest.mark.parametrize("weights", [WEIGHTS, None])
@pytest.mark.parametrize("precision", CLIP.HALVES)
def test_linear_layers_of_the_towers_blocks_are_held_so_and_nothing_else(precision, weights):
    clip = CLIP.load_clip(CONFIG, weights, precision=precision)
    for name, tensor in clip.state_dict().items():
        half = "transformer.resblocks." in name and name.endswith(PRODUCTS)
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


@pytest.mark.skipif(not packs(torch.bfloat16), reason="this machine has no products in 16 bits")
def test_packed_blocks_give_the_same_features_and_gradients():
    torch.manual_seed(0)
    images = torch.rand(2, 3, 240, 240)
    plain, packed = (CLIP.load_clip(CONFIG, WEIGHTS, precision="bf16") for _ in range(2))
    CLIP.pack(packed.visual.transformer, 226)
    CLIP.pack(packed.transformer, 8)
    assert not [name for name, _ in packed.named_parameters() if name.endswith(("in_proj_weight", "c_fc.weight"))]
    assert F.cosine_similarity(packed.encode_image(images), plain.encode_image(images)).min() > 0.9999
    ids = CLIP.tokenize(["a photo of a brain", "x"])
    assert F.cosine_similarity(packed.encode_text(ids), plain.encode_text(ids)).min() > 0.9999
    x = torch.randn(1, 9, CLIP.config(CONFIG)[1].width)
    gradients = []
    for clip in (plain, packed):
        own = x.clone().requires_grad_()
        clip.visual.transformer.resblocks[0](own).square().sum().backward()
        gradients.append(own.grad.flatten())
    assert F.cosine_similarity(*gradients, dim=0) > 0.999
