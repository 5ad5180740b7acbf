"""Both towers against golden numbers and open_clip's own class, and what `load_clip` accepts."""

import json
from collections.abc import Callable
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
from helpers.goldens import CONFIG, FORWARD, WEIGHTS, arrays, relative
from open_clip import get_model_config
from open_clip.model import CLIP as OpenCLIP
from open_clip.model import resize_pos_embed
from torch import Tensor, nn

import CLIP
from CLIP.model import VisionConfig, VisionTower
from decoder import MDecoder
from runtime.errors import InputError

BATCHING = 1e-5  # how far one more image in a batch may move a feature
PARAMETERS = {  # open_clip's model profile says the same in millions
    "ViT-B-16": 149_620_737,
    "ViT-B-16-plus-240": 208_377_345,
    "ViT-L-14": 427_616_513,
    "ViT-L-14-336": 427_944_193,
    "ViT-T-16-demo": 7_150_593,
}


@pytest.fixture(scope="module", params=["gelu", "quickgelu"])
def activated(request: pytest.FixtureRequest) -> CLIP.CLIP:
    return CLIP.load_clip(CONFIG, WEIGHTS, activation=request.param)


def test_golden_image_features(activated, images):
    expected = arrays("visual")
    name = activated.activation
    assert relative(activated.encode_image(images), expected[f"{name}.encode_image"]) < FORWARD
    decoded = MDecoder(activated, adapter="none")(images)
    for tokens, layer in zip(decoded.seg_tokens, (6, 12, 18, 24), strict=True):
        assert relative(tokens[:, 1:], expected[f"{name}.layer{layer}"]) < FORWARD
    assert relative(decoded.pooled, expected[f"{name}.encode_image"]) < FORWARD


def test_golden_text_features(activated):
    expected = arrays("text")
    ids = torch.from_numpy(expected["tokens"]).long()
    assert relative(activated.encode_text(ids), expected[activated.activation]) < FORWARD


def test_activations_differ(images):
    gelu, quick = (arrays("visual")[f"{name}.encode_image"] for name in ("gelu", "quickgelu"))
    assert relative(quick, gelu) > 100 * FORWARD


def test_one_image_or_two(clip, images):
    together = clip.encode_image(images)
    alone = torch.cat([clip.encode_image(image[None]) for image in images])
    assert relative(together, alone) < BATCHING


def test_one_text_or_two(clip):
    ids = CLIP.tokenize(["a photo of a brain", "", "a close-up of a far longer sentence, with punctuation!"])
    alone = torch.cat([clip.encode_text(row[None]) for row in ids])
    assert relative(clip.encode_text(ids), alone) < BATCHING


def test_text_after_its_end_does_not_matter(clip):
    ids = CLIP.tokenize("a photo of a brain")
    length = int(ids.argmax()) + 1
    features = clip.encode_text(ids)
    assert relative(clip.encode_text(ids[:, :length]), features) < BATCHING
    noisy = ids.clone()
    noisy[:, length:] = 1234
    assert relative(clip.encode_text(noisy), features) < BATCHING
    noisy[:, length - 2] = 1234
    assert relative(clip.encode_text(noisy), features) > 100 * BATCHING


@pytest.mark.parametrize(("height", "width"), [(336, 336), (14, 14), (28, 140), (240, 100), (57, 71)])
def test_any_image_size(clip, height, width):
    image = torch.rand(1, 3, height, width, generator=torch.manual_seed(0))
    patches = (height // 14) * (width // 14)
    assert clip.visual.embed(image).shape == (1, 1 + patches, 64)
    features = clip.encode_image(image)
    assert features.shape == (1, 48) and features.isfinite().all()


def test_positions_of_the_own_grid_are_untouched(clip):
    assert clip.visual.positions(24, 24) is clip.visual.positional_embedding


@pytest.mark.parametrize("shape", [(17, 17), (10, 6), (30, 24), (1, 5)])
def test_positions_are_resized_as_open_clip_does(clip, shape):
    state = {"visual.positional_embedding": clip.visual.positional_embedding.clone()}
    resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=shape)))
    assert relative(clip.visual.positions(*shape), state["visual.positional_embedding"]) < 1e-6


def test_rows_and_columns_are_not_swapped():
    tower = VisionTower(VisionConfig(image_size=64, layers=1, width=8, patch_size=16, head_width=8), 4, "gelu")
    grid = torch.arange(4.0).repeat_interleave(4)  # each patch of 4 x 4 knows its row
    tower.positional_embedding.data = torch.cat([torch.tensor([-7.0]), grid])[:, None].expand(-1, 8)
    resized = tower.positions(2, 5)[:, 0]
    assert resized[0] == -7
    rows = resized[1:].view(2, 5)
    assert torch.allclose(rows, rows[:, :1].expand(2, 5), atol=1e-6)
    assert rows[0, 0] < 1.5 < rows[1, 0]


def test_resized_positions_follow_size_and_weights():
    torch.manual_seed(0)
    tower = CLIP.load_clip("ViT-T-16-demo").visual
    with torch.inference_mode():
        first = tower.positions(3, 4)
    assert tower.positions(3, 4) is first and not first.is_inference()
    assert tower.positions(4, 3).shape == first.shape and not tower.positions(4, 3).equal(first)
    assert tower.positions(3, 4).equal(first)
    tower.load_state_dict({name: 2 * tensor for name, tensor in tower.state_dict().items()})
    assert relative(tower.positions(3, 4), 2 * first) < 1e-6
    tower.requires_grad_(True)
    tower.positions(3, 4).sum().backward()
    assert tower.positional_embedding.grad.any()


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_architectures_are_open_clips(name):
    embed_dim, vision, text = CLIP.config(name)
    with torch.device("meta"):
        ours, theirs = CLIP.build(name), OpenCLIP(embed_dim, asdict(vision), asdict(text))
    assert shapes(ours) == shapes(theirs)
    assert sum(parameter.numel() for parameter in ours.parameters()) == PARAMETERS[name]


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    """A shape for each name of the state dict."""
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", sorted(PARAMETERS.keys() - {"ViT-T-16-demo"}))
def test_configs_are_open_clips(name):
    theirs = get_model_config(name)
    embed_dim, vision, text = CLIP.config(name)
    assert embed_dim == theirs["embed_dim"]
    assert asdict(vision) == {"head_width": 64} | theirs["vision_cfg"]
    assert asdict(text) == theirs["text_cfg"]


def test_every_config_is_tested():
    assert CLIP.model_names() == sorted(PARAMETERS)


def test_a_model_is_frozen_float32_in_eval_mode(clip):
    assert not clip.training
    assert not any(parameter.requires_grad for parameter in clip.parameters())
    assert {parameter.dtype for parameter in clip.parameters()} == {torch.float32}
    assert clip.image_size == 240
    assert CLIP.load_clip(CONFIG, WEIGHTS, 336).image_size == 336


def test_open_clip_weights_run_with_gelu_unless_told(clip):
    assert clip.activation == "gelu"
    assert CLIP.load_clip(CONFIG, WEIGHTS, activation="quickgelu").activation == "quickgelu"


def test_random_start_is_the_seeds_and_tells_images_apart(images):
    def features(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return CLIP.load_clip("ViT-T-16-demo").encode_image(images)

    first = features(1)
    assert first.equal(features(1))
    assert relative(features(2), first) > 0.1
    assert relative(first[1], first[0]) > 1e-3


def config_file(change: Callable[[dict], object]) -> str:
    """The small CLIP's config as text, after a change of its content."""
    content = json.loads(CONFIG.read_text())
    return json.dumps(change(content) or content)


FAULTY = {
    "no json": "{",
    "a list": "[1, 2]",
    "null": "null",
    "no part": config_file(lambda content: content.pop("text_cfg") and None),
    "no number": config_file(lambda content: content["vision_cfg"].pop("layers") and None),
    "unknown key": config_file(lambda content: content["vision_cfg"].update(timm_model_name="x")),
    "words": config_file(lambda content: content.update(embed_dim="wide")),
    "text for a number": config_file(lambda content: content["vision_cfg"].update(layers="24")),
    "heads that do not divide": config_file(lambda content: content["vision_cfg"].update(head_width=48)),
    "zero": config_file(lambda content: content["vision_cfg"].update(patch_size=0)),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_faulty_config_is_named(fault, tmp_path):
    path = tmp_path / "own.json"
    path.write_text(FAULTY[fault])
    with pytest.raises(InputError, match=r"own\.json is not a model config") as caught:
        CLIP.load_clip(path)
    assert "\n" not in str(caught.value)


def test_own_config_by_path(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(CONFIG.read_text())
    assert shapes(CLIP.load_clip(str(path), WEIGHTS)) == shapes(CLIP.build(CONFIG))


@pytest.mark.parametrize("name", ["ViT-L-15", "", ".", "ViT-B-16.json", "missing/own.json", str(WEIGHTS)])
def test_unknown_model(name):
    with pytest.raises(InputError, match=r"unknown model .* ViT-L-14-336, .* or the path of a config JSON"):
        CLIP.load_clip(name)


def test_unknown_activation():
    with pytest.raises(InputError, match="unknown activation relu; known: gelu, quickgelu"):
        CLIP.load_clip(CONFIG, WEIGHTS, activation="relu")


@pytest.mark.parametrize("size", [0, 13])
def test_images_smaller_than_a_patch(size):
    with pytest.raises(InputError, match=f"image size {size} is smaller than one patch"):
        CLIP.load_clip(CONFIG, WEIGHTS, size)


def test_weights_missing_or_of_another_model(tmp_path):
    with pytest.raises(InputError, match=r"none\.pt"):
        CLIP.load_clip(CONFIG, tmp_path / "none.pt")
    with pytest.raises(InputError, match=r"clip_small\.safetensors does not fit the model"):
        CLIP.load_clip("ViT-T-16-demo", WEIGHTS)
