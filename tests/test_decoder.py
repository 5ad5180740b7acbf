"""The M-Decoder: golden numbers, adapters in and out of files, and that exactly the adapters train."""

import json
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from helpers.goldens import CONFIG, FORWARD, GOLDEN, arrays, relative
from safetensors.torch import load_file
from torch import Tensor

import CLIP
from decoder import HEADS, Decoded, MDecoder, default_taps
from engine import checkpoint
from engine.system import System
from engine.training import Trainer
from loss import adapter_loss
from runtime.errors import InputError

KINDS = ("madff", "mvfa")
TAPS = 4


def same(one: Decoded, other: Decoded) -> bool:
    """Whether two results are equal to the last bit."""
    lists = ((one.seg_tokens, other.seg_tokens), (one.det_tokens, other.det_tokens))
    return one.pooled.equal(other.pooled) and all(a.equal(b) for pair in lists for a, b in zip(*pair, strict=True))


@pytest.fixture(scope="module")
def bare(clip, images) -> Decoded:
    """The trunk's own tokens at the default taps."""
    return MDecoder(clip, adapter="none")(images)


@pytest.mark.parametrize("kind", KINDS)
def test_golden_tokens(golden_decoder, images, kind):
    expected = arrays("decoder")
    decoded = golden_decoder(kind)(images)
    assert relative(decoded.pooled, expected[f"{kind}.pooled"]) < FORWARD
    for tap in range(TAPS):
        assert relative(decoded.seg_tokens[tap], expected[f"{kind}.seg{tap}"]) < FORWARD
        assert relative(decoded.det_tokens[tap], expected[f"{kind}.det{tap}"]) < FORWARD


@pytest.mark.parametrize("kind", KINDS)
def test_one_image_or_two(golden_decoder, images, kind):
    decoder = golden_decoder(kind)
    together, alone = decoder(images), [decoder(image[None]) for image in images]
    assert relative(together.pooled, torch.cat([part.pooled for part in alone])) < 1e-5
    for tap in range(TAPS):
        parts = torch.cat([part.seg_tokens[tap] for part in alone])
        assert relative(together.seg_tokens[tap], parts) < 1e-5


def published(kind: str) -> dict[str, Tensor]:
    """The golden adapters, flat with dotted names."""
    return load_file(GOLDEN / f"adapters_{kind}.safetensors")


def nested(flat: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Dotted names to a dict for each head, as published files have it."""
    return {
        head: {name.removeprefix(f"{head}."): flat[name] for name in flat if name.startswith(head)} for head in HEADS
    }


@pytest.mark.parametrize("kind", KINDS)
def test_nested_and_flat_names_load_alike(clip, images, kind):
    one, other = MDecoder(clip, adapter=kind), MDecoder(clip, adapter=kind)
    assert not same(one(images), other(images))
    one.load_adapters(published(kind))
    other.load_adapters(nested(published(kind)))
    assert same(one(images), other(images))


@pytest.mark.parametrize("kind", KINDS)
def test_a_published_file_there_and_back(clip, golden_decoder, images, tmp_path, kind):
    source, path = golden_decoder(kind), tmp_path / "Brain.pth"
    torch.save({head: getattr(source, head).state_dict() for head in HEADS}, path)
    found = checkpoint.read(path)
    assert found.record is None and found.best is None and found.last.calibration is None
    target = MDecoder(clip, adapter=kind)
    target.load_adapters(found.last.adapters)
    assert same(target(images), source(images))


@pytest.mark.parametrize("kind", ["madff", "mvfa", "projector", "none"])
def test_adapter_state_loads_back(clip, images, kind):
    source, target = MDecoder(clip, adapter=kind), MDecoder(clip, adapter=kind)
    target.load_adapters(source.adapter_state())
    assert same(target(images), source(images))


def test_adapter_state_is_a_copy_under_published_names(golden_decoder):
    decoder = golden_decoder("mvfa")
    state = decoder.adapter_state()
    assert state.keys() == nested(published("mvfa")).keys()
    assert state["seg_adapters"].keys() == nested(published("mvfa"))["seg_adapters"].keys()
    before = state["seg_adapters"]["0.fc1.0.weight"].clone()
    with torch.no_grad():
        decoder.seg_adapters[0].fc1[0].weight.add_(1)
    assert state["seg_adapters"]["0.fc1.0.weight"].equal(before)


def test_half_precision_adapters_load(golden_decoder, clip):
    target = MDecoder(clip, adapter="mvfa")
    target.load_adapters({name: tensor.half() for name, tensor in published("mvfa").items()})
    weight = target.seg_adapters[0].fc1[0].weight
    assert weight.dtype == torch.float32
    assert relative(weight, golden_decoder("mvfa").seg_adapters[0].fc1[0].weight) < 1e-3


NAME = "det_adapters.2.fc1.0.weight"


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


MISFITS = {
    "missing": (lambda state: without(state, NAME), f"no {NAME} (1 faults in all)"),
    "unknown tap": (lambda state: state | {"seg_adapters.9.x": state[NAME]}, "unknown seg_adapters.9.x (1 faults"),
    "shape": (lambda state: state | {NAME: state[NAME].T}, f"{NAME} is (64, 48), not (48, 64) (1 faults"),
    "nothing": (lambda state: {}, "(16 faults in all)"),
    "no weights": (lambda state: {head: {} for head in HEADS}, "(16 faults in all)"),
    "another adapter": (lambda state: published("madff"), "unknown"),
}


@pytest.mark.parametrize(("spoil", "says"), MISFITS.values(), ids=MISFITS)
def test_adapters_that_do_not_fit(clip, images, spoil: Callable[[dict], dict], says):
    decoder = MDecoder(clip, adapter="mvfa")
    before = decoder(images[:1])
    with pytest.raises(InputError, match="do not fit --adapter mvfa at 4 taps") as caught:
        decoder.load_adapters(spoil(published("mvfa")))
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert same(decoder(images[:1]), before)  # nothing was half-loaded


def test_what_lies_beside_the_adapters_is_passed_over(golden_decoder, clip, images):
    target = MDecoder(clip, adapter="mvfa")
    target.load_adapters(nested(published("mvfa")) | {"epoch": 7, "record": {"seg_adapters": "x"}, "best": None})
    assert same(target(images), golden_decoder("mvfa")(images))


def test_fewer_taps_than_the_file_has(clip):
    with pytest.raises(InputError, match=r"at 3 taps: unknown det_adapters\.3"):
        MDecoder(clip, (6, 12, 18), "mvfa").load_adapters(published("mvfa"))


UNREAD = {f"{head}.{TAPS - 1}.fc2.0.weight" for head in HEADS}  # after the last tap no tokens follow


@pytest.fixture(scope="module")
def text() -> Tensor:
    """Two directions (D, 2) so near each other that no probability is saturated."""
    first, step = torch.randn(2, 48, generator=torch.manual_seed(0))
    return F.normalize(torch.stack([first, first + 0.05 * step], dim=1), dim=0)


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_adapters_get_gradients(golden_decoder, images, text, kind):
    decoder = golden_decoder(kind)
    trainable = {name for name, parameter in decoder.named_parameters() if parameter.requires_grad}
    assert trainable == {name for name in decoder.state_dict() if name.startswith(HEADS)}
    mask = torch.zeros(1, 1, 240, 240)
    mask[..., 60:120, 30:90] = 1
    adapter_loss(decoder(images[:1]), text, torch.ones(1), mask).backward()
    gradients = {name: parameter.grad for name, parameter in decoder.named_parameters()}
    assert {name for name, gradient in gradients.items() if gradient is not None} == trainable - UNREAD
    assert all(gradients[name].any() for name in trainable if ".fc1." in name)


@pytest.mark.parametrize("kind", ["madff", "mvfa", "projector"])
def test_a_step_changes_the_adapters_and_no_bit_of_the_trunk(clip, images, text, kind):
    system = System(MDecoder(clip, adapter=kind), torch.device("cpu"), 240)
    before = {name: tensor.clone() for name, tensor in system.decoder.state_dict().items()}
    whole = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    Trainer(system, 1e-3).step(system.prefix(images[:1]), torch.ones(1), torch.ones(1, 1, 240, 240), text)
    after = system.decoder.state_dict()
    changed = {name for name in before if not after[name].equal(before[name])}
    adapters = {name for name in before if name.startswith(HEADS)}
    assert {name for name in adapters if ".fc1." in name or ".fc." in name} - changed <= rarely(adapters)
    assert changed <= adapters - UNREAD
    assert all(tensor.equal(whole[name]) for name, tensor in clip.state_dict().items())


def rarely(names: set[str]) -> set[str]:
    """Weights of attention gates, which a step leaves alone where the gate is saturated."""
    return {name for name in names if "attention" in name}


def test_taps_say_where_adapters_sit(clip, images):
    decoder = MDecoder(clip, (2, 7), "mvfa")
    assert len(decoder.seg_adapters) == len(decoder.det_adapters) == 2
    blocks = clip.visual.transformer.resblocks
    x = clip.visual.embed(images)
    for depth in (1, 2):
        x = blocks[depth - 1](x)
    seg, seg_residual = decoder.seg_adapters[0](x)
    det, det_residual = decoder.det_adapters[0](x)
    x = 0.8 * x + 0.1 * seg_residual + 0.1 * det_residual
    for depth in range(3, 8):
        x = blocks[depth - 1](x)
    decoded = decoder(images)
    assert len(decoded.seg_tokens) == len(decoded.det_tokens) == 2
    assert relative(decoded.seg_tokens[0], seg) < 1e-5 and relative(decoded.det_tokens[0], det) < 1e-5
    assert relative(decoded.seg_tokens[1], decoder.seg_adapters[1](x)[0]) < 1e-5
    assert relative(decoded.det_tokens[1], decoder.det_adapters[1](x)[0]) < 1e-5


@pytest.mark.parametrize("taps", [(), (0, 6), (6, 25), (6, 6), (12, 6), (-1,)])
def test_taps_that_the_trunk_does_not_have(clip, taps):
    with pytest.raises(InputError, match=r"--features_list .* must rise within 1 to 24"):
        MDecoder(clip, taps)


def test_default_taps():
    assert default_taps(24) == (6, 12, 18, 24)
    assert default_taps(12) == (3, 6, 9, 12)
    assert default_taps(8) == (2, 4, 6, 8)
    assert default_taps(5) == (1, 2, 4, 5)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_default_taps_of_a_very_shallow_trunk_can_be_used(tmp_path, layers):
    content = json.loads(CONFIG.read_text())
    content["vision_cfg"]["layers"] = layers
    path = tmp_path / "shallow.json"
    path.write_text(json.dumps(content))
    decoder = MDecoder(CLIP.load_clip(path), default_taps(layers))
    assert decoder.taps == tuple(range(1, layers + 1))


def test_projector_leaves_the_trunk_as_it_is(clip, images, bare):
    decoder = MDecoder(clip, adapter="projector")
    decoded = decoder(images)
    assert decoded.pooled.equal(bare.pooled)
    for tap in range(TAPS):
        assert decoded.seg_tokens[tap].equal(decoder.seg_adapters[tap](bare.seg_tokens[tap])[0])
        assert decoded.det_tokens[tap].equal(decoder.det_adapters[tap](bare.det_tokens[tap])[0])
        assert decoded.seg_tokens[tap].shape == (2, 290, 48)


def test_no_adapter_is_the_bare_trunk(clip, images, bare):
    decoder = MDecoder(clip, adapter="none")
    assert not any(parameter.requires_grad for parameter in decoder.parameters())
    assert decoder.adapter_state() == {head: {} for head in HEADS}
    assert bare.pooled.equal(clip.encode_image(images))
    x = clip.visual.embed(images)
    for depth, block in enumerate(clip.visual.transformer.resblocks, start=1):
        x = block(x)
        if depth % 6 == 0:
            tap = depth // 6 - 1
            assert bare.seg_tokens[tap].equal(x) and bare.det_tokens[tap].equal(x)


def test_options_reach_every_adapter(clip):
    decoder = MDecoder(clip, adapter="madff", attentions=("fab",), axis="token")
    adapters = [*decoder.seg_adapters, *decoder.det_adapters]
    assert len(adapters) == 2 * TAPS
    assert all(adapter.attentions == ("fab",) and adapter.axis == "token" for adapter in adapters)


def test_bare_tokens_meet_text_through_clips_own_projection(clip, bare, golden_decoder, images):
    """The last tap's class token becomes the pooled feature; adapters' tokens are in the joint space already."""
    joint = MDecoder(clip, adapter="none").joint(bare.seg_tokens)
    assert [level.shape for level in joint] == [(2, level.shape[1], clip.embed_dim) for level in bare.seg_tokens]
    torch.testing.assert_close(joint[-1][:, 0], bare.pooled)
    decoder = golden_decoder("mvfa")
    tokens = decoder(images).seg_tokens
    assert decoder.joint(tokens) is tokens
